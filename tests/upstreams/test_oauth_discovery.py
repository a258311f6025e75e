"""Finding an upstream's authorization server and becoming its client (protocol.md e1 to e12)."""

from typing import Any

import pytest

from tests.fakes.asgi_server import serve
from tests.fakes.authorization_server import FakeAuthorizationServer, Fault
from tests.fakes.protected_upstream import ProtectedUpstream
from tests.upstreams.connecting import (
    browser_of,
    connect,
    person,
    token_requests,
    upstream_at,
)
from upstreams.egress_guard import EgressRules
from upstreams.errors import SetupFailed
from upstreams.models import Upstream, UpstreamAccount
from upstreams.oauth_discovery import covers, discover
from upstreams.server_metadata import MetadataPolicy, check_metadata

pytestmark = pytest.mark.django_db(transaction=True)


async def found(url: str, **members: Any) -> Any:
    return await discover(Upstream(key="x", title="X", url=url, **members))


async def failure(url: str, **members: Any) -> SetupFailed:
    with pytest.raises(SetupFailed) as error:
        await found(url, **members)
    return error.value


@pytest.mark.parametrize("at", ["path", "root", "named"])
async def test_metadata_is_found_at_every_place(server, at: str) -> None:
    with ProtectedUpstream(server, at=at).serve() as running:
        result = await found(running.url)
    assert result.server.issuer == server.issuer
    assert result.resource == running.url


async def test_without_a_challenge_header_the_path_comes_before_the_root(server) -> None:
    with ProtectedUpstream(server, at="root", challenge="").serve() as running:
        await found(running.url)
        assert running.fetched == [
            "/.well-known/oauth-protected-resource/mcp",
            "/.well-known/oauth-protected-resource",
        ]


@pytest.mark.parametrize("metadata", ["oauth", "oidc", "oidc_append"])
async def test_an_issuer_with_a_path_is_found_in_the_order_of_the_specification(
    metadata: str,
) -> None:
    with (
        FakeAuthorizationServer(issuer_path="/tenant", metadata=metadata).serve() as server,
        ProtectedUpstream(server).serve() as running,
    ):
        assert (await found(running.url)).server.issuer == f"{server.origin}/tenant"
        asked = [request.path for request in server.requests]
    in_order = {
        "oauth": "/.well-known/oauth-authorization-server/tenant",
        "oidc": "/.well-known/openid-configuration/tenant",
        "oidc_append": "/tenant/.well-known/openid-configuration",
    }
    assert asked == list(in_order.values())[: list(in_order).index(metadata) + 1]


@pytest.mark.parametrize(
    ("resource", "covered"),
    [
        ("https://a.example/mcp", True),
        ("https://a.example/mcp/", True),
        ("https://a.example", True),
        ("https://a.example/", True),
        ("https://A.example:443/mcp", True),
        ("https://a.example/mc", False),
        ("https://a.example/mcp/x", False),
        ("https://b.example/mcp", False),
        ("http://a.example/mcp", False),
        ("https://a.example:444/mcp", False),
        ("https://a.example/mcp#f", False),
        ("https://a.example/mcp?x=y", False),
        ("https://a.example.evil.example/mcp", False),
        ("nonsense", False),
        ("https://a.example:x/", False),
    ],
)
def test_137_the_resource_must_be_the_address_or_a_parent_of_it(resource, covered) -> None:
    assert covers(resource, "https://a.example/mcp") is covered


async def test_137_metadata_of_another_resource_is_refused(server) -> None:
    with ProtectedUpstream(server, resource="https://other.example/mcp").serve() as running:
        assert (await failure(running.url)).step == "protected_resource_metadata"
    assert not server.requests


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/x",
        "file:///etc/passwd",
        "gopher://x/",
        "https://10.0.0.1/",
        "https:/x",
        "https://user@x.example/",
        "http://metadata.google.internal/",
        "{server}/x",
        "javascript:x",
        "https://elsewhere.example/.well-known/oauth-protected-resource",
    ],
)
async def test_136_a_challenge_leads_to_no_other_place(server, address: str) -> None:
    value = address.replace("{server}", server.origin)
    challenge = f'Bearer resource_metadata="{value}"'
    with ProtectedUpstream(server, challenge=challenge).serve() as running:
        error = await failure(running.url)
        assert running.fetched == []
    assert "misconfigured" in error.message
    assert not error.transient
    assert not server.requests


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_136_a_redirecting_metadata_address_is_not_followed(server, status: int) -> None:
    fault = Fault(status, headers=(("location", "http://169.254.169.254/"),))
    with ProtectedUpstream(server, prm_fault=fault).serve() as running:
        assert (await failure(running.url)).step == "protected_resource_metadata"


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_failing_server_is_not_taken_for_an_old_one(server, status: int) -> None:
    with ProtectedUpstream(server, prm_fault=Fault(status)).serve() as running:
        error = await failure(running.url)
        assert error.transient
        assert not any("oauth-authorization-server" in path for path in running.fetched)


@pytest.mark.parametrize("servers", [[], None, "text", [7], ["file:///x"], ["https://10.0.0.1"]])
async def test_metadata_without_a_usable_server_is_refused(server, servers) -> None:
    running = ProtectedUpstream(server)
    running.changes["authorization_servers"] = servers
    with running.serve():
        await failure(running.url)
    assert not server.requests


