"""Dynamic registration: complete answers for real clients, nothing for harmful ones."""

import json
import time
from typing import Any

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client

from oauthserver import guarded_fetch, request_limits
from oauthserver.models import OAuthClient
from oauthserver.redirect_uris import PRIVATE_SCHEME_URIS
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, register
from tests.oauthserver.flows import Pkce
from tests.oauthserver.real_documents import REGISTRATIONS

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]


def send(api: Client, document: Any, **more: Any) -> Any:
    body = document if isinstance(document, str | bytes) else json.dumps(document)
    return api.post("/oauth/register", body, content_type="application/json", **more)


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_real_clients_get_a_complete_answer(api: Client, name: str) -> None:
    document = REGISTRATIONS[name]
    response = send(api, document)
    assert response.status_code == 201, response.content
    answer = response.json()
    assert response["Cache-Control"] == "no-store"
    assert response["Pragma"] == "no-cache"
    assert answer["redirect_uris"] == document["redirect_uris"]
    assert answer["grant_types"] == ["authorization_code", "refresh_token"]
    assert answer["response_types"] == ["code"]
    assert abs(answer["client_id_issued_at"] - time.time()) < 60
    assert not answer["client_id"].startswith("http")
    assert answer["registration_client_uri"].endswith(f"/oauth/register/{answer['client_id']}")
    assert answer["registration_access_token"].startswith("mcpgw_reg_")
    assert None not in answer.values()
    method = answer["token_endpoint_auth_method"]
    assert method == (document.get("token_endpoint_auth_method") or "client_secret_basic")
    assert ("client_secret" in answer) == (method != "none")
    assert ("client_secret_expires_at" in answer) == (method != "none")
    for member in ("client_name", "client_uri", "software_id", "software_version"):
        assert answer.get(member) == document.get(member)


def test_the_secret_is_shown_once_and_stored_as_a_digest(api: Client) -> None:
    answer = send(api, REGISTRATIONS["claude"]).json()
    assert answer["client_secret_expires_at"] == 0
    assert answer["client_secret"].startswith("mcpgw_cs_")
    assert answer["client_secret"] not in str(list(OAuthClient.objects.values_list()))


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "\tjavascript:alert(1)",
        "java\nscript:alert(1)",
        "\u0000javascript:alert(1)",
        "javascript://client.example/%0aalert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:https://client.example/x",
        "about:blank",
        "https://client.example/cb#",
        "https://client.example/cb#fragment",
        "/callback",
        "client.example/cb",
        "//client.example/cb",
        "https://chatgpt.com@evil.example/",
        "https://chatgpt.com\\@evil.example/",
        "https://evil.example\\.chatgpt.com/",
        "https://*.client.example/",
        "https:evil",
        "https:///evil",
        "https://",
        "https://client.example:0/cb",
        "https://client.example:99999/cb",
        "https://client.example:port/cb",
        "https://client..example/cb",
        "https://-client.example/cb",
        "https://client.example/a/../b",
        "https://client.example/%2e%2e/b",
        "https://client.example/" + "a" * 3000,
        "https://client.example/c b",
        "https://client.example/cb?code=x",
        "https://client.example/cb?iss=https://evil.example",
        "https://cl\u0456ent.example/cb",
        "HTTPS://client.example/cb",
        "http://client.example/cb",
        "http://10.0.0.1/cb",
        "http://127.0.0.2/cb",
        "http://localhost.evil.example/cb",
        "http://0x7f.1/cb",
        "cursor://evil/oauth/callback",
        "cursor://anysphere.cursor-mcp/oauth/callback/",
        "cursor://anysphere.cursor-mcp/oauth/callback?x=1",
        "CURSOR://anysphere.cursor-mcp/oauth/callback",
        "myapp://x",
        "com.example.app:/cb",
        "intent://x#Intent;end",
        "ms-word:ofe|u|https://evil.example",
        "http://localhost:8000/connect/callback",
        "http://LOCALHOST:8000/oauth/authorize",
        "http://localhost:8000/admin/",
        "http://localhost:8000/",
        "http://127.0.0.1:8000/connect/callback",
        "http://[::1]:8000/",
        "http://localhost.:8000/admin/",
        "",
        None,
        7,
        {},
    ],
)
def test_a_harmful_redirect_uri_is_refused_and_nothing_stored(api: Client, uri: Any) -> None:
    response = send(api, {"redirect_uris": [CALLBACK, uri]})
    assert response.status_code == 400
    # A NUL is refused with the document it is in.
    nul = isinstance(uri, str) and "\x00" in uri
    assert response.json()["error"] == (
        "invalid_client_metadata" if nul else "invalid_redirect_uri"
    )
    assert not OAuthClient.objects.exists()


