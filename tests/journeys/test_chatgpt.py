"""ChatGPT's journey, written against the wire (clients.md 1.3 and 1.10)."""

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest
from jwcrypto import jwk

from tests.fakes.browser import Browser
from tests.journeys.chatgpt_client import (
    REDIRECT_OF_ONE_CALLBACK,
    STABLE_REDIRECT,
    ChatGptClient,
    ChatGptDocuments,
    Unsupported,
    chatgpt_documents,
)
from tests.journeys.wire_client import parse_challenge
from tests.journeys.world import PASSWORD, PATIENCE, STOPS, Person, World, within
from tests.running_gateway import RunningGateway, running_gateway


def connect(client: ChatGptClient, person: Person, callback: str = "") -> ChatGptClient:
    """Go through everything up to the tokens."""
    client.prepare(callback)
    client.exchange(person.authorize(client.authorize_url()))
    return client


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_chatgpt_connects_by_its_document_and_uses_tools_widgets_and_refresh(
    world: World, person: Person, chatgpt: ChatGptDocuments, era: str
) -> None:
    endpoint = world.gateway.endpoint("guarded-alone")
    client = connect(ChatGptClient(endpoint, chatgpt, era=era), person)
    assert "/oauth/client.json" in chatgpt.fetched
    assert "/oauth/jwks.json" in chatgpt.fetched
    assert client.tokens is not None
    # Of what ChatGPT asks for, only these mean something here; the rest is no error.
    assert set(client.tokens.scope.split()) <= {"mcp:tools", "offline_access"}
    assert "mcp:tools" in client.tokens.scope

    assert "show_board" in client.open()
    tool = next(
        tool for tool in client.rpc("tools/list").result["tools"] if tool["name"] == "show_board"
    )
    widget = tool["_meta"]["ui"]["resourceUri"]
    assert tool["_meta"]["openai/outputTemplate"] == widget
    shown = client.call("show_board").result
    assert shown["structuredContent"] == {"cells": [1, 2, 3]}
    assert shown["_meta"]["board/private"] is True
    page = client.rpc("resources/read", {"uri": widget}).result["contents"][0]
    assert page["mimeType"] == "text/html;profile=mcp-app"
    assert page["uri"] == widget
    moved = client.call("slow", {"steps": 3, "pause": 0.02}, progressToken="p-1")
    steps = [n["params"]["progress"] for n in moved.notifications if "progress" in n["method"]]
    assert steps == [1, 2, 3]
    echo = next(t for t in client.rpc("tools/list").result["tools"] if t["name"] == "echo")
    assert echo["securitySchemes"] == [{"type": "noauth"}]

    client.audience_of_assertions = "issuer"
    assert client.refresh().status_code == 200
    assert client.call("echo", {"text": "after refresh"}).result["content"][0]["text"]


def test_chatgpt_without_a_key_of_its_own_connects_as_a_public_client(
    world: World, person: Person
) -> None:
    with chatgpt_documents() as documents:
        documents.changes = {"token_endpoint_auth_method": "none"}
        client = connect(ChatGptClient(world.gateway.endpoint("modern-alone"), documents), person)
        assert "echo" in client.open()
        assert "/oauth/jwks.json" not in documents.fetched


def test_chatgpt_connects_by_a_document_of_one_callback_that_knows_signatures_only(
    world: World, person: Person
) -> None:
    # Rows 10 and 11: as it was published until August 2026.
    own = REDIRECT_OF_ONE_CALLBACK.format(callback="cb_9z8y")
    with chatgpt_documents() as documents:
        documents.changes = {
            "redirect_uris": [own],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        }
        client = ChatGptClient(world.gateway.endpoint("modern-alone"), documents)
        client.redirect_uri = own
        connect(client, person)
        assert "/oauth/jwks.json" in documents.fetched
        assert "echo" in client.open()
        assert client.refresh().status_code == 200


