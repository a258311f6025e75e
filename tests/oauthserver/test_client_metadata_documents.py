"""Clients known by a URL: real documents pass, and the fetch cannot be turned against anyone."""

import gzip
import json
import socket
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from oauthserver import guarded_fetch
from oauthserver.client_metadata_documents import lifetime
from oauthserver.errors import FetchFailed
from oauthserver.guarded_fetch import address_allowed, check_url, fetch_json
from oauthserver.models import OAuthClient
from tests.oauthserver import flows
from tests.oauthserver.document_host import DocumentHost, Page
from tests.oauthserver.flows import Pkce
from tests.oauthserver.real_documents import CHATGPT, CLAUDE, DOCUMENTS, at
from tests.patience import PATIENCE

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]

REDIRECT = "https://claude.ai/api/mcp/auth_callback"


def place(host: DocumentHost, document: dict[str, Any] = CLAUDE, **more: Any) -> str:
    """Publish a document under its own client_id and return that."""
    placed = at(host.base, document) | more
    return host.publish(placed["client_id"].removeprefix(host.base), placed)


def ask(browser: Client, client_id: str, redirect_uri: str = REDIRECT) -> Any:
    return flows.open_page(browser, flows.request_of(client_id, redirect_uri, Pkce()))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_real_clients_reach_the_page_and_get_a_code(
    browser: Client, host: DocumentHost, name: str
) -> None:
    client_id = place(host, DOCUMENTS[name])
    redirect_uri = DOCUMENTS[name]["redirect_uris"][0]
    page = ask(browser, client_id, redirect_uri)
    assert page.status_code == 200
    details = page.context["details"]
    assert (details.client.name, details.verified) == (DOCUMENTS[name]["client_name"], True)
    assert details.client_host == "127.0.0.1"
    answer = flows.answer_of(flows.press(browser, page))
    assert answer["code"]
    assert answer["iss"] == flows.BASE


@pytest.mark.parametrize("name", ["claude", "claude-code", "vs-code", "kiro", "codex", "chatgpt"])
def test_clients_that_offer_none_go_all_the_way_without_a_secret(
    browser: Client, api: Client, host: DocumentHost, name: str
) -> None:
    client_id = place(host, DOCUMENTS[name])
    redirect_uri = DOCUMENTS[name]["redirect_uris"][0]
    pkce = Pkce()
    code = flows.code_for(browser, client_id, redirect_uri, pkce)
    tokens = flows.redeem(api, client_id, redirect_uri, code, pkce)
    assert tokens.status_code == 200, tokens.content
    refreshed = flows.refresh(api, client_id, tokens.json()["refresh_token"])
    assert refreshed.status_code == 200


def test_a_client_that_offers_only_signatures_cannot_come_without(
    browser: Client, api: Client, host: DocumentHost
) -> None:
    document = DOCUMENTS["chatgpt-per-callback"]
    client_id = place(host, document)
    pkce = Pkce()
    code = flows.code_for(browser, client_id, document["redirect_uris"][0], pkce)
    answer = flows.redeem(api, client_id, document["redirect_uris"][0], code, pkce)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_a_loopback_client_may_come_from_any_port(browser: Client, host: DocumentHost) -> None:
    client_id = place(host, DOCUMENTS["claude-code"])
    page = ask(browser, client_id, "http://localhost:54545/callback")
    assert page.context["details"].loopback_only
    assert flows.press(browser, page)["Location"].startswith("http://localhost:54545/callback?")


def test_no_row_is_written_before_a_person_approves(browser: Client, host: DocumentHost) -> None:
    client_id = place(host)
    page = ask(browser, client_id)
    assert page.status_code == 200
    flows.press(browser, page, allow="")
    assert not OAuthClient.objects.exists()
    flows.press(browser, ask(browser, client_id))
    assert OAuthClient.objects.get().client_id == client_id
    assert OAuthClient.objects.get().approved_at is not None