@pytest.mark.parametrize(
    "uri",
    [
        "https://gw.example/connect/callback",
        "https://gw.example:443/oauth/authorize",
        "https://GW.example/admin/",
        "https://gw.example./connections/",
    ],
)
def test_14_no_spelling_of_the_gateways_own_host_is_a_place_to_send_codes(
    api: Client, settings: Any, uri: str
) -> None:
    settings.PUBLIC_URL = "https://gw.example"
    response = send(api, {"redirect_uris": [uri]})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_redirect_uri")


@pytest.mark.parametrize("uris", [[], "https://client.example/cb", None, {}, [CALLBACK] * 11])
def test_redirect_uris_must_be_a_list_of_one_to_ten(api: Client, uris: Any) -> None:
    response = send(api, {"redirect_uris": uris})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_redirect_uri")
    assert send(api, {}).json()["error"] == "invalid_redirect_uri"
    assert not OAuthClient.objects.exists()


def test_the_one_private_scheme_uri_is_accepted_exactly(api: Client) -> None:
    for uri in PRIVATE_SCHEME_URIS:
        assert register(api, redirect_uris=[uri])["redirect_uris"] == [uri]


@pytest.mark.parametrize(
    "member", ["logo_uri", "client_uri", "tos_uri", "policy_uri", "client_uri#ja", "logo_uri#de"]
)
@pytest.mark.parametrize(
    "value", ["javascript:x", "data:,x", "http://169.254.169.254/", "https://[", 7, "//x.example"]
)
def test_pages_of_the_client_must_be_https(api: Client, member: str, value: Any) -> None:
    response = send(api, {"redirect_uris": [CALLBACK], member: value})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_client_metadata")


@pytest.mark.parametrize(
    "more",
    [
        {"token_endpoint_auth_method": "tls_client_auth"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": ["none"]},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks_uri": "https://x.example/jwks",
            "token_endpoint_auth_signing_alg": "none",
        },
        {"grant_types": ["client_credentials"]},
        {"grant_types": ["password"]},
        {"grant_types": ["implicit"]},
        {"grant_types": ["refresh_token"]},
        {"grant_types": []},
        {"grant_types": "authorization_code"},
        {"response_types": ["token"]},
        {"response_types": ["id_token"]},
        {"response_types": "code"},
        {"client_name": "n" * 101},
        {"client_name": 7},
        {"jwks_uri": "http://x.example/jwks"},
        {"jwks": {"keys": [{"kty": "RSA", "d": "private"}]}},
        {"jwks": {"keys": [{"kty": "oct", "k": "shared"}]}},
        {"jwks": []},
    ],
)
def test_metadata_that_cannot_be_honoured_is_refused(api: Client, more: dict[str, Any]) -> None:
    response = send(api, {"redirect_uris": [CALLBACK], **more})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_client_metadata")
    assert not OAuthClient.objects.exists()


def test_grants_that_are_not_offered_are_dropped_and_stay_unusable(api: Client) -> None:
    answer = register(
        api,
        grant_types=["authorization_code", "client_credentials", "password", "implicit"],
        response_types=["code", "token"],
    )
    assert answer["grant_types"] == ["authorization_code"]
    assert answer["response_types"] == ["code"]
    for grant_type in ("client_credentials", "password"):
        refused = flows.token_request(api, grant_type=grant_type, client_id=answer["client_id"])
        assert refused.json()["error"] == "unsupported_grant_type"


def test_members_that_are_ours_to_say_are_ignored(api: Client) -> None:
    answer = register(
        api,
        client_id="https://evil.example/client.json",
        client_secret="chosen",
        client_id_issued_at=1,
        registration_access_token="x",
        skip_authorization=True,
        user=1,
        enabled=False,
        approved_at="2026-01-01",
    )
    client = OAuthClient.objects.get()
    assert answer["client_id"] == client.client_id != "https://evil.example/client.json"
    assert answer["client_id_issued_at"] > 1
    assert "client_secret" not in answer
    assert answer["registration_access_token"] != "x"
    assert (client.skip_authorization, client.user, client.enabled) == (False, None, True)
    assert client.approved_at is None


def test_nothing_is_fetched_at_registration(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no_network(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(guarded_fetch, "_connected", no_network)
    answer = register(
        api,
        token_endpoint_auth_method="private_key_jwt",
        jwks_uri="https://169.254.169.254/keys",
        sector_identifier_uri="https://10.0.0.1/",
        initiate_login_uri="https://10.0.0.1/",
        request_uris=["https://10.0.0.1/"],
    )
    assert answer["token_endpoint_auth_method"] == "private_key_jwt"


def test_a_name_cannot_turn_the_text_around_it(api: Client) -> None:
    register(api, client_name="Chat\u202eGPT\u200b\u0007")
    assert OAuthClient.objects.get().name == "ChatGPT"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{}",
        b'{"redirect_uris": ["https://a.example/"], "redirect_uris": ["https://b.example/"]}',
        b'{"redirect_uris": ["https://a.example/"], "x": NaN}',
        b'{"redirect_uris": ["https://a.example/"], "client_name": "\\ud800"}',
        b'{"x":' * 200 + b"1" + b"}" * 200,
        b"redirect_uris=https://a.example/",
    ],
)
def test_a_body_that_is_not_one_plain_json_object_is_refused(api: Client, body: bytes) -> None:
    response = send(api, body)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_client_metadata")


