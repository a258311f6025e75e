"""Requests that are wrong in themselves: a clear answer, and the connection stays usable."""

import httpx
import pytest

from tests.journeys.wire_client import WireClient, parse_challenge
from tests.journeys.world import World

_kept: dict[int, WireClient] = {}


@pytest.fixture
def client(world: World) -> WireClient:
    """Return a client with a token; one is enough for all."""
    if id(world) not in _kept:
        _kept[id(world)] = world.person().client_of("modern-alone")
    return _kept[id(world)]


def send(client: WireClient, content: bytes, **changes: str) -> httpx.Response:
    """Send a body as it is on the client's own connection."""
    body = client.body("tools/list")
    headers = httpx.Headers(client.headers(body))
    headers.update({name.replace("_", "-"): value for name, value in changes.items()})
    return client.http.post(client.endpoint, content=content, headers=headers)


def still_works(client: WireClient) -> bool:
    """Whether the next request is answered."""
    return "echo" in client.names()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"jsonrpc": "2.0", "id": 1, "method"', 400, -32700),
        (b"", 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"x":"\xff\xfe"}}', 400, -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', 400, -32600),
        (b'"just a string"', 400, -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', 400, -32600),
    ],
    ids=["broken JSON", "nothing", "not UTF-8", "a batch", "no object", "not JSON-RPC 2.0"],
)
def test_a_body_that_is_no_request_is_refused_and_the_connection_goes_on(
    client: WireClient, body: bytes, status: int, code: int
) -> None:
    answer = send(client, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert still_works(client)


def test_a_body_over_the_limit_is_refused_whether_announced_or_not(client: WireClient) -> None:
    large = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"x" * 5_000_000 + b'"}}'
    assert send(client, large).status_code == 413
    assert still_works(client)

    def in_pieces():  # type: ignore[no-untyped-def]
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    headers = client.headers(client.body("tools/list"))
    try:
        status = client.http.post(client.endpoint, content=in_pieces(), headers=headers).status_code
    except httpx.TransportError:
        # The gateway may hang up before everything was sent.
        status = 413
    assert status == 413
    assert still_works(client)


def test_a_wrong_content_type_is_refused(client: WireClient) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    assert send(client, body, Content_Type="text/plain").status_code == 415
    assert still_works(client)


def test_a_foreign_origin_or_host_is_refused(client: WireClient) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    assert send(client, body, Origin="https://evil.example").status_code == 403
    assert 400 <= send(client, body, Host="evil.example").status_code < 500
    assert still_works(client)


def test_headers_that_differ_from_the_body_are_refused(client: WireClient) -> None:
    differs = client.rpc("tools/call", {"name": "echo", "arguments": {}}, Mcp_Name="other")
    assert (differs.status, differs.error["code"]) == (400, -32020)
    unknown = client.rpc("tools/list", {"_meta": {}}, MCP_Protocol_Version="2031-01-01")
    assert (unknown.status, unknown.error["code"]) == (400, -32020)
    assert still_works(client)


def test_an_unknown_method_is_404_and_a_get_is_405_for_a_stateless_client(
    client: WireClient,
) -> None:
    unknown = client.rpc("tools/burn")
    assert (unknown.status, unknown.error["code"]) == (404, -32601)
    headers = {"Authorization": client.headers({"method": "x"})["Authorization"]}
    assert client.http.get(client.endpoint, headers=headers).status_code == 405
    assert client.http.delete(client.endpoint, headers=headers).status_code == 405


def test_a_token_in_the_query_or_of_nobody_or_expired_is_a_challenge(
    client: WireClient, world: World
) -> None:
    assert client.tokens is not None
    bare = httpx.Client(trust_env=False)
    body = client.body("tools/list")
    headers = {k: v for k, v in client.headers(body).items() if k != "Authorization"}
    in_query = f"{client.endpoint}?access_token={client.tokens.access_token}"
    refused = bare.post(in_query, json=body, headers=headers)
    assert refused.status_code == 401
    assert "error" not in parse_challenge(refused.headers["www-authenticate"])
    nobody = bare.post(
        client.endpoint, json=body, headers={**headers, "Authorization": "Bearer nobody"}
    )
    assert nobody.status_code == 401
    assert parse_challenge(nobody.headers["www-authenticate"])["error"] == "invalid_token"


def test_an_unknown_slug_tells_nothing_more_than_that(world: World, client: WireClient) -> None:
    assert client.tokens is not None
    body = client.body("tools/list")
    unknown = client.http.post(
        world.gateway.endpoint("no-such-thing"), json=body, headers=client.headers(body)
    )
    assert unknown.status_code == 404
    well_known = f"{world.gateway.url}/.well-known/oauth-protected-resource/v1/mcp/no-such-thing"
    assert client.http.get(well_known).status_code == 404


def test_no_secret_of_anybody_is_in_the_log(client: WireClient, world: World) -> None:
    assert client.tokens is not None
    written = world.gateway.log()
    for secret in (client.tokens.access_token, client.tokens.refresh_token):
        assert secret not in written


@pytest.mark.parametrize("path", ["/.well-known/oauth-authorization-server", "/healthz", "/"])
def test_an_answer_says_its_length_in_one_way_only(world: World, path: str) -> None:
    # RFC 9112 6.2: with both, a client drops the answer and a proxy may be confused.
    answer = httpx.get(f"{world.gateway.url}{path}", trust_env=False)
    assert ("content-length" in answer.headers) != ("transfer-encoding" in answer.headers)