def test_a_second_person_uses_the_same_row(browser: Client, host: DocumentHost, bob: Any) -> None:
    client_id = place(host)
    flows.press(browser, ask(browser, client_id))
    browser.force_login(bob, "django.contrib.auth.backends.ModelBackend")
    flows.press(browser, ask(browser, client_id))
    assert OAuthClient.objects.count() == 1


def test_nobody_signed_out_makes_the_gateway_fetch(host: DocumentHost, db: None) -> None:
    client_id = place(host)
    assert ask(Client(), client_id).status_code == 302
    silent = flows.request_of(client_id, REDIRECT, Pkce(), prompt="none")
    assert flows.open_page(Client(), silent).status_code == 400
    assert host.asked == []


def test_the_token_endpoint_fetches_for_nobody_it_does_not_know(
    api: Client, host: DocumentHost, db: None
) -> None:
    answer = flows.refresh(api, place(host), "mcpgw_rt_x")
    assert answer.status_code == 401
    assert host.asked == []


def test_a_document_is_fetched_once_while_it_is_fresh(browser: Client, host: DocumentHost) -> None:
    client_id = place(host)
    for _ in range(3):
        ask(browser, client_id)
    flows.press(browser, ask(browser, client_id))
    ask(browser, client_id)
    assert len(host.asked) == 1
    assert host.seen_headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("", 24 * 3600),
        ("no-store", 300),
        ("no-cache, max-age=9999", 300),
        ("max-age=0", 300),
        ("public, max-age=3600", 3600),
        ("max-age=1000000000", 24 * 3600),
        ("max-age=99999999999999999999999", 24 * 3600),
    ],
)
def test_lifetimes_have_a_floor_and_a_ceiling(cache_control: str, seconds: int) -> None:
    assert lifetime(cache_control) == seconds


def approved(browser: Client, host: DocumentHost, **more: Any) -> str:
    client_id = place(host, **more)
    flows.press(browser, ask(browser, client_id))
    return client_id


def let_it_age() -> None:
    """Let the lifetime of what is known pass."""
    OAuthClient.objects.update(cimd_expires_at=timezone.now() - timedelta(seconds=1))
    cache.clear()


def test_a_removed_redirect_stops_working_after_the_lifetime(
    browser: Client, host: DocumentHost, told: list[dict[str, Any]]
) -> None:
    client_id = approved(browser, host)
    place(host, redirect_uris=["https://claude.com/api/mcp/auth_callback"])
    assert ask(browser, client_id).status_code == 200
    let_it_age()
    refused = ask(browser, client_id)
    assert refused.status_code == 400
    assert "Location" not in refused
    changes = [event for event in told if event["kind"] == "client.metadata_changed"]
    assert changes[0]["details"] == {"members": ["redirect_uris"]}
    assert ask(browser, client_id, "https://claude.com/api/mcp/auth_callback").status_code == 200


def test_a_broken_document_is_not_used_in_place_of_the_good_one(
    browser: Client, api: Client, host: DocumentHost
) -> None:
    client_id = place(host)
    pkce = Pkce()
    code = flows.code_for(browser, client_id, REDIRECT, pkce)
    let_it_age()
    host.publish("/oauth/mcp-oauth-client-metadata", b"<html>")
    # Nobody approves a client whose document cannot be read now ...
    assert ask(browser, client_id).status_code == 400
    # ... but nobody is signed out by it either.
    assert flows.redeem(api, client_id, REDIRECT, code, pkce).status_code == 200
    place(host)
    assert ask(browser, client_id).status_code == 400, "left alone for 30 seconds"
    cache.clear()
    assert ask(browser, client_id).status_code == 200


def test_two_devices_stay_signed_in(browser: Client, api: Client, host: DocumentHost) -> None:
    client_id = place(host)
    sessions = []
    for _ in range(2):
        pkce = Pkce()
        code = flows.code_for(browser, client_id, REDIRECT, pkce)
        sessions.append(flows.redeem(api, client_id, REDIRECT, code, pkce).json())
    for tokens in sessions:
        assert flows.refresh(api, client_id, tokens["refresh_token"]).status_code == 200


