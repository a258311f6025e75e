"""The catalogue and the "Configuring the MCP" page."""

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from tests.consent.people_and_servers import browser_of, person, resource, server, upstream
from upstreams.models import CredentialKind

pytestmark = pytest.mark.django_db


def test_catalogue_has_a_card_for_each_server_this_person_may_use():
    maria = person()
    group = Group.objects.create(name="Finance")
    server("workspace", (upstream("ledger", CredentialKind.USER_KEY), True))
    server("closed", audience="groups").groups.add(group)
    server("off", enabled=False)
    body = browser_of(maria).get("/").content.decode()
    assert "Workspace" in body
    assert "Configuring the MCP" in body
    assert "Not connected" in body
    assert "Closed" not in body
    assert "/servers/off/" not in body
    maria.groups.add(group)
    assert "Closed" in browser_of(maria).get("/").content.decode()


def test_person_without_servers_reads_whom_to_ask():
    assert "Ask your administrator" in browser_of(person()).get("/").content.decode()


def test_administrator_without_servers_is_led_to_the_first_one():
    body = browser_of(person(is_staff=True, is_superuser=True)).get("/").content.decode()
    assert "/admin/virtualmcp/virtualmcp/add/" in body


def test_connect_page_shows_the_address_and_every_client():
    server("workspace", (upstream("wiki"), True))
    body = browser_of(person()).get("/servers/workspace/").content.decode()
    assert f'<code id="server-url">{resource("workspace")}</code>' in body
    for client in (
        "ChatGPT",
        "Claude",
        "Claude Code",
        "Cursor",
        "VS Code",
        "Codex",
        "Gemini CLI",
        "Others",
    ):
        assert f">{client}</a>" in body


def test_unknown_and_forbidden_servers_look_the_same():
    server("closed", audience="groups")
    browser = browser_of(person())
    forbidden, unknown = browser.get("/servers/closed/"), browser.get("/servers/nothing/")
    assert forbidden.status_code == unknown.status_code == 404
    assert b"Closed" not in forbidden.content


def test_pages_are_for_people_who_signed_in():
    for path in ("/", "/servers/workspace/"):
        assert Client().get(path)["Location"].startswith("/accounts/login/")