def test_an_assertion_signed_by_somebody_else_gets_no_tokens(
    world: World, person: Person, chatgpt: ChatGptDocuments
) -> None:
    client = ChatGptClient(world.gateway.endpoint("modern-alone"), chatgpt)
    client.prepare()
    redirect = person.authorize(client.authorize_url())
    impostor = ChatGptDocuments()
    impostor.base_url = chatgpt.base_url
    client.documents = impostor
    refused = client.token_request(
        {
            "grant_type": "authorization_code",
            "code": client.redirected(redirect),
            "redirect_uri": client.redirect_uri,
            "code_verifier": client._verifier,
        }
    )
    assert refused.status_code in (400, 401)
    assert refused.json()["error"] == "invalid_client"


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_chatgpt_registers_dynamically_with_a_callback_of_its_own(
    world: World, person: Person, era: str
) -> None:
    endpoint = world.gateway.endpoint("modern-alone")
    client = connect(ChatGptClient(endpoint, None, era=era), person, "cb_1a2b3c")
    assert client.redirect_uri == "https://chatgpt.com/connector/oauth/cb_1a2b3c"
    assert "echo" in client.open()
    # Row 8: the registration is kept, and used again by everybody who connects the same server.
    another = world.person()
    client.exchange(another.authorize(client.authorize_url()))
    assert "echo" in client.open()


def test_a_refusal_comes_back_to_chatgpt_with_the_issuer(
    world: World, person: Person, chatgpt: ChatGptDocuments
) -> None:
    client = ChatGptClient(world.gateway.endpoint("modern-alone"), chatgpt)
    client.prepare()
    person.open_signed_in(client.authorize_url())
    page = person.browser.press("Deny")
    assert page.stopped_at.startswith(STABLE_REDIRECT)
    assert client.refused_redirect(page.stopped_at) == "access_denied"
    # Without PKCE there is an error at once, and it names the issuer as well.
    url = client.authorize_url(code_challenge="", code_challenge_method="")
    page = person.browser.open(url)
    assert client.refused_redirect(page.stopped_at) == "invalid_request"


def test_a_token_of_one_server_is_refused_by_another_with_a_challenge(
    world: World, person: Person, chatgpt: ChatGptDocuments
) -> None:
    client = connect(ChatGptClient(world.gateway.endpoint("modern-alone"), chatgpt), person)
    client.endpoint = world.gateway.endpoint("legacy-alone")
    refused = client.rpc("tools/list")
    assert refused.status == 401
    challenge = parse_challenge(refused.headers["www-authenticate"])
    assert challenge["error"] == "invalid_token"
    assert urlsplit(challenge["resource_metadata"]).path.endswith("/v1/mcp/legacy-alone")
    assert challenge["scope"] == "mcp:tools"


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_what_chatgpt_tells_of_a_conversation_reaches_the_tool_and_its_headers_do_not(
    world: World, person: Person, chatgpt: ChatGptDocuments, era: str
) -> None:
    # Correlation only: the members of a request belong to the tool, headers end at the gateway.
    client = connect(
        ChatGptClient(world.gateway.endpoint("modern-alone"), chatgpt, era=era), person
    )
    client.open()
    told = {"openai/locale": "de-DE", "openai/subject": "v1/s", "openai/session": "v1/c"}
    params = {"name": "headers", "arguments": {}, "_meta": told}
    client.rpc("tools/call", params, X_Openai_Subject="v1/s", X_Openai_Session="v1/c")
    asked = world.modern.calls("tools/call")[-1]["params"]["_meta"]
    assert {name: asked[name] for name in told} == told
    seen = world.modern.last_headers("tools/call")
    assert not [name for name in seen if "openai" in name]
    assert "openai" not in seen.get("user-agent", "")


def test_a_lost_refresh_answer_is_given_again_but_an_old_token_ends_the_family(
    world: World, person: Person, chatgpt: ChatGptDocuments
) -> None:
    client = connect(ChatGptClient(world.gateway.endpoint("modern-alone"), chatgpt), person)
    assert client.tokens is not None
    first = client.tokens.refresh_token
    assert client.refresh().status_code == 200
    # The answer got lost: the same token is sent again at once.
    assert client.refresh(first).status_code == 200
    assert "echo" in client.open()
    assert client.refresh().status_code == 200
    assert client.refresh().status_code == 200
    stolen = client.refresh(first)
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    assert client.rpc("tools/list").status == 401