@pytest.mark.parametrize(
    "client_id",
    [
        "http://client.example/c.json",
        "HTTPS://client.example",
        "HTTPS://client.example/c.json",
        "https://client.example",
        "https://client.example/c.json#f",
        "https://client.example/c.json#",
        "https://u:p@client.example/c",
        "https://@client.example/c",
        "https://client.example/a/../c",
        "https://client.example/./c",
        "https://client.example/%2e%2e/c",
        "https://client.example/%2E/c",
        "https://client.example:0/c",
        "https://client.example:/c",
        "https://client.example:99999/c",
        "https://client.example:443x/c",
        "https:///c",
        "https://client.example\\@evil.example/c",
        "https://client.example/c d",
        "https://client.example/c\n",
        "https://cl\u0456ent.example/c",
        "https://0177.0.0.1/c",
        "https://0x7f.1/c",
        "https://2130706433/c",
        "https://127.1/c",
        "https://0x7f000001/c",
        "https://client.example/" + "a" * 3000,
        "https://client.example/" + "a" * 300,
    ],
)
def test_a_malformed_url_is_refused_without_looking_anywhere(
    browser: Client, client_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: looked_up.append(a) or [])
    response = ask(browser, client_id)
    assert response.status_code == 400
    assert looked_up == []


@pytest.mark.parametrize("public_url", ["https://gw.example", "https://gw.example:443"])
def test_the_gateway_never_asks_itself(settings: Any, public_url: str) -> None:
    settings.PUBLIC_URL = public_url
    for host in ("gw.example", "GW.example", "gw.example:443", "gw.example."):
        with pytest.raises(FetchFailed, match="own"):
            check_url(f"https://{host}/.well-known/oauth-client/gateway.json")


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("64:ff9b::5db8:d70e", True),
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("239.255.255.255", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fc00::1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", False),
        ("::127.0.0.1", False),
        ("::93.184.215.14", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
        ("2002:5db8:d70e::1", False),
        ("2001:0:5db8:d70e::1", False),
        ("2606:2800::5efe:127.0.0.1", False),
        ("2606:2800::200:5efe:10.0.0.1", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_only_public_addresses_are_connected_to(address: str, allowed: bool) -> None:
    assert address_allowed(address) is allowed


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "localhost",
    ],
)
def test_a_document_at_an_address_inside_is_not_connected_to(
    browser: Client, host: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA = False
    connected: list[Any] = []
    monkeypatch.setattr(guarded_fetch, "_connected", lambda *a: connected.append(a))
    assert ask(browser, f"https://{host}/c.json").status_code == 400
    assert connected == []


def test_loopback_is_allowed_only_where_development_says_so(
    browser: Client, host: DocumentHost, settings: Any
) -> None:
    client_id = place(host)
    settings.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA = False
    assert ask(browser, client_id).status_code == 400
    assert host.asked == []


def test_one_private_address_condemns_the_host(
    host: DocumentHost, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []
    mixed = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 443)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: mixed)
    monkeypatch.setattr(guarded_fetch, "_connected", lambda *a: connected.append(a))
    with pytest.raises(FetchFailed, match="not public"):
        fetch_json("https://client.example/c.json", limit=5120)
    assert connected == []


def test_the_connection_goes_to_the_address_that_was_checked(
    host: DocumentHost, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(host.base.rpartition(":")[2])
    host.publish("/c.json", {"a": 1})
    answers = [
        [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))],
        [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))],
    ]
    real = guarded_fetch._connected
    targets: list[str] = []

    def connect(address: str, *more: Any) -> socket.socket:
        targets.append(address)
        return real(address, *more)

    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers.pop(0))
    monkeypatch.setattr(guarded_fetch, "_connected", connect)
    # The name is in the certificate, the address is the one of the first and only look-up.
    fetched = fetch_json(f"https://chatgpt.test:{port}/c.json", limit=5120)
    assert fetched.members == {"a": 1}
    assert targets == ["127.0.0.1"]
    assert len(answers) == 1
    assert host.seen_headers["host"] == f"chatgpt.test:{port}"


