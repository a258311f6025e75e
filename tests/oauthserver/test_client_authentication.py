"""Who calls the token endpoint: one registered method, proven, or 401."""

import base64
import json
import time
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from django.core.cache import cache
from django.test import Client
from jwcrypto import jwk, jws

from oauthserver.client_assertions import ASSERTION_TYPE
from oauthserver.models import OAuthClient, UsedAssertion
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, register
from tests.oauthserver.document_host import DocumentHost
from tests.oauthserver.flows import BASE, FORM, Pkce
from tests.oauthserver.real_documents import CHATGPT, at

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]


def basic(client_id: str, secret: str, scheme: str = "Basic") -> dict[str, str]:
    return {
        "Authorization": f"{scheme} " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    }


def attempt(api: Client, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """Present a worthless code: a client that passes gets invalid_grant."""
    body = {"grant_type": "authorization_code", "code": "x", "code_verifier": "v" * 43, **fields}
    return flows.token_request(api, headers, **body)


def passed(response: Any) -> bool:
    assert response.status_code in (400, 401), response.content
    error = response.json()["error"]
    if response.status_code == 401:
        assert error == "invalid_client"
        assert response["WWW-Authenticate"].startswith("Basic ")
        assert response["Cache-Control"] == "no-store"
        return False
    assert error == "invalid_grant"
    return True


@pytest.fixture
def by_basic(api: Client, db: None) -> dict[str, Any]:
    return register(api, token_endpoint_auth_method="client_secret_basic")


@pytest.fixture
def by_post(api: Client, db: None) -> dict[str, Any]:
    return register(api, token_endpoint_auth_method="client_secret_post")


@pytest.fixture
def without(api: Client, db: None) -> dict[str, Any]:
    return register(api)


def test_basic_works_in_its_spellings(api: Client, by_basic: dict[str, Any]) -> None:
    client_id, secret = by_basic["client_id"], by_basic["client_secret"]
    assert passed(attempt(api, basic(client_id, secret)))
    assert passed(attempt(api, basic(client_id, secret, "basic")))
    assert passed(attempt(api, basic(client_id, secret), client_id=client_id))
    encoded = "".join(f"%{ord(character):02X}" for character in secret)
    assert passed(attempt(api, basic(quote(client_id, safe=""), encoded)))


def test_post_works(api: Client, by_post: dict[str, Any]) -> None:
    fields = {"client_id": by_post["client_id"], "client_secret": by_post["client_secret"]}
    assert passed(attempt(api, **fields))


def test_a_public_client_only_names_itself(api: Client, without: dict[str, Any]) -> None:
    assert passed(attempt(api, client_id=without["client_id"]))
    assert passed(attempt(api, client_id=without["client_id"], client_secret=""))


def test_a_secret_from_a_public_client_is_refused(api: Client, without: dict[str, Any]) -> None:
    assert not passed(attempt(api, client_id=without["client_id"], client_secret="x"))
    assert not passed(attempt(api, basic(without["client_id"], "x")))


def test_a_confidential_client_needs_its_proof(
    api: Client, by_basic: dict[str, Any], by_post: dict[str, Any]
) -> None:
    for client in (by_basic, by_post):
        assert not passed(attempt(api, client_id=client["client_id"]))
        assert not passed(attempt(api, client_id=client["client_id"], client_secret="wrong"))
        assert not passed(attempt(api, basic(client["client_id"], "wrong")))


def test_the_stored_digest_is_no_secret(api: Client, by_post: dict[str, Any]) -> None:
    client = OAuthClient.objects.get(client_id=by_post["client_id"])
    fields = {"client_id": client.client_id, "client_secret": client.client_secret}
    assert not passed(attempt(api, **fields))


def test_only_the_registered_method_counts(
    api: Client, by_basic: dict[str, Any], by_post: dict[str, Any]
) -> None:
    fields = {"client_id": by_basic["client_id"], "client_secret": by_basic["client_secret"]}
    assert not passed(attempt(api, **fields))
    assert not passed(attempt(api, basic(by_post["client_id"], by_post["client_secret"])))


def test_another_clients_secret_is_refused(
    api: Client, by_basic: dict[str, Any], by_post: dict[str, Any]
) -> None:
    assert not passed(attempt(api, basic(by_basic["client_id"], by_post["client_secret"])))
    both = {"client_id": by_post["client_id"]}
    assert not passed(attempt(api, basic(by_basic["client_id"], by_basic["client_secret"]), **both))


def test_two_methods_at_once_are_refused(api: Client, by_basic: dict[str, Any]) -> None:
    header = basic(by_basic["client_id"], by_basic["client_secret"])
    assert not passed(attempt(api, header, client_secret=by_basic["client_secret"]))
    assert not passed(
        attempt(api, header, client_assertion="a.b.c", client_assertion_type=ASSERTION_TYPE)
    )


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no-colon").decode(),
        "Basic " + base64.b64encode(b":secret").decode(),
        "Basic " + base64.b64encode(b"id:").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + "A" * 16_000,
        "Basic \xfc",
        "Bearer token",
        "Digest x",
        "x",
    ],
)
def test_a_malformed_header_is_refused(api: Client, without: dict[str, Any], header: str) -> None:
    assert not passed(attempt(api, {"Authorization": header}, client_id=without["client_id"]))


