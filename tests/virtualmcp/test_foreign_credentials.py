"""What is no access token for this very server, or somebody else's session, opens nothing."""

import base64
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from jwcrypto import jwk, jws
from oauth2_provider.models import get_access_token_model, get_grant_model, get_refresh_token_model

from gateway_site import people_actions
from oauthserver import token_values
from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.wire_client import RawConnection, messages
from upstreams import accounts
from upstreams.models import CredentialKind, Upstream
from virtualmcp import route_table
from virtualmcp.eras import era_in

KEY = jwk.JWK.generate(kty="RSA", size=2048)
RESOURCE = "http://localhost:8000/v1/mcp/board"


@pytest.fixture
def upstream():
    with FakeUpstream().serve() as upstream:
        yield upstream


@pytest.fixture
def board(ada, upstream, make_virtual_mcp, make_token, wire):
    """A client of a Virtual MCP over one upstream."""
    make_virtual_mcp("board", {"fake": upstream.url})
    return wire("board", make_token(ada, "board"))


def signed(issuer: str) -> str:
    """Return a token that says all the right things, as other servers issue them."""
    now = int(time.time())
    claims = {"iss": issuer, "aud": RESOURCE, "sub": "1", "scope": "mcp:tools", "exp": now + 600}
    token = jws.JWS(json.dumps(claims))
    token.add_signature(KEY, None, json.dumps({"alg": "RS256", "typ": "at+jwt"}))
    return str(token.serialize(compact=True))


def refresh_token(ada: User, client) -> str:
    token = token_values.new_refresh_token()
    get_refresh_token_model().objects.create(
        user=ada, application=client, token=token, resource=[RESOURCE]
    )
    return token


def code(ada: User, client) -> str:
    made = token_values.new_code()
    get_grant_model().objects.create(
        user=ada,
        application=client,
        code=token_values.digest(made),
        expires=timezone.now() + timedelta(minutes=1),
        redirect_uri="https://client.example/callback",
        scope="mcp:tools",
        resource=[RESOURCE],
    )
    return made


def session_key(ada: User, client) -> str:
    browser = Client()
    browser.force_login(ada, "django.contrib.auth.backends.ModelBackend")
    return str(browser.session.session_key)


def client_secret(ada: User, client) -> str:
    secret, client.client_secret = token_values.new_client_secret()
    client.save()
    return secret


def registration_token(ada: User, client) -> str:
    token = token_values.new_registration_token()
    client.registration_token = token_values.digest(token)
    client.save()
    return token


def key_of_the_upstream(ada: User, client) -> str:
    upstream = Upstream.objects.get(key="fake")
    upstream.credential_kind = CredentialKind.USER_KEY
    upstream.save()
    accounts.save_user_key(ada, upstream, "sk-of-the-upstream", actor=ada)
    return "sk-of-the-upstream"


def what_the_database_holds(ada: User, client) -> str:
    return token_values.ACCESS_PREFIX + get_access_token_model().objects.get().token_checksum


def of_another_issuer(ada: User, client) -> str:
    return signed("https://login.example")


def signed_as_if_it_were_ours(ada: User, client) -> str:
    return signed("http://localhost:8000")


@pytest.mark.parametrize(
    "credential",
    [
        refresh_token,
        code,
        session_key,
        client_secret,
        registration_token,
        key_of_the_upstream,
        what_the_database_holds,
        of_another_issuer,
        signed_as_if_it_were_ours,
    ],
)
def test_121_other_credentials_are_no_access_token(
    ada, board, oauth_client, http, credential, settings
):
    settings.OIDC_RSA_PRIVATE_KEY = KEY.export_to_pem(private_key=True, password=None).decode()
    secret = credential(ada, oauth_client)
    assert secret
    answer = board.modern("server/discover", authorization=f"Bearer {secret}")
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert secret not in answer.text
    # Nor do browsers take anybody in, whatever they are signed in to.
    cookie = f"gateway-session={secret}; __Host-gateway-session={secret}"
    bare = board.modern("server/discover", authorization="", cookie=cookie)
    assert bare.status_code == 401
    assert "error=" not in bare.headers["www-authenticate"]
    basic = base64.b64encode(f"client-1:{secret}".encode()).decode()
    assert board.modern("server/discover", authorization=f"Basic {basic}").status_code == 401
    assert board.modern("server/discover").status_code == 200