def test_names_that_resolve_slowly_count_in_the_deadline_and_pile_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, asked = threading.Event(), threading.Semaphore(0)

    def slow(*_: Any, **__: Any) -> list[Any]:
        asked.release()
        answer.wait(PATIENCE)
        raise socket.gaierror("no such name")

    def lookups() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "client-document-dns"]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(guarded_fetch, "TOTAL_SECONDS", 0.02)
    started = time.monotonic()
    for _ in range(guarded_fetch.MAX_LOOKUPS):
        with pytest.raises(FetchFailed, match="in time"):
            fetch_json("https://slow.example/c.json", limit=5120)
    for _ in range(3):
        with pytest.raises(guarded_fetch.AtCapacity):
            fetch_json("https://slow.example/c.json", limit=5120)
    assert time.monotonic() - started < 20
    assert len(lookups()) == guarded_fetch.MAX_LOOKUPS
    answer.set()
    for thread in lookups():
        thread.join(PATIENCE)
    with pytest.raises(FetchFailed, match="does not resolve"):
        fetch_json("https://gone.example/c.json", limit=5120)


def test_a_certificate_for_another_name_is_refused(
    host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(host.base.rpartition(":")[2])
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    with pytest.raises(FetchFailed):
        fetch_json(f"https://chatgpt.example:{port}/c.json", limit=5120)
    assert host.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["/there", "https://169.254.169.254/", "file:///etc/passwd"])
def test_redirects_are_never_followed(
    browser: Client, host: DocumentHost, status: int, target: str
) -> None:
    client_id = place(host)
    path = client_id.removeprefix(host.base)
    host.publish("/there", at(host.base, CLAUDE))
    host.pages[path].status = status
    host.pages[path].headers["location"] = target
    assert ask(browser, client_id).status_code == 400
    assert host.asked == [path]


@pytest.mark.parametrize("status", [201, 203, 206, 404, 410, 500])
def test_only_a_plain_answer_holds_a_document(
    browser: Client, host: DocumentHost, status: int
) -> None:
    """(d6)"""
    client_id = place(host)
    page_of(host, client_id).status = status
    assert ask(browser, client_id).status_code == 400
    assert not OAuthClient.objects.exists()
    page_of(host, client_id).status = 200
    # Nothing of the failure is kept but that the host is left alone for half a minute.
    cache.clear()
    assert ask(browser, client_id).status_code == 200


def test_a_document_is_kept_as_long_as_its_host_says(browser: Client, host: DocumentHost) -> None:
    """(d6)"""
    client_id = place(host)
    page_of(host, client_id).headers["cache-control"] = "max-age=1000"
    began = timezone.now()
    flows.press(browser, ask(browser, client_id))
    expires = OAuthClient.objects.get().cimd_expires_at
    assert expires is not None
    assert began + timedelta(seconds=999) <= expires <= timezone.now() + timedelta(seconds=1000)


def page_of(host: DocumentHost, client_id: str) -> Page:
    return host.pages[client_id.removeprefix(host.base)]


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        ("text/html", False),
        ("", False),
        ("application/octet-stream", False),
        ("application/jsonp", False),
        ("application/json; charset=utf-16", False),
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ('Application/JSON;charset="UTF-8"', True),
        ("application/cimd+json", True),
    ],
)
def test_only_json_is_read_as_json(
    browser: Client, host: DocumentHost, content_type: str, accepted: bool
) -> None:
    client_id = place(host)
    page_of(host, client_id).headers["content-type"] = content_type
    assert ask(browser, client_id).status_code == (200 if accepted else 400)