def test_credentials_in_the_url_are_not_read(api: Client, by_post: dict[str, Any]) -> None:
    query = f"client_id={by_post['client_id']}&client_secret={by_post['client_secret']}"
    body = "grant_type=authorization_code&code=x"
    assert not passed(api.post(f"/oauth/token?{query}", body, content_type=FORM))
    whole = f"{query}&grant_type=authorization_code&code=x"
    assert not passed(api.post(f"/oauth/token?{whole}", "x=1", content_type=FORM))


@pytest.mark.parametrize("client_id", [None, "", "unknown", "x" * 5000, "\u00fc"])
def test_an_unknown_client_is_401(api: Client, client_id: str | None, db: None) -> None:
    assert not passed(attempt(api, client_id=client_id))


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", json.dumps({"grant_type": "authorization_code"}), 415),
        ("text/plain", "grant_type=authorization_code", 415),
        ("multipart/form-data; boundary=x", "--x--", 415),
        ("", "grant_type=authorization_code", 415),
        (FORM, "a=" + "b" * (1024 * 1024), 413),
        (FORM, "grant_type=authorization_code&grant_type=authorization_code", 400),
        (FORM, "client_id=a&client_id=b", 400),
        (FORM, "&".join(f"a{n}=1" for n in range(100)), 400),
        (FORM, "client_id=%ff", 400),
        (FORM, "client_id=%00", 400),
        (FORM, "client_id=\u00fc", 400),
    ],
)
def test_a_body_that_is_no_plain_form_is_refused(
    api: Client, db: None, content_type: str, body: str, status: int
) -> None:
    response = api.post("/oauth/token", body, content_type=content_type)
    assert (response.status_code, response.json()["error"]) == (status, "invalid_request")


def test_a_switched_off_client_is_401(api: Client, without: dict[str, Any]) -> None:
    OAuthClient.objects.update(enabled=False)
    assert not passed(attempt(api, client_id=without["client_id"]))


def test_guessing_is_slowed_down(
    api: Client, without: dict[str, Any], by_post: dict[str, Any]
) -> None:
    from oauthserver import request_limits

    tries = request_limits.FAILED_TOKEN_REQUESTS.per_address + 2
    statuses = [attempt(api, client_id=without["client_id"]).status_code for _ in range(tries)]
    assert statuses[0] == 400
    assert statuses[-1] == 429
    # Nor does the right guess count any more.
    secret = {name: by_post[name] for name in ("client_id", "client_secret")}
    answer = flows.form_request(api, "/oauth/revoke", None, token="x", **secret)
    assert answer.status_code == 429


# private_key_jwt --------------------------------------------------------------------------


def rsa(kid: str = "one") -> jwk.JWK:
    return jwk.JWK.generate(kty="RSA", size=2048, kid=kid, use="sig", alg="RS256")


RSA_ONE, RSA_TWO = rsa("one"), rsa("two")
EC_ONE = jwk.JWK.generate(kty="EC", crv="P-256", kid="ec")


def public_set(*keys: jwk.JWK) -> dict[str, Any]:
    return {"keys": [key.export_public(as_dict=True) for key in keys]}