@pytest.mark.parametrize("change", ["/", "x", "case", "missing"])
async def test_the_issuer_must_be_identical(server, protected, change: str) -> None:
    server.changes["issuer"] = {
        "/": f"{server.origin}/",
        "x": "https://evil.example",
        "case": server.origin.upper(),
        "missing": None,
    }[change]
    assert (await failure(protected.url)).step == "authorization_server_metadata"


@pytest.mark.parametrize(
    "endpoint",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///bin/sh",
        "a:$(calc)",
        "https://x/$(calc)",
        "https://x.example/\r\nX: y",
        "https://x.example/a b",
        'https://x.example/"',
        "https://x/`id`",
        "https://u:p@x.example/",
        "http://x.example/",
        "https://x.example/#f",
        "https://10.0.0.1/",
        "//x.example/a",
        "/authorize",
        7,
        ["https://x.example/"],
        "https://x.example/'",
        "",
        None,
    ],
)
@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint"])
async def test_139_an_endpoint_that_is_not_a_plain_address_is_refused(
    server, protected, name: str, endpoint: Any
) -> None:
    server.changes[name] = endpoint
    error = await failure(protected.url, oauth_allowed_hosts=["x.example", "x"])
    assert error.step == "authorization_server_metadata"
    assert "calc" not in error.message


@pytest.mark.parametrize(
    "name", ["authorization_endpoint", "token_endpoint", "registration_endpoint"]
)
async def test_140_an_endpoint_elsewhere_waits_for_the_administrator(server, name: str) -> None:
    with (
        FakeAuthorizationServer().serve() as other,
        ProtectedUpstream(server).serve() as running,
    ):
        server.changes[name] = f"{other.origin}/token"
        error = await failure(running.url)
        assert other.origin.removeprefix("http://") in error.detail
        port = other.origin.rsplit(":", 1)[1]
        allowed = await found(running.url, oauth_allowed_hosts=[f"127.0.0.1:{port}"])
        assert getattr(allowed.server, name) == f"{other.origin}/token"
        assert not other.requests


@pytest.mark.parametrize("methods", [None, [], ["plain"], "S256", ["s256"]])
async def test_146_without_s256_nothing_is_begun_unless_allowed(server, protected, methods) -> None:
    server.changes["code_challenge_methods_supported"] = methods
    assert "PKCE" in (await failure(protected.url)).message
    allowed = await found(protected.url, oauth_allow_missing_pkce=True)
    assert not allowed.server.pkce


async def test_a_server_without_the_code_flow_is_refused(server, protected) -> None:
    server.changes["response_types_supported"] = ["token"]
    await failure(protected.url)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(200, b"<html>", "text/html"),
        Fault(200, b"{"),
        Fault(200, b"[]"),
        Fault(500),
        Fault(302),
        Fault(200, b" " * 70_000),
        Fault(200, b"{}", headers=(("content-encoding", "gzip"),)),
        Fault(200, b'{"issuer":1,"issuer":2}'),
    ],
)
async def test_143_a_document_that_cannot_be_used_is_a_clear_failure(
    server, protected, fault
) -> None:
    server.metadata_fault = fault
    error = await failure(protected.url)
    assert error.step == "authorization_server_metadata"
    assert server.origin not in error.message


def test_the_check_reads_nothing_it_does_not_know() -> None:
    document = {
        "issuer": "https://a.example",
        "authorization_endpoint": "https://a.example/authorize?x=y",
        "token_endpoint": "https://a.example/token",
        "code_challenge_methods_supported": ["plain", "S256"],
        "scopes_supported": ["a", "b c", 'q"', 7, "x" * 300],
        "revocation_endpoint": "https://evil.example/revoke",
        "surprise": {"deep": [1]},
    }
    checked = check_metadata(document, "https://a.example", EgressRules(), MetadataPolicy())
    assert checked.scopes_supported == ("a",)
    assert checked.revocation_endpoint == ""
    assert type(checked).from_json(checked.as_json()) == checked


# 2025-03-26: the upstream is its own authorization server (e17).


class OldServer(FakeAuthorizationServer):
    """An authorization server and MCP endpoint on one origin, without resource metadata."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/mcp":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await super().__call__(scope, receive, send)


def test_an_old_server_is_its_own_authorization_server() -> None:
    with OldServer().serve() as server:
        upstream = upstream_at(f"{server.origin}/mcp")
        connect(browser_of(person()), upstream)
        assert UpstreamAccount.objects.get().issuer == server.origin


def test_an_old_server_without_any_document_has_the_default_addresses() -> None:
    with OldServer(metadata="none", iss="omit").serve() as server:
        upstream = upstream_at(f"{server.origin}/mcp")
        assert connect(browser_of(person()), upstream).status_code == 303
        assert token_requests(server) == 1


async def test_an_upstream_that_asks_for_no_sign_in_is_not_guessed_at() -> None:
    async def open_door(scope: Any, receive: Any, send: Any) -> None:
        status = 200 if scope["path"] == "/mcp" else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    with serve(open_door) as origin:
        error = await failure(f"{origin}/mcp")
    assert "no sign-in" in error.message