@pytest.mark.parametrize(("size", "with_length"), [(5120, True), (5120, False)])
def test_a_document_may_have_five_kilobytes(
    browser: Client, host: DocumentHost, size: int, with_length: bool
) -> None:
    client_id = place(host)
    page = page_of(host, client_id)
    page.body = page.body.ljust(size)
    page.with_length = with_length
    assert ask(browser, client_id).status_code == 200


@pytest.mark.parametrize("with_length", [True, False])
def test_and_not_a_byte_more(browser: Client, host: DocumentHost, with_length: bool) -> None:
    client_id = place(host)
    page = page_of(host, client_id)
    page.body = page.body.ljust(5121)
    page.with_length = with_length
    assert ask(browser, client_id).status_code == 400


def test_an_endless_document_is_left_early(browser: Client, host: DocumentHost) -> None:
    client_id = place(host)
    page_of(host, client_id).endless = True
    assert ask(browser, client_id).status_code == 400


def test_a_compressed_document_is_not_unpacked(browser: Client, host: DocumentHost) -> None:
    client_id = place(host)
    page = page_of(host, client_id)
    page.body = gzip.compress(page.body)
    page.headers["content-encoding"] = "gzip"
    assert ask(browser, client_id).status_code == 400


def test_a_trickling_host_is_given_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    from tests.fakes.asgi_server import authority

    monkeypatch.setattr(guarded_fetch, "TOTAL_SECONDS", 0.6)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority().certificate_file, authority().key_file)
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            try:
                for byte in b"HTTP/1.1 200 OK\r\nX-Padding: " + b"a" * 10_000:
                    if stop.wait(0.05):
                        return
                    secure.send(bytes([byte]))
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    monkeypatch.setattr(
        guarded_fetch,
        "_tls_context",
        lambda bundle: ssl.create_default_context(cafile=str(authority().ca_file)),
    )
    started = time.monotonic()
    with pytest.raises(FetchFailed):
        fetch_json(f"https://127.0.0.1:{listener.getsockname()[1]}/c.json", limit=5120)
    assert time.monotonic() - started < 20
    stop.set()
    thread.join(PATIENCE)
    listener.close()


@pytest.mark.parametrize("change", ["upper", "slash", "port", "encoded", "missing", "number"])
def test_the_document_must_name_exactly_its_own_url(
    browser: Client, host: DocumentHost, change: str
) -> None:
    client_id = place(host)
    altered = {
        "upper": client_id.upper(),
        "slash": client_id + "/",
        "port": client_id.replace("https://127.0.0.1", "https://127.0.0.1:443"),
        "encoded": client_id.replace("oauth", "%6fauth"),
        "missing": None,
        "number": 7,
    }[change]
    document = at(host.base, CLAUDE) | {"client_id": altered}
    host.publish(client_id.removeprefix(host.base), document)
    assert ask(browser, client_id).status_code == 400


@pytest.mark.parametrize(
    "make",
    [
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.decode().encode("utf-16"),
        lambda body: body[:-1] + b', "client_name": "Other"}',
        lambda body: body[:-1] + b', "x": NaN}',
        lambda body: body[:-1] + b', "x": Infinity}',
        lambda body: b"[" + body + b"]",
        lambda body: body[:-1] + b', "x": ' + b"[" * 100 + b"]" * 100 + b"}",
        lambda body: body[:-1] + b', "x": "\\u0000"}',
        lambda body: body[:-1],
        lambda body: b"",
    ],
)
def test_odd_json_is_refused(browser: Client, host: DocumentHost, make: Any) -> None:
    client_id = place(host)
    page = page_of(host, client_id)
    page.body = make(page.body)
    assert ask(browser, client_id).status_code == 400


