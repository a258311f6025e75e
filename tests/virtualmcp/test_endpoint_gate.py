"""What never becomes a call: wrong host, origin, address, token, method, type, size, form."""

import contextlib
import json
import zlib

import pytest
from django.conf import settings
from django.db import DatabaseError

from oauthserver import bearer_tokens
from oauthserver.models import OAuthClient
from tests.virtualmcp.wire_client import MODERN, RawConnection, modern_headers, modern_meta
from virtualmcp import access_policy, route_table
from virtualmcp.transport import request_gate

METADATA = "http://localhost:8000/.well-known/oauth-protected-resource/v1/mcp/"


@pytest.fixture
def client(ada, make_virtual_mcp, make_token, wire):
    """A client of an empty Virtual MCP; ``another`` exists beside it."""
    make_virtual_mcp("board")
    make_virtual_mcp("another")
    return wire("board", make_token(ada, "board"))


@pytest.fixture
def connect(gateway):
    """Open raw connections that are closed with the test."""
    with contextlib.ExitStack() as stack:

        def open_one() -> RawConnection:
            connection = RawConnection(gateway)
            stack.callback(connection.close)
            return connection

        yield open_one


def discover() -> bytes:
    params = {"_meta": modern_meta()}
    message = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": params}
    return json.dumps(message).encode()


def head(client, *more: str, host: str = "localhost:8000", length: int | None = None) -> list[str]:
    lines = ["POST /v1/mcp/board HTTP/1.1", f"authorization: Bearer {client.token}"]
    if host:
        lines.append(f"host: {host}")
    mirrored = modern_headers("server/discover", {})
    lines += [f"{name}: {value}" for name, value in mirrored.items()]
    lines += ["content-type: application/json", *more]
    return lines + ([f"content-length: {length}"] if length is not None else [])


# Host and origin --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost:1", "localhost", "localhost:8000@evil.example", "127.0.0.1"]
)
def test_a_foreign_host_is_misdirected(client, connect, host):
    status, _, body = connect().request(head(client, host=host, length=len(discover())), discover())
    assert (status, json.loads(body)["error"]) == (421, "host_unknown")


@pytest.mark.parametrize("more", [["host: localhost:8000"], ["host: evil.example"]])
def test_two_hosts_are_refused(client, connect, more):
    status, _, _ = connect().request(head(client, *more, length=len(discover())), discover())
    assert status == 400


def test_a_missing_host_is_refused(client, connect):
    request = head(client, host="", length=len(discover()))
    status, _, body = connect().request(request, discover())
    assert status == 400
    assert b"Host" in body


def test_a_host_the_administrator_added_is_ours(client, settings):
    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "gateway.internal"]
    response = client.modern("server/discover", host="gateway.internal:9000")
    assert response.status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:8001", "x"])
def test_a_foreign_origin_is_forbidden(client, origin):
    response = client.modern("server/discover", origin=origin)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_an_allowed_page_may_read_the_answer(client, settings):
    settings.GATEWAY_ALLOWED_ORIGINS = ["https://inspector.example"]
    response = client.modern("server/discover", origin="https://inspector.example")
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://inspector.example"
    assert "Mcp-Session-Id" in response.headers["access-control-expose-headers"]
    refused = client.modern(
        "server/discover", origin="https://inspector.example", authorization="Bearer x"
    )
    assert refused.status_code == 401
    assert "WWW-Authenticate" in refused.headers["access-control-expose-headers"]


def test_a_preflight_is_answered_to_allowed_pages_only(client, http):
    ask = {
        "origin": "http://localhost:8000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, mcp-param-region, x-other",
    }
    response = http.options(client.path, headers=ask)
    assert response.status_code == 204
    assert response.headers["access-control-allow-headers"] == "authorization, mcp-param-region"
    assert "POST" in response.headers["access-control-allow-methods"]
    foreign = http.options(client.path, headers={**ask, "origin": "https://evil.example"})
    assert foreign.status_code == 403


# Address and method -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "path", ["boar", "boardx", "BOARD", "board/x", "", "%00", "b%C3%A4", "..%2fboard", "a" * 300]
)
def test_an_unknown_address_is_the_same_404_for_everybody(client, http, path):
    with_token = http.post(f"/v1/mcp/{path}", content=discover(), headers=client.headers())
    without = http.post(f"/v1/mcp/{path}", content=discover())
    assert with_token.status_code == without.status_code == 404
    assert with_token.content == without.content


def test_a_server_one_may_not_use_looks_like_one_that_does_not_exist(
    ada, client, make_virtual_mcp, make_token, wire, http
):
    make_virtual_mcp("closed", audience="groups")
    refused = wire("closed", make_token(ada, "closed")).modern("server/discover")
    unknown = http.post("/v1/mcp/nobody", content=discover(), headers=client.headers())
    assert (refused.status_code, refused.content) == (404, unknown.content)


