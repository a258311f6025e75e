"""Becoming a client of an authorization server (protocol.md e9 to e12)."""

import re
from typing import Any

import pytest

from tests.fakes.authorization_server import FakeAuthorizationServer, Fault
from tests.upstreams.connecting import (
    approve,
    begin,
    browser_of,
    connect,
    person,
    query_of,
    upstream_at,
)
from upstreams import actions
from upstreams.client_keys import public_keys
from upstreams.errors import SetupFailed
from upstreams.models import Upstream, UpstreamClient
from upstreams.oauth_discovery import discover

pytestmark = pytest.mark.django_db(transaction=True)


async def found(url: str, **members: Any) -> Any:
    return await discover(Upstream(key="x", title="X", url=url, **members))


async def failure(url: str, **members: Any) -> SetupFailed:
    with pytest.raises(SetupFailed) as error:
        await found(url, **members)
    return error.value


def test_registration_says_what_we_are_and_is_done_once(server, protected) -> None:
    upstream = upstream_at(protected.url, oauth_scopes="read")
    for name in ("alice", "bob"):
        connect(browser_of(person(name)), upstream)
    (request,) = server.calls("/register")
    assert request.form["application_type"] == "web"
    assert request.form["redirect_uris"] == ["http://localhost:8000/connect/callback"]
    assert request.form["grant_types"] == ["authorization_code", "refresh_token"]
    assert request.form["scope"] == "read"
    client = UpstreamClient.objects.get()
    assert client.registration == "dcr"
    assert server.clients[client.client_id]["client_secret"] not in client.sealed_client_secret


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_every_way_of_authentication_that_a_registration_gives_works(
    server, protected, method: str
) -> None:
    server.registered_method = method
    assert connect(browser_of(person()), upstream_at(protected.url)).status_code == 303
    request = server.calls("/token")[0]
    assert ("authorization" in request.headers) == (method == "client_secret_basic")
    assert ("client_secret" in request.form) == (method == "client_secret_post")


def test_an_expired_secret_is_registered_anew(server, protected) -> None:
    server.secret_seconds = 30
    upstream = upstream_at(protected.url)
    connect(browser_of(person()), upstream)
    connect(browser_of(person("bob")), upstream)
    assert len(server.calls("/register")) == 2
    assert UpstreamClient.objects.filter(retired_at__isnull=True).count() == 1


def test_another_authorization_server_means_another_registration(server, protected) -> None:
    upstream = upstream_at(protected.url)
    connect(browser_of(person()), upstream)
    with FakeAuthorizationServer().serve() as other:
        protected.servers = [other.issuer]
        protected.server = other
        connect(browser_of(person("bob")), upstream)
        assert len(other.calls("/register")) == 1
        old = UpstreamClient.objects.get(issuer=server.issuer).client_id
        assert old not in str([request.form for request in other.requests])


def test_a_registered_secret_is_never_shown_to_another_server(server, protected) -> None:
    server.register("ours", client_secret="canary-secret")
    upstream = upstream_at(protected.url, oauth_client_id="ours")
    actions.set_oauth_client_secret(upstream, "canary-secret", None)
    assert connect(browser_of(person()), upstream).status_code == 303
    assert not server.calls("/register")
    with FakeAuthorizationServer().serve() as other:
        protected.servers = [other.issuer]
        answer = browser_of(person("bob")).post(f"/connect/{upstream.key}/")
        assert answer.status_code == 502
        assert not other.calls("/token")
        assert "canary" not in str([(seen.form, seen.headers) for seen in other.requests])


async def test_an_approved_authorization_server_is_the_only_one_used(server, protected) -> None:
    protected.servers = ["https://evil.example", server.issuer]
    assert (await found(protected.url, oauth_issuer=server.issuer)).server.issuer == server.issuer
    protected.servers = ["https://evil.example"]
    assert "approved" in (await failure(protected.url, oauth_issuer=server.issuer)).message


def test_our_document_is_used_where_the_server_takes_it(server, protected, settings) -> None:
    settings.SERVED_OVER_TLS = True
    settings.PUBLIC_URL = "https://gw.example"
    server.documents = True
    server.jwks = public_keys()
    upstream, browser = upstream_at(protected.url), browser_of(person())
    address = begin(browser, upstream)
    document = "https://gw.example/.well-known/oauth-client/gateway.json"
    assert query_of(address)["client_id"] == document
    assert not server.calls("/register")
    assert browser.get(approve(address)).status_code == 303
    form = server.calls("/token")[0].form
    assert form["client_assertion"].count(".") == 2
    assert form["client_id"] == document


def test_what_the_administrator_entered_comes_before_our_document_and_registering(
    server, protected, settings
) -> None:
    settings.SERVED_OVER_TLS = True
    server.documents = True
    server.register("ours")
    upstream = upstream_at(protected.url, oauth_client_id="ours")
    assert query_of(begin(browser_of(person()), upstream))["client_id"] == "ours"
    assert not server.calls("/register")


def test_a_server_for_public_clients_gets_the_public_document(server, protected, settings) -> None:
    settings.SERVED_OVER_TLS = True
    server.documents = True
    server.changes["token_endpoint_auth_methods_supported"] = ["none"]
    address = begin(browser_of(person()), upstream_at(protected.url))
    assert query_of(address)["client_id"].endswith("/gateway-public.json")


def test_without_https_our_document_is_not_offered(server, protected) -> None:
    server.documents = True
    begin(browser_of(person()), upstream_at(protected.url))
    assert len(server.calls("/register")) == 1


def test_where_nothing_works_the_administrator_learns_what_to_enter(server, protected) -> None:
    server.registration = False
    staff = browser_of(person("root", is_staff=True, is_superuser=True))
    page = staff.post(f"/connect/{upstream_at(protected.url).key}/").content.decode()
    text = re.sub(r"\s+", " ", page)
    assert "redirect URI http://localhost:8000/connect/callback" in text
    assert "client id" in text


@pytest.mark.parametrize(
    "fault",
    [
        Fault(400, b'{"error":"invalid_redirect_uri","error_description":"<b>canary</b>"}'),
        Fault(403),
        Fault(201, b"{}"),
        Fault(201, b'{"client_id": 7}'),
        Fault(200, b"<html>"),
        Fault(201, b'{"client_id":"a\\nb"}'),
        Fault(500),
        Fault(302),
        Fault(201, b'{"client_id":"' + b"a" * 600 + b'"}'),
    ],
)
def test_a_registration_that_fails_is_told_without_the_servers_text(
    server, protected, fault
) -> None:
    server.registration_fault = fault
    answer = browser_of(person()).post(f"/connect/{upstream_at(protected.url).key}/")
    assert answer.status_code == 502
    assert "canary" not in answer.content.decode()
    assert not UpstreamClient.objects.exists()


def test_a_client_the_server_forgot_is_registered_anew(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    connect(browser, upstream)
    server.clients.clear()
    callback = begin(browser, upstream)
    state = query_of(callback)["state"]
    answer = browser.get("/connect/callback", {"state": state, "code": "x", "iss": server.issuer})
    assert answer.status_code == 502
    assert connect(browser, upstream).status_code == 303
    assert len(server.calls("/register")) == 2