def test_a_second_exchange_of_one_code_takes_back_what_the_first_gave(
    world: World, person: Person, chatgpt: ChatGptDocuments
) -> None:
    client = ChatGptClient(world.gateway.endpoint("modern-alone"), chatgpt)
    client.prepare()
    redirect = person.authorize(client.authorize_url())
    client.exchange(redirect)
    assert "echo" in client.open()
    again = client.token_request(
        {
            "grant_type": "authorization_code",
            "code": dict(parse_qsl(urlsplit(redirect).query))["code"],
            "redirect_uri": client.redirect_uri,
            "code_verifier": client._verifier,
        }
    )
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert client.rpc("tools/list").status == 401


def test_a_tool_name_chatgpt_froze_stays_callable_when_another_upstream_joins(
    world: World, person: Person, chatgpt: ChatGptDocuments
) -> None:
    client = connect(ChatGptClient(world.gateway.endpoint("growing"), chatgpt), person)
    frozen = client.open()
    world.add_upstream("growing", "legacy")
    assert client.call("echo", {"text": "frozen"}).result["content"][0]["text"] == "frozen"
    # Another process made the change: the gateway hears of it within a second.
    within(PATIENCE, lambda: "legacy_echo" in client.names())
    assert set(frozen) <= set(client.names())
    assert client.call("echo", {"text": "still"}).result["content"][0]["text"] == "still"


# A workspace that admits people of some domains only ------------------------------------------
# Who has which address here: by an administrator's word, so it is verified.
ADDRESSES = {"ada": "ada@contoso.example", "grace": "grace@fabrikam.example", "nobody": ""}


@pytest.fixture(scope="module")
def signing_gateway(world: World) -> Iterator[RunningGateway]:
    """A gateway that has a key to sign with, and so speaks OpenID Connect to its clients."""
    key = jwk.JWK.generate(kty="RSA", size=2048).export_to_pem(private_key=True, password=None)
    configuration = {
        "upstreams": [{"key": "m", "title": "M", "url": world.modern.url, "credential": "none"}],
        "virtual_mcps": [
            {"slug": "team", "title": "Team", "audience": "everyone", "upstreams": ["m"]}
        ],
        "users": [
            {"username": name, "email": address, "password": "env:PASSWORD_OF_ALL"}
            for name, address in ADDRESSES.items()
        ],
    }
    environment = {"OIDC_RSA_PRIVATE_KEY": key.decode(), "PASSWORD_OF_ALL": PASSWORD}
    with running_gateway(configuration, environment=environment) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("name", "admitted", "era"),
    [
        ("ada", True, "modern"),
        ("ada", True, "legacy"),
        ("grace", False, "modern"),
        ("nobody", False, "modern"),
    ],
)
def test_a_workspace_restricted_to_a_domain_admits_who_has_an_address_of_it(
    signing_gateway: RunningGateway, chatgpt: ChatGptDocuments, name: str, admitted: bool, era: str
) -> None:
    person = Person(name, signing_gateway, Browser(STOPS))
    client = connect(ChatGptClient(signing_gateway.endpoint("team"), chatgpt, era=era), person)
    assert client.workspace_admits("contoso.example", "contoso.org") is admitted
    assert not client.workspace_admits("contoso")
    assert "echo" in client.open(), "the restriction is the workspace's, not the gateway's"
    # The scopes stay with the refresh token, so that it can ask again.
    assert client.refresh().status_code == 200
    assert client.workspace_admits("contoso.example") is admitted
    person.browser.close()


def test_a_gateway_without_a_signing_key_says_that_it_cannot_serve_such_a_workspace(
    world: World, person: Person, chatgpt: ChatGptDocuments
) -> None:
    client = connect(ChatGptClient(world.gateway.endpoint("modern-alone"), chatgpt), person)
    with pytest.raises(Unsupported, match="row 16"):
        client.workspace_admits("example.com")