def test_a_trailing_slash_is_the_same_server(client, http):
    response = http.post(
        "/v1/mcp/board/",
        content=discover(),
        headers=client.headers(mcp_protocol_version=MODERN, mcp_method="server/discover"),
    )
    assert response.status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"])
def test_what_is_no_post_and_names_no_session_is_405_and_never_404(client, http, method):
    response = http.request(method, client.path, headers={"accept": "text/event-stream"})
    assert response.status_code == 405
    assert response.headers["allow"] == "POST, DELETE"


@pytest.mark.parametrize("slug", ["board", "nobody"])
def test_who_opens_the_address_in_a_browser_is_led_to_how_it_is_used(client, http, slug):
    pages = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    opened = http.get(f"/v1/mcp/{slug}", headers={"accept": pages})
    assert (opened.status_code, opened.content) == (303, b"")
    assert opened.headers["location"] == f"{settings.PUBLIC_URL}/servers/{slug}/"
    assert opened.headers["cache-control"] == "no-store"
    # Whoever could be a client is answered as one.
    for headers in (
        {"accept": f"{pages}, text/event-stream"},
        {"accept": "*/*"},
        {"accept": pages, "mcp-session-id": "abc", "authorization": "Bearer x"},
    ):
        assert http.get(client.path, headers=headers).status_code in (401, 405)
    assert http.get("/v1/mcp/Not-A-Slug", headers={"accept": pages}).status_code == 404
    assert http.put(client.path, headers={"accept": pages}).status_code == 405


def test_a_stateless_client_has_no_session_to_end(client, http):
    headers = client.headers(mcp_session_id="abc", mcp_protocol_version=MODERN)
    assert http.delete(client.path, headers=headers).status_code == 405


# Token ------------------------------------------------------------------------------------
def test_without_a_token_a_client_is_told_where_to_authorize(client):
    response = client.modern("server/discover", authorization="")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == (
        f'Bearer resource_metadata="{METADATA}board", scope="mcp:tools"'
    )


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer a b",
        "Bearer  x",
        "bearer x",
        "Basic eDp5",
        "Bearer a, Bearer b",
        "Bearer " + "x" * 16_000,
        "Bearer \xe9",
    ],
)
def test_a_value_that_is_no_valid_token_is_refused(client, http, value):
    headers = {**client.headers(), "authorization": value.encode("latin-1")}
    response = http.post(client.path, content=discover(), headers=headers)
    assert response.status_code in (400, 401)
    assert 'resource_metadata="' in response.headers["www-authenticate"]
    assert 'error="' in response.headers["www-authenticate"]


def test_two_tokens_are_refused_though_one_is_good(client, connect):
    request = head(client, "authorization: Bearer x", length=len(discover()))
    status, headers, _ = connect().request(request, discover())
    assert status in (400, 401)
    assert "www-authenticate" in headers


def test_a_token_in_the_query_or_a_cookie_is_none(client, http):
    headers = client.headers(authorization="", cookie=f"access_token={client.token}")
    response = http.post(
        f"{client.path}?access_token={client.token}", content=discover(), headers=headers
    )
    assert response.status_code == 401
    assert "error=" not in response.headers["www-authenticate"]


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("how", ["none", "unknown", "of another server"])
def test_no_session_stands_in_for_a_token(ada, client, http, make_token, method, how):
    """(c4, c5, c11): and nothing is read before who asks is known."""
    client.initialize()
    token = {"none": "", "unknown": "x", "of another server": make_token(ada, "another")}[how]
    headers = client.headers(
        **client.session_headers(),
        accept="application/json, text/event-stream",
        authorization=token and f"Bearer {token}",
    )
    content = {"content": b"{"} if method == "POST" else {}
    response = http.request(method, client.path, headers=headers, **content)
    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert f'resource_metadata="{METADATA}board"' in challenge
    assert ('error="invalid_token"' in challenge) == (how != "none")
    assert client.legacy("ping").status_code == 200


def test_a_token_of_another_server_is_refused_with_this_ones_challenge(
    ada, client, make_token, wire
):
    response = wire("another", make_token(ada, "board")).modern("server/discover")
    assert response.status_code == 401
    assert f'resource_metadata="{METADATA}another"' in response.headers["www-authenticate"]
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_expired_tokens_and_those_of_disabled_people_and_clients_are_refused(
    ada, bob, client, make_token, wire
):
    off = OAuthClient.objects.create(
        client_id="off",
        client_type="public",
        authorization_grant_type="authorization-code",
        enabled=False,
    )
    bob.is_active = False
    bob.save()
    for token in (
        make_token(ada, "board", seconds=-1),
        make_token(bob, "board"),
        make_token(ada, "board", client=off),
    ):
        assert wire("board", token).modern("server/discover").status_code == 401


def test_losing_access_is_felt_by_the_next_request(client):
    assert client.modern("server/discover").status_code == 200
    from virtualmcp.models import VirtualMcp

    VirtualMcp.objects.filter(slug="board").update(audience="groups")
    route_table.forget()
    assert client.modern("server/discover").status_code == 404