def signed(
    client_id: str,
    key: jwk.JWK = RSA_ONE,
    header: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    now = int(time.time())
    members = {
        "iss": client_id,
        "sub": client_id,
        "aud": BASE,
        "iat": now,
        "exp": now + 60,
        "jti": uuid.uuid4().hex,
        **claims,
    }
    algorithm = "ES256" if key.get("kty") == "EC" else "RS256"
    protected = {"alg": algorithm, "kid": key.get("kid"), "typ": "JWT", **(header or {})}
    token = jws.JWS(json.dumps({k: v for k, v in members.items() if v is not None}))
    token.add_signature(key, None, json.dumps(protected), None)
    return str(token.serialize(compact=True))


def present(api: Client, assertion: str, **more: Any) -> Any:
    fields = {"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE}
    return attempt(api, **{**fields, **more})


@pytest.fixture
def signing(api: Client, db: None) -> str:
    """A client registered with its keys inline."""
    return str(
        register(
            api, token_endpoint_auth_method="private_key_jwt", jwks=public_set(RSA_ONE, EC_ONE)
        )["client_id"]
    )


@pytest.mark.parametrize("key", [RSA_ONE, EC_ONE], ids=["RS256", "ES256"])
@pytest.mark.parametrize("audience", [BASE, f"{BASE}/oauth/token", ["x", BASE]], ids=str)
def test_a_good_assertion_passes(api: Client, signing: str, key: jwk.JWK, audience: Any) -> None:
    assert passed(present(api, signed(signing, key, aud=audience)))
    assert passed(present(api, signed(signing, key, aud=audience), client_id=signing))


def test_an_assertion_counts_once(api: Client, signing: str) -> None:
    assertion = signed(signing)
    assert passed(present(api, assertion))
    assert not passed(present(api, assertion))
    cache.clear()
    assert not passed(present(api, assertion))
    assert UsedAssertion.objects.count() == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "someone-else"},
        {"sub": "someone-else"},
        {"iss": None},
        {"aud": "https://evil.example"},
        {"aud": BASE + "/"},
        {"aud": BASE + "/oauth/authorize"},
        {"aud": None},
        {"aud": []},
        {"aud": {"a": BASE}},
        {"exp": None},
        {"exp": 1},
        {"exp": "soon"},
        {"exp": True},
        {"exp": int(time.time()) - 61},
        {"exp": int(time.time()) + 10 * 24 * 3600},
        {"exp": 10**400},
        {"nbf": int(time.time()) + 600},
        {"iat": int(time.time()) + 600},
        {"iat": "now"},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "x" * 600},
    ],
)
def test_an_assertion_with_wrong_claims_is_refused(
    api: Client, signing: str, claims: dict[str, Any]
) -> None:
    assert not passed(present(api, signed(signing, **claims), client_id=signing))


def test_clocks_may_differ_by_a_minute(api: Client, signing: str) -> None:
    now = int(time.time())
    assert passed(present(api, signed(signing, exp=now - 30)))
    assert passed(present(api, signed(signing, nbf=now + 30, iat=now + 30)))


def test_a_foreign_key_is_refused(api: Client, signing: str) -> None:
    assert not passed(present(api, signed(signing, RSA_TWO)))
    assert not passed(present(api, signed(signing, rsa("one"))))


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "PS256", "RS1", "", None, 7])
def test_only_two_algorithms_count(api: Client, signing: str, algorithm: Any) -> None:
    good = signed(signing).split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "one"}).encode())
    for signature in (good[2], ""):
        forged = f"{header.decode().rstrip('=')}.{good[1]}.{signature}"
        assert not passed(present(api, forged, client_id=signing))


def test_the_public_key_is_no_shared_secret(api: Client, signing: str) -> None:
    pem = RSA_ONE.export_to_pem()
    secret = jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(pem).decode().rstrip("="))
    now = int(time.time())
    token = jws.JWS(
        json.dumps({"iss": signing, "sub": signing, "aud": BASE, "exp": now + 60, "jti": "a"})
    )
    token.add_signature(secret, None, json.dumps({"alg": "HS256", "kid": "one"}), None)
    assert not passed(present(api, token.serialize(compact=True)))


@pytest.mark.parametrize(
    "assertion", ["", "x", "a.b.c", "..", "a.b", "a.b.c.d", "e30.e30.", "\u00fc", "x" * 9000]
)
def test_a_malformed_assertion_is_refused(api: Client, signing: str, assertion: str) -> None:
    assert not passed(present(api, assertion, client_id=signing))


def test_a_signing_client_cannot_come_without(api: Client, signing: str) -> None:
    assert not passed(attempt(api, client_id=signing))
    assert not passed(attempt(api, client_id=signing, client_secret="x"))
    assert not passed(present(api, signed(signing), client_assertion_type="urn:other"))
    assert not passed(present(api, signed(signing), client_assertion_type=None))


def test_an_assertion_for_a_client_without_keys_is_refused(
    api: Client, without: dict[str, Any]
) -> None:
    assert not passed(present(api, signed(without["client_id"])))


def test_the_registered_algorithm_is_the_only_one(api: Client, db: None) -> None:
    client_id = register(
        api,
        token_endpoint_auth_method="private_key_jwt",
        token_endpoint_auth_signing_alg="ES256",
        jwks=public_set(RSA_ONE, EC_ONE),
    )["client_id"]
    assert not passed(present(api, signed(client_id, RSA_ONE)))
    assert passed(present(api, signed(client_id, EC_ONE)))