@pytest.mark.parametrize(
    "more",
    [
        {"client_name": None},
        {"client_name": ""},
        {"client_name": 7},
        {"redirect_uris": None},
        {"redirect_uris": []},
        {"redirect_uris": [REDIRECT, "javascript:alert(1)"]},
        {"redirect_uris": [REDIRECT, "http://10.0.0.1/cb"]},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_methods_supported": "none"},
        {"client_secret": "x"},
        {"client_secret": None},
        {"client_secret_expires_at": 0},
        {"grant_types": ["client_credentials"]},
        {"response_types": ["token"]},
        {"logo_uri": "javascript:alert(1)"},
    ],
)
def test_a_document_the_gateway_cannot_honour_is_refused_whole(
    browser: Client, host: DocumentHost, more: dict[str, Any]
) -> None:
    client_id = place(host, **more)
    assert ask(browser, client_id).status_code == 400
    assert not OAuthClient.objects.exists()


def test_secret_methods_are_dropped_where_something_better_is_offered(
    browser: Client, host: DocumentHost
) -> None:
    client_id = approved(
        browser,
        host,
        token_endpoint_auth_method="client_secret_basic",
        token_endpoint_auth_methods_supported=["client_secret_basic", "none"],
    )
    assert OAuthClient.objects.get(client_id=client_id).auth_methods == {"none"}


def test_every_failure_looks_the_same_from_outside(
    browser: Client, host: DocumentHost, settings: Any
) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    urls = [
        f"https://127.0.0.1:{port}/c.json",
        "https://does-not-resolve.invalid/c.json",
        "https://10.0.0.1/c.json",
        host.base + "/missing.json",
        host.publish("/bad.json", b"{"),
        "https://client.example:0/c",
        "unknown-client",
    ]
    bodies = set()
    for url in urls:
        response = ask(browser, url)
        text = response.content.decode()
        start = text.index("This connection cannot be made</h1>")
        bodies.add((response.status_code, text[start : text.index("</section>")]))
    assert len(bodies) == 1, bodies


def test_a_failing_url_is_left_alone_for_a_while(browser: Client, host: DocumentHost) -> None:
    client_id = host.base + "/missing.json"
    for _ in range(5):
        ask(browser, client_id)
    assert len(host.asked) == 1


def test_only_ten_documents_are_fetched_at_once(
    browser: Client, host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id = place(host)
    full = threading.BoundedSemaphore(1)
    full.acquire()
    monkeypatch.setattr(guarded_fetch, "_slots", full)
    assert ask(browser, client_id).status_code == 400
    assert host.asked == []
    full.release()
    # Being busy says nothing about the document: no waiting time.
    assert ask(browser, client_id).status_code == 200
    assert guarded_fetch.MAX_IN_FLIGHT == 10


def test_a_failed_fetch_gives_its_place_back(
    host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_fetch, "_slots", threading.BoundedSemaphore(1))
    for _ in range(3):
        with pytest.raises(FetchFailed, match="404"):
            fetch_json(host.base + "/missing.json", limit=5120)


def test_a_client_registered_by_hand_is_never_overwritten(
    browser: Client, host: DocumentHost
) -> None:
    from oauthserver.actions import preregister_client

    client_id = place(host)
    made, _ = preregister_client(
        name="Ours",
        redirect_uris_allowed=["https://ours.example/cb"],
        confidential=False,
        actor=None,
        client_id=client_id,
    )
    assert ask(browser, client_id).status_code == 400
    assert ask(browser, client_id, "https://ours.example/cb").status_code == 200
    assert host.asked == []
    made.refresh_from_db()
    assert made.name == "Ours"


def test_the_document_is_kept_for_the_administrator(browser: Client, host: DocumentHost) -> None:
    client_id = place(host, CHATGPT)
    flows.press(browser, ask(browser, client_id, CHATGPT["redirect_uris"][0]))
    client = OAuthClient.objects.get()
    assert client.metadata["document"] == at(host.base, CHATGPT)
    assert client.auth_methods == {"none", "private_key_jwt"}
    assert client.token_endpoint_auth_method == "private_key_jwt"
    assert json.dumps(client.metadata)