@pytest.mark.parametrize(("size", "status"), [(16 * 1024, 201), (16 * 1024 + 1, 413)])
def test_the_body_may_have_sixteen_kilobytes(api: Client, size: int, status: int) -> None:
    document = {"redirect_uris": [CALLBACK], "padding": ""}
    document["padding"] = "a" * (size - len(json.dumps(document)))
    assert len(json.dumps(document)) == size
    assert send(api, document).status_code == status
    assert OAuthClient.objects.count() == (1 if status == 201 else 0)


@pytest.mark.parametrize("method", ["get", "put", "delete", "head", "options"])
def test_only_post_registers(api: Client, method: str) -> None:
    response = getattr(api, method)("/oauth/register")
    assert response.status_code == 405
    assert response["Allow"] == "POST"
    assert "Access-Control-Allow-Origin" not in response


def test_one_address_cannot_register_without_end(api: Client) -> None:
    statuses = [
        send(api, {"redirect_uris": [CALLBACK]}, REMOTE_ADDR="203.0.113.5").status_code
        for _ in range(70)
    ]
    assert statuses.count(201) == request_limits.REGISTRATIONS.per_address
    assert statuses[-1] == 429
    refused = send(api, {"redirect_uris": [CALLBACK]}, REMOTE_ADDR="203.0.113.5")
    assert 0 < int(refused["Retry-After"]) <= request_limits.WINDOW_SECONDS
    other = send(api, {"redirect_uris": [CALLBACK]}, REMOTE_ADDR="203.0.113.6")
    assert other.status_code == 201


def test_a_vendors_shared_address_gets_a_larger_share(api: Client, settings: Any) -> None:
    settings.GATEWAY_SHARED_EGRESS = ["198.51.100.0/24", "2001:db8::/32"]
    for address in ("198.51.100.7", "2001:db8::1", "::ffff:198.51.100.8"):
        statuses = {
            send(api, {"redirect_uris": [CALLBACK]}, REMOTE_ADDR=address).status_code
            for _ in range(200)
        }
        assert statuses == {201}


def test_addresses_that_a_server_on_both_protocols_reports_are_counted_one_by_one(
    api: Client,
) -> None:
    def share_of(address: str) -> int:
        sent = (send(api, {"redirect_uris": [CALLBACK]}, REMOTE_ADDR=address) for _ in range(61))
        return sum(answer.status_code == 201 for answer in sent)

    # How a socket that listens on [::] names whoever comes by IPv4 (RFC 4291 2.5.5.2).
    assert share_of("::ffff:203.0.113.5") == request_limits.REGISTRATIONS.per_address
    assert share_of("::ffff:203.0.113.6") == request_limits.REGISTRATIONS.per_address
    assert share_of("203.0.113.5") == 0


def test_everybody_together_has_a_limit_too(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = request_limits.Limit("registrations", 60, 3000, 5)
    monkeypatch.setattr(request_limits, "REGISTRATIONS", limit)
    statuses = [
        send(api, {"redirect_uris": [CALLBACK]}, REMOTE_ADDR=f"203.0.113.{n}").status_code
        for n in range(7)
    ]
    assert statuses == [201] * 5 + [429] * 2


def test_a_store_that_is_down_is_said_to_be_temporary(
    api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("the disk is full")

    monkeypatch.setattr(OAuthClient, "save", down)
    response = send(api, {"redirect_uris": [CALLBACK]})
    assert response.status_code == 503
    assert response.json()["error"] == "temporarily_unavailable"
    assert "Retry-After" in response
    assert "disk" not in response.content.decode()
    monkeypatch.undo()
    monkeypatch.setattr(cache, "add", lambda *a, **k: (_ for _ in ()).throw(ConnectionError()))
    assert send(api, {"redirect_uris": [CALLBACK]}).status_code == 503


def test_a_purged_client_is_told_apart_from_a_wrong_code(
    api: Client, browser: Client, public: OAuthClient
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    public.delete()
    response = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    page = flows.open_page(browser, flows.request_of(public.client_id, CALLBACK, pkce))
    assert page.status_code == 400
    assert "add it" in page.content.decode()
