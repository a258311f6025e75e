"""What a yes was about, when people are asked again, and what step-up shows them."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import get_refresh_token_model

from consent import agreement, decisions
from consent.models import ConsentRecord
from tests.consent.people_and_servers import (
    REDIRECT,
    authorize_address,
    browser_of,
    oauth_client,
    person,
    resource,
    server,
    upstream,
)
from tests.consent.test_consent_page import answer, text_of, told  # noqa: F401
from tests.oauthserver import flows
from tests.oauthserver.flows import Pkce
from virtualmcp.models import ToolDefinition, UpstreamChoice, VirtualMcp

pytestmark = pytest.mark.django_db


class Connected:
    """A person who agreed, and the client with its tokens."""

    def __init__(self, source: str = "dcr", **facts: Any) -> None:
        self.api = Client()
        self.user = person()
        self.client = oauth_client(source=source)
        self.server = server("tools", (upstream("wiki"), True), **facts)
        self.browser = browser_of(self.user)
        self.tokens: dict[str, Any] = {}
        self.agree()

    def agree(self, **more: str) -> None:
        pkce = Pkce()
        address = authorize_address(self.client, "tools", code_challenge=pkce.challenge, **more)
        code = flows.answer_of(answer(self.browser, address))["code"]
        redeemed = flows.redeem(
            self.api, self.client.client_id, REDIRECT, code, pkce, resource=resource("tools")
        )
        assert redeemed.status_code == 200, redeemed.content
        self.tokens = redeemed.json()

    def refresh(self) -> tuple[int, str]:
        answered = flows.refresh(self.api, self.client.client_id, self.tokens["refresh_token"])
        if answered.status_code == 200:
            self.tokens = answered.json()
        return answered.status_code, answered.json().get("error_description", "")

    def page(self, **more: str) -> str:
        return text_of(self.browser.get(authorize_address(self.client, "tools", **more)))

    def define(self, name: str, wording: str, **more: Any) -> None:
        ToolDefinition.objects.create(
            virtual_mcp=self.server,
            upstream=self.server.choices.get().upstream,
            subject="tool",
            name=name,
            digest=hashlib.sha256(wording.encode()).hexdigest()[:32],
            **{"state": "approved", **more},
        )


def join(made: VirtualMcp, key: str) -> None:
    UpstreamChoice.objects.create(virtual_mcp=made, upstream=upstream(key), position=9)


def test_the_record_says_what_was_agreed(told: list[dict[str, Any]]) -> None:  # noqa: F811
    connected = Connected()
    connected.define("search", "finds")
    connected.agree()
    record = ConsentRecord.objects.get()
    assert record.agreed["client"] == {
        "name": "Chat",
        "host": "",
        "source": "dcr",
        "redirect_hosts": ["chat.example"],
    }
    assert record.agreed["upstreams"] == ["wiki"]
    assert record.agreed["tools"]["count"] == 1
    assert record.agreed["tools"]["names"] == {"wiki": ["search"]}
    assert len(record.agreed["tools"]["digest"]) == 64
    given = [event for event in told if event["kind"] == "consent.given"]
    assert given[-1]["details"]["agreed"] == record.agreed


def test_an_upstream_more_is_asked_about_at_the_next_refresh(
    told: list[dict[str, Any]],  # noqa: F811
) -> None:
    connected = Connected()
    assert connected.refresh()[0] == 200
    join(connected.server, "vault")
    for _ in range(2):
        status, why = connected.refresh()
        assert status == 400
        assert "vault" in why
    assert [event["kind"] for event in told].count("consent.outgrown") == 1
    assert "New since you agreed" in connected.page()
    assert "more services now: vault" in connected.page()
    connections = connected.browser.get("/connections/")
    assert b"It will ask you again" in connections.content
    connected.agree()
    assert connected.refresh()[0] == 200
    assert "New since" not in connected.page()
    assert "You agreed to this before" in connected.page()


def grow(made: Connected) -> None:
    join(made.server, "vault")


def rename(made: Connected) -> None:
    type(made.client).objects.update(name="Chat Premium")


def redirect_elsewhere(made: Connected) -> None:
    type(made.client).objects.update(redirect_uris=f"{REDIRECT} https://evil.example/cb")


@pytest.mark.parametrize("change", [grow, rename, redirect_elsewhere])
def test_a_yes_is_to_what_the_page_said_and_to_nothing_that_came_since(
    change: Callable[[Connected], None],
) -> None:
    connected = Connected()
    address = authorize_address(connected.client, "tools")
    page = connected.browser.get(address)
    change(connected)
    pressed = answer(connected.browser, address, page=page)
    assert pressed.status_code == 409
    assert "changed while you were reading" in text_of(pressed)
    assert "New since you agreed" in text_of(pressed)
    # Nothing was agreed to; the page that says it now counts.
    assert ConsentRecord.objects.get().agreed["upstreams"] == ["wiki"]
    assert "code" in flows.answer_of(answer(connected.browser, address, page=pressed))


def test_an_upstream_less_is_not_worth_a_question() -> None:
    connected = Connected()
    join(connected.server, "vault")
    connected.agree()
    connected.server.choices.filter(upstream__key="vault").delete()
    assert connected.refresh()[0] == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Chat Premium"}, "calls itself Chat Premium now"),
        ({"redirect_uris": f"{REDIRECT} https://evil.example/cb"}, "evil.example"),
    ],
)
def test_another_name_or_redirect_host_is_asked_about(change: dict[str, str], words: str) -> None:
    connected = Connected(source="cimd")
    type(connected.client).objects.update(**change, cimd_expires_at=None)
    status, why = connected.refresh()
    assert status == 400
    assert words in why


def test_another_path_of_the_same_host_is_not() -> None:
    connected = Connected()
    type(connected.client).objects.update(redirect_uris=f"{REDIRECT} https://chat.example/other")
    assert connected.refresh()[0] == 200


def test_an_administrator_may_have_nobody_asked_again() -> None:
    connected = Connected(ask_again="never")
    join(connected.server, "vault")
    assert connected.refresh()[0] == 200


def test_changed_tools_are_asked_about_where_the_administrator_says_so() -> None:
    connected = Connected()
    connected.define("search", "finds")
    assert connected.refresh()[0] == 200
    # A first wording is what people agreed to; another one is a change.
    VirtualMcp.objects.update(ask_again="tools")
    assert connected.refresh()[0] == 200
    connected.define("search", "finds and sends")
    status, why = connected.refresh()
    assert status == 400
    assert "search" in why
    VirtualMcp.objects.update(ask_again="grown")
    assert connected.refresh()[0] == 200


def test_a_new_tool_is_asked_about_where_the_administrator_says_so() -> None:
    connected = Connected(ask_again="tools")
    # Nobody had listed any when the person agreed: the first list is what they agreed to.
    connected.define("search", "finds")
    assert connected.refresh()[0] == 200
    ToolDefinition.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    connected.define("delete_page", "deletes")
    status, why = connected.refresh()
    assert status == 400
    assert "offers more tools now: delete_page." in why
    connected.agree()
    assert connected.refresh()[0] == 200
    VirtualMcp.objects.update(ask_again="grown")
    connected.define("send", "sends")
    assert connected.refresh()[0] == 200


def test_tools_that_are_not_offered_are_neither_counted_nor_asked_about() -> None:
    connected = Connected(ask_again="tools")
    UpstreamChoice.objects.update(tool_mode="chosen", chosen_tools=["search"])
    connected.define("search", "finds")
    connected.define("erase", "erases")
    ToolDefinition.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    page = connected.page()
    assert "1 tool known so far" in page
    assert "search" in page and "erase" not in page
    connected.agree()
    connected.define("erase", "erases for good")
    connected.define("purge", "purges")
    assert connected.refresh()[0] == 200
    assert ConsentRecord.objects.get().agreed["tools"]["names"] == {"wiki": ["search"]}


def test_a_consent_that_was_taken_back_refreshes_nothing() -> None:
    connected = Connected()
    decisions.revoke(ConsentRecord.objects.get(), actor=connected.user)
    get_refresh_token_model().objects.update(revoked=None)
    assert connected.refresh()[0] == 400
    assert agreement.why_ask_again(connected.user, connected.client, resource("tools"))


def test_a_record_from_before_these_facts_were_kept_goes_on() -> None:
    connected = Connected()
    ConsentRecord.objects.update(agreed={})
    join(connected.server, "vault")
    assert connected.refresh()[0] == 200


def test_step_up_is_a_second_yes_with_the_tools_named() -> None:
    connected = Connected(step_up=True)
    connected.define("search", "finds", read_only=True)
    connected.define("delete_page", "deletes")
    assert connected.tokens["scope"] == "mcp:tools"
    first = connected.page()
    assert "Use the tools that only read" in first
    assert "Tools that change something (1): not asked for now" in first
    wider = "mcp:tools mcp:tools.write"
    second = connected.page(scope=wider)
    assert "Use the tools that change something in your name" in second
    assert "delete_page" in second
    connected.agree(scope=wider)
    assert connected.tokens["scope"] == wider
    assert connected.refresh()[0] == 200
    assert connected.tokens["scope"] == wider


def test_the_further_scope_is_given_only_where_it_exists() -> None:
    connected = Connected()
    connected.agree(scope="mcp:tools mcp:tools.write")
    assert connected.tokens["scope"] == "mcp:tools"
    metadata = connected.api.get("/.well-known/oauth-authorization-server").json()
    assert "mcp:tools.write" not in metadata["scopes_supported"]


def test_a_client_without_resource_gets_the_scopes_of_the_server_picked() -> None:
    connected = Connected(step_up=True)
    server("other", (upstream("files"), True))
    pkce = Pkce()
    address = authorize_address(
        connected.client, scope="mcp:tools.write", code_challenge=pkce.challenge
    )
    picked = answer(connected.browser, address, resource=resource("tools"))
    code = flows.answer_of(picked)["code"]
    tokens = flows.redeem(
        connected.api, connected.client.client_id, REDIRECT, code, pkce, resource=None
    ).json()
    assert tokens["scope"] == "mcp:tools mcp:tools.write"