def test_when_a_part_of_the_decision_fails_nobody_gets_in(client, monkeypatch):
    async def away(*args, **kwargs):
        raise DatabaseError("no database")

    def broken(*args, **kwargs):
        raise RuntimeError

    for module, name, replacement in (
        (bearer_tokens, "authenticate", away),
        (access_policy, "may_use", broken),
        (route_table, "load", away),
    ):
        bearer_tokens.forget()
        route_table.forget()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, replacement)
            response = client.modern("server/discover")
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert "no database" not in response.text
    assert client.modern("server/discover").status_code == 200


# Content ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"],
)
def test_a_body_that_is_not_called_json_is_unsupported(client, content_type):
    response = client.modern("server/discover", content_type=content_type)
    assert response.status_code == 415


@pytest.mark.parametrize(
    "content_type", ["Application/JSON", 'application/json; charset="UTF-8"', "application/json;"]
)
def test_json_may_be_called_so_in_every_allowed_spelling(client, content_type):
    assert client.modern("server/discover", content_type=content_type).status_code == 200


def test_an_encoded_body_is_unsupported(client):
    bomb = zlib.compress(b"x" * 10_000_000)
    assert client.post(bomb, content_encoding="gzip").status_code == 415


def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(client, settings):
    settings.GATEWAY_MAX_BODY_BYTES = len(discover())
    mirrored = {"mcp_protocol_version": MODERN, "mcp_method": "server/discover"}
    assert client.post(discover(), **mirrored).status_code == 200
    refused = client.post(discover() + b" ", **mirrored)
    assert refused.status_code == 413
    assert str(len(discover())) in refused.json()["message"]


def test_a_body_without_a_length_is_cut_off_at_the_limit(client, http, settings):
    settings.GATEWAY_MAX_BODY_BYTES = 1_000

    def endless():
        for _ in range(100):
            yield b"x" * 1_000

    response = http.post(client.path, content=endless(), headers=client.headers())
    assert response.status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 400])
def test_a_length_that_is_none_is_refused(client, connect, length):
    status, _, _ = connect().request(head(client, f"content-length: {length}"))
    assert status in (0, 400, 413)


def test_a_body_that_trickles_is_given_up(client, connect, monkeypatch):
    monkeypatch.setattr(request_gate, "BODY_SECONDS", 0.2)
    status, _, body = connect().request(head(client, length=100), b'{"jsonrpc"')
    assert (status, json.loads(body)["error"]) == (408, "body_too_slow")


def test_too_many_or_too_large_headers_are_refused(client):
    many = {f"x_{n}": "1" for n in range(120)}
    assert client.modern("server/discover", **many).status_code == 431
    large = {f"x_{n}": "1" * 4_000 for n in range(10)}
    assert client.modern("server/discover", **large).status_code == 431


@pytest.mark.parametrize("name", ["mcp-protocol-version", "mcp-method", "mcp-session-id"])
def test_a_mirrored_header_that_comes_twice_is_refused(client, connect, name):
    more = [f"{name}: {MODERN}", f"{name}: {MODERN}"]
    status, _, _ = connect().request(head(client, *more, length=len(discover())), discover())
    assert status == 400


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*"])
def test_a_client_that_takes_neither_form_is_told(client, accept):
    assert client.modern("server/discover", accept=accept).status_code == 406


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":"\xff"}}', -32700),
        (b"[" * 70, -32700),
        (b"7", -32600),
        (b"[]", -32600),
        (b"[" + discover() + b"]", -32600),
        (b'{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    ],
)
def test_what_is_no_message_is_answered_as_json_rpc(client, body, code):
    response = client.post(body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code
    assert response.json()["id"] == (1 if b'"id":1,"id":1' in body else None)


def test_a_connection_stays_usable_after_every_refusal(client, connect, settings):
    settings.GATEWAY_MAX_BODY_BYTES = 2_000
    connection = connect()
    for lines, body in (
        (head(client, host="evil.example", length=4), b"true"),
        (head(client, "origin: https://evil.example", length=4), b"true"),
        (head(client, "content-encoding: gzip", length=4), b"true"),
        (head(client, length=4_000), b"x" * 4_000),
        (head(client, length=1), b"{"),
        (head(client, "accept: text/html", length=len(discover())), discover()),
    ):
        status, _, _ = connection.request(lines, body)
        assert 400 <= status < 500
        status, _, answer = connection.request(head(client, length=len(discover())), discover())
        assert status == 200
        assert "result" in json.loads(answer)


def test_no_answer_may_be_stored(client, http):
    for response in (
        client.modern("server/discover"),
        client.modern("server/discover", authorization=""),
        client.post(b"{"),
        http.post("/v1/mcp/nobody"),
        http.get(client.path),
    ):
        assert response.headers["cache-control"] == "no-store"
        assert "Authorization" in response.headers["vary"]


def test_a_client_that_leaves_while_it_sends_costs_nothing(client, connect):
    connection = connect()
    connection.send(head(client, length=1_000), b"{")
    connection.close()
    assert client.modern("server/discover").status_code == 200