@pytest.fixture
def chatgpt(browser: Client, host: DocumentHost) -> tuple[str, str, Pkce]:
    """ChatGPT with an approved code; its keys are published, the first only."""
    document = at(host.base, CHATGPT)
    client_id = host.publish("/oauth/client.json", document)
    host.publish("/oauth/jwks.json", public_set(RSA_ONE))
    pkce = Pkce()
    code = flows.code_for(browser, client_id, document["redirect_uris"][0], pkce)
    return client_id, code, pkce


def test_chatgpt_redeems_its_code_with_a_signature(
    api: Client, chatgpt: tuple[str, str, Pkce]
) -> None:
    client_id, code, pkce = chatgpt
    proof = {"client_assertion": signed(client_id), "client_assertion_type": ASSERTION_TYPE}
    redirect_uri = CHATGPT["redirect_uris"][0]
    tokens = flows.redeem(api, client_id, redirect_uri, code, pkce, **proof)
    assert tokens.status_code == 200, tokens.content
    proof["client_assertion"] = signed(client_id, aud=f"{BASE}/oauth/token")
    refreshed = flows.refresh(api, client_id, tokens.json()["refresh_token"], **proof)
    assert refreshed.status_code == 200


def test_a_wrong_signature_is_not_forgiven_because_none_is_offered(
    api: Client, chatgpt: tuple[str, str, Pkce]
) -> None:
    client_id, _, _ = chatgpt
    assert passed(attempt(api, client_id=client_id))
    assert not passed(present(api, signed(client_id, RSA_TWO), client_id=client_id))


def test_keys_are_fetched_once_and_again_for_an_unknown_one(
    api: Client, host: DocumentHost, chatgpt: tuple[str, str, Pkce]
) -> None:
    client_id, _, _ = chatgpt
    for _ in range(3):
        assert passed(present(api, signed(client_id)))
    assert host.asked.count("/oauth/jwks.json") == 1
    host.publish("/oauth/jwks.json", public_set(RSA_TWO))
    assert passed(present(api, signed(client_id, RSA_TWO)))
    assert host.asked.count("/oauth/jwks.json") == 2
    for _ in range(5):
        assert not passed(present(api, signed(client_id, rsa("three"))))
    assert host.asked.count("/oauth/jwks.json") == 2


def test_a_key_host_that_is_down_is_not_asked_for_every_assertion(
    api: Client, host: DocumentHost, chatgpt: tuple[str, str, Pkce]
) -> None:
    client_id, _, _ = chatgpt
    del host.pages["/oauth/jwks.json"]
    for _ in range(4):
        assert not passed(present(api, signed(client_id)))
    assert host.asked.count("/oauth/jwks.json") == 1


@pytest.mark.parametrize("uri", ["https://10.0.0.1/k", "https://169.254.169.254/k"])
def test_keys_are_never_fetched_from_inside_the_network(
    api: Client, db: None, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oauthserver import guarded_fetch

    connected: list[Any] = []
    monkeypatch.setattr(guarded_fetch, "_connected", lambda *a: connected.append(a))
    client_id = register(api, token_endpoint_auth_method="private_key_jwt", jwks_uri=uri)
    assert not passed(present(api, signed(client_id["client_id"])))
    assert connected == []


@pytest.mark.parametrize("keys", [{}, {"keys": 1}, {"keys": [1, None, {"kty": "RSA"}]}, []])
def test_a_broken_key_set_is_a_refusal_and_no_error(
    api: Client, host: DocumentHost, chatgpt: tuple[str, str, Pkce], keys: Any
) -> None:
    client_id, _, _ = chatgpt
    host.publish("/oauth/jwks.json", keys)
    assert not passed(present(api, signed(client_id)))


def test_if_the_use_cannot_be_written_down_the_assertion_does_not_count(
    api: Client, signing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def down(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("read only")

    monkeypatch.setattr(UsedAssertion.objects, "create", down)
    response = present(api, signed(signing))
    assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")


def test_the_whole_flow_with_a_secret(
    browser: Client, api: Client, by_basic: dict[str, Any]
) -> None:
    pkce = Pkce()
    header = basic(by_basic["client_id"], by_basic["client_secret"])
    code = flows.code_for(browser, by_basic["client_id"], CALLBACK, pkce)
    fields = {"code": code, "redirect_uri": CALLBACK, "code_verifier": pkce.verifier}
    tokens = flows.token_request(api, header, grant_type="authorization_code", **fields)
    assert tokens.status_code == 200
    token = tokens.json()["refresh_token"]
    assert flows.refresh(api, by_basic["client_id"], token).status_code == 401
    again = flows.token_request(api, header, grant_type="refresh_token", refresh_token=token)
    assert again.status_code == 200
