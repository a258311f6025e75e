"""OpenID Connect: offered with a key, and not mentioned without one."""

import json
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from jwcrypto import jwk, jwt

from oauthserver import checks, openid_views
from oauthserver.models import OAuthClient
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, Session
from tests.oauthserver.flows import BASE, Pkce

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]

KEY = jwk.JWK.generate(kty="RSA", size=2048).export_to_pem(private_key=True, password=None)
SCOPE = "openid email offline_access profile"


@pytest.fixture
def signing_key(settings: Any) -> None:
    settings.OIDC_RSA_PRIVATE_KEY = KEY.decode()
    settings.OAUTH2_PROVIDER = {
        **settings.OAUTH2_PROVIDER,
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": KEY.decode(),
    }


def sign_in(browser: Client, api: Client, public: OAuthClient, **more: Any) -> dict[str, Any]:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce, **more)
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert answer.status_code == 200, answer.content
    return answer.json()


def user_info(api: Client, token: str) -> Any:
    return api.get("/oauth/userinfo", headers={"Authorization": f"Bearer {token}"})


def test_without_a_key_nothing_is_offered(api: Client, session: Session) -> None:
    assert "id_token" not in session.tokens
    assert user_info(api, session.tokens["access_token"]).status_code == 404
    assert api.get("/oauth/jwks").status_code == 404
    document = api.get("/.well-known/openid-configuration").json()
    assert "openid" not in document["scopes_supported"]


@pytest.mark.usefixtures("signing_key")
def test_with_a_key_the_metadata_is_complete(api: Client) -> None:
    document = api.get("/.well-known/openid-configuration").json()
    assert document == api.get("/.well-known/oauth-authorization-server").json()
    assert document["userinfo_endpoint"] == f"{BASE}/oauth/userinfo"
    assert document["jwks_uri"] == f"{BASE}/oauth/jwks"
    assert document["id_token_signing_alg_values_supported"] == ["RS256"]
    assert document["subject_types_supported"] == ["public"]
    assert {"openid", "email", "profile", "offline_access"} < set(document["scopes_supported"])
    resource = api.get("/.well-known/oauth-protected-resource/v1/mcp/tools").json()
    assert resource["scopes_supported"] == ["mcp:tools"]
    keys = api.get("/oauth/jwks").json()["keys"]
    assert set(keys[0]) == {"kty", "n", "e", "kid", "alg", "use"}
    assert checks.check_signing_key(None) == []


@pytest.mark.usefixtures("signing_key")
def test_an_id_token_says_who_and_is_signed(
    browser: Client, api: Client, public: OAuthClient, alice: User
) -> None:
    tokens = sign_in(browser, api, public, scope=SCOPE, nonce="n-1")
    assert tokens["scope"] == "mcp:tools offline_access openid email profile"
    keys = jwk.JWKSet.from_json(api.get("/oauth/jwks").content.decode())
    token = jwt.JWT(jwt=tokens["id_token"], key=keys, algs=["RS256"])
    claims = json.loads(token.claims)
    assert claims["iss"] == BASE
    assert claims["aud"] == public.client_id
    assert claims["sub"] == str(alice.pk)
    assert claims["nonce"] == "n-1"
    assert claims["email"] == "alice@example.com"
    assert claims["preferred_username"] == "alice"
    assert 0 < claims["exp"] - claims["iat"] <= 3600
    refreshed = flows.refresh(api, public.client_id, tokens["refresh_token"])
    assert refreshed.status_code == 200
    assert "id_token" not in refreshed.json()
    assert refreshed.json()["scope"] == tokens["scope"]


@pytest.mark.usefixtures("signing_key")
@pytest.mark.parametrize(
    ("scope", "names"),
    [
        ("openid", {"sub"}),
        ("openid email", {"sub", "email", "email_verified"}),
        ("openid profile", {"sub", "preferred_username"}),
    ],
)
def test_user_info_holds_what_the_scopes_cover(
    browser: Client, api: Client, public: OAuthClient, scope: str, names: set[str]
) -> None:
    tokens = sign_in(browser, api, public, scope=scope)
    response = user_info(api, tokens["access_token"])
    assert response.status_code == 200
    assert set(response.json()) == names
    assert response["Cache-Control"] == "no-store"


@pytest.mark.usefixtures("signing_key")
@pytest.mark.parametrize("verified", [True, False])
def test_an_address_counts_as_verified_only_if_it_is(
    browser: Client, api: Client, public: OAuthClient, alice: User, verified: bool
) -> None:
    EmailAddress.objects.create(user=alice, email="Alice@example.com", verified=verified)
    tokens = sign_in(browser, api, public, scope="openid email")
    facts = user_info(api, tokens["access_token"]).json()
    assert facts["email_verified"] is verified
    assert facts["sub"] == str(alice.pk)


@pytest.mark.usefixtures("signing_key")
def test_user_info_wants_a_token_with_the_scope(
    browser: Client, api: Client, public: OAuthClient
) -> None:
    tokens = sign_in(browser, api, public)
    assert "id_token" not in tokens
    lacking = user_info(api, tokens["access_token"])
    assert lacking.status_code == 403
    assert 'error="insufficient_scope"' in lacking["WWW-Authenticate"]
    for bad in ("", "x", tokens["refresh_token"]):
        refused = user_info(api, bad)
        assert refused.status_code == 401
        assert refused["WWW-Authenticate"].startswith("Bearer ")
    inside = api.get(f"/oauth/userinfo?access_token={tokens['access_token']}")
    assert inside.status_code == 401


def test_a_weak_key_is_reported(settings: Any) -> None:
    weak = jwk.JWK.generate(kty="RSA", size=1024).export_to_pem(private_key=True, password=None)
    settings.OIDC_RSA_PRIVATE_KEY = weak.decode()
    assert [message.id for message in checks.check_signing_key(None)] == ["oauthserver.E001"]


@pytest.mark.usefixtures("signing_key")
def test_a_database_that_is_down_is_no_verdict_on_the_token(
    browser: Client, api: Client, public: OAuthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = sign_in(browser, api, public, scope=SCOPE)["access_token"]

    def down(*args: Any) -> None:
        raise OperationalError("connection lost")

    with monkeypatch.context() as broken:
        broken.setattr(openid_views, "holder_for_any_resource", down)
        answer = user_info(api, token)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert user_info(api, token).status_code == 200
    assert api.put("/oauth/userinfo").status_code == 405
