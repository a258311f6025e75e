"""One service that is down takes neither the others nor the client's tokens with it."""

import html
from typing import Any

import pytest
from oauth2_provider.models import get_refresh_token_model

from tests.consent.people_and_servers import (
    authorize_address,
    browser_of,
    connect,
    oauth_client,
    person,
    server,
    upstream,
)
from tests.consent.test_consent_grows import Connected
from tests.consent.test_consent_page import answer, text_of
from tests.fakes.authorization_server import FakeAuthorizationServer, Fault
from tests.fakes.protected_upstream import ProtectedUpstream
from tests.upstreams.connecting import approve
from upstreams.models import CredentialKind, UpstreamAccount

pytestmark = pytest.mark.django_db
KEY = CredentialKind.USER_KEY


def test_85_one_service_that_cannot_be_connected_leaves_the_others_and_says_which() -> None:
    alice = person()
    wiki, mail, chat = (upstream(key, KEY) for key in ("wiki", "mail", "chat"))
    server("team", (wiki, True), (mail, True), (chat, False))
    connect(alice, wiki)
    address = authorize_address(oauth_client(), "team")
    browser = browser_of(alice)
    shown = text_of(browser.get(address))
    assert "Connect Mail first." in shown
    assert UpstreamAccount.objects.filter(upstream=wiki).exists()
    assert answer(browser, address).status_code == 409
    # The optional one holds up nobody, the required one does until it is connected.
    connect(alice, mail)
    assert answer(browser, address).status_code == 302


def test_112_a_refresh_does_not_ask_whether_services_are_connected() -> None:
    connected = Connected()
    one = connected.server.choices.get().upstream
    type(one).objects.update(credential_kind=KEY)
    connect(connected.user, type(one).objects.get(pk=one.pk))
    UpstreamAccount.objects.all().delete()
    assert connected.refresh()[0] == 200
    assert get_refresh_token_model().objects.filter(revoked=None).count() == 1


def test_85_of_three_services_one_is_down_while_it_is_connected(transactional_db: None) -> None:
    with (
        FakeAuthorizationServer().serve() as good,
        FakeAuthorizationServer().serve() as bad,
        ProtectedUpstream(good).serve() as wiki,
        ProtectedUpstream(bad).serve() as mail,
    ):
        alice = person()
        kind = CredentialKind.USER_OAUTH
        two = [upstream(key, kind, url=wiki.url) for key in ("wiki", "notes")]
        down = upstream("mail", kind, url=mail.url)
        made = server("team", (two[0], True), (down, False), (two[1], True))
        browser = browser_of(alice)
        address = authorize_address(oauth_client(), "team")

        def connect_to(key: str) -> Any:
            return browser.post(f"/connect/{key}/", {"next": address})

        assert browser.get(approve(connect_to("wiki")["Location"])).status_code == 303
        going = approve(connect_to("mail")["Location"])
        bad.token_faults = [Fault(status=500)] * 9
        failed = browser.get(going)
        assert failed.status_code == 502
        assert "Mail could not be connected" in text_of(failed)
        assert html.escape(address) in failed.content.decode()
        assert browser.get(approve(connect_to("notes")["Location"])).status_code == 303
        held = UpstreamAccount.objects.values_list("upstream__key", flat=True)
        assert set(held) == {"wiki", "notes"}
        shown = text_of(browser.get(address))
        assert shown.count("Connected") == 2
        assert "Mail Not connected Optional" in shown
        # What is optional holds up nobody; made required, it does, whatever was shown.
        page = browser.get(address)
        made.choices.filter(upstream=down).update(required=True)
        assert answer(browser, address, page=page).status_code == 409
        made.choices.filter(upstream=down).update(required=False)
        assert answer(browser, address).status_code == 302