def test_120_a_token_is_good_at_exactly_one_address(ada, board, make_virtual_mcp, make_token, wire):
    for slug in ("boards", "boar", "board-2"):
        make_virtual_mcp(slug)
        refused = wire(slug, board.token).modern("server/discover")
        assert refused.status_code == 401
        assert f'mcp/{slug}"' in refused.headers["www-authenticate"]
    for slug in ("BOARD", "board/", "board%2fx", "board/x", "board;x", "board%00"):
        answer = wire(slug, board.token).modern("server/discover")
        assert answer.status_code == (200 if slug == "board/" else 404), slug
    slashed = make_token(ada, "board")
    get_access_token_model().objects.filter(token_checksum=token_values.digest(slashed)).update(
        resource=[f"{RESOURCE}/"]
    )
    assert wire("board", slashed).modern("server/discover").status_code == 401


MODERN_METHODS = (
    *("server/discover", "tools/list", "tools/call", "resources/list", "resources/read"),
    *("resources/templates/list", "prompts/list", "prompts/get", "completion/complete"),
    *("subscriptions/listen", "nothing/known"),
)
LEGACY_METHODS = ("initialize", "ping", "resources/subscribe", "logging/setLevel", "tools/call")


def test_127_no_method_tells_a_forbidden_server_from_one_that_does_not_exist(
    ada, upstream, make_virtual_mcp, make_token, wire, http
):
    row = make_virtual_mcp("closed", {"fake": upstream.url})
    client = wire("closed", make_token(ada, "closed"))
    client.initialize()
    assert client.modern("tools/list").status_code == 200
    seen = len(upstream.requests)
    row.audience = "groups"
    row.save()
    route_table.forget()
    for slug in ("closed", secrets.token_hex(8)):
        stranger = wire(slug, client.token)
        stranger.session, stranger.revision = client.session, client.revision
        params = {"name": "echo", "uri": "file:///notes/1", "arguments": {"text": "x"}}
        answers = [stranger.modern(method, params) for method in MODERN_METHODS]
        answers += [stranger.legacy(method, params) for method in LEGACY_METHODS]
        answers.append(stranger.tell("notifications/cancelled", {"requestId": 1}))
        headers = stranger.headers(**stranger.session_headers())
        answers.append(http.delete(stranger.path, headers=headers))
        answers.append(http.get(stranger.path, headers={**headers, "accept": "text/event-stream"}))
        assert {answer.status_code for answer in answers} == {404}
        assert len({answer.content for answer in answers}) == 1
        told = answers[0].content
        if slug == "closed":
            forbidden = told
    assert told == forbidden
    assert len(upstream.requests) == seen


def test_132_a_session_that_is_too_old_is_unknown(board, monkeypatch):
    monkeypatch.setattr(era_in, "LIFETIME", -1)
    board.initialize()
    era_in.forget()
    answer = board.legacy("ping")
    assert answer.status_code == 404
    assert "initialize" in answer.json()["message"]


@pytest.mark.parametrize("odd", ["\x01", "\x7f", "a\x00b", "a\tb", "\u00e9", "a b", "%0d%0a", ","])
def test_132_a_session_of_odd_characters_is_unknown(board, gateway, odd):
    board.initialize()
    connection = RawConnection(gateway)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    head = ["POST /v1/mcp/board HTTP/1.1", "host: localhost:8000", "connection: close"]
    head += [f"{name}: {value}" for name, value in board.headers().items()]
    head += [f"mcp-session-id: {odd}", "mcp-protocol-version: 2025-11-25"]
    connection.send([*head, f"content-length: {len(body)}"], body)
    status, _, answered = connection.answer()
    connection.close()
    assert status in (400, 404)
    assert b"result" not in answered


def test_132_equal_ids_of_two_sessions_get_their_own_answers(
    ada, bob, upstream, make_virtual_mcp, make_token, wire
):
    make_virtual_mcp("board", {"fake": upstream.url})
    clients = [wire("board", make_token(person, "board")) for person in (ada, ada, bob, bob)]
    for client in clients:
        client.initialize()
    assert len({client.session for client in clients}) == 4

    def call(number: int) -> str:
        client, text = clients[number % 4], f"secret of {number}"
        answer = client.legacy("tools/call", {"name": "echo", "arguments": {"text": text}}, id=7)
        [said] = messages(answer)
        assert said["id"] == 7
        return str(said["result"]["content"][0]["text"])

    with ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(call, range(40)))
    assert heard == [f"secret of {number}" for number in range(40)]


def test_132_a_session_is_of_no_use_after_its_person_has_signed_out_everywhere(ada, board):
    board.initialize()
    assert board.legacy("ping").status_code == 200
    people_actions.end_access(ada, actor=ada)
    assert board.legacy("ping").status_code == 401
