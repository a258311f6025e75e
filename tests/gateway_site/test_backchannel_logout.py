"""A provider says that somebody signed out there (OpenID Connect Back-Channel Logout 1.0)."""

import base64
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import User
from django.test import Client
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT
from oauth2_provider.models import get_access_token_model

from gateway_site.identity.stranger_limits import HURRIED_KEYS
from gateway_site.models import AuditEvent
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, change, configured, signed_in

pytestmark = pytest.mark.django_db(transaction=True)
CLAIMS = {"email": "grace@contoso.com", "email_verified": True, "preferred_username": "grace"}
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
def provider(transactional_db) -> Iterator[OpenIdProvider]:
    with OpenIdProvider(claims=dict(CLAIMS)).serve() as provider:
        yield provider


@pytest.fixture
def company(provider) -> SocialApp:
    return configured(provider)


def arrived(provider: OpenIdProvider, sid: str = "there-1") -> Client:
    """A browser that signed in on a session of the provider."""
    provider.token_claims = {"sid": sid}
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    return client


def logout_token(
    provider: OpenIdProvider, *, key: JWK | None = None, header: Any = None, **claims: Any
) -> str:
    """Sign a logout token; None takes a claim out."""
    now, signer = int(time.time()), key or provider.signing_key
    said = {
        "iss": provider.url,
        "aud": provider.client_id,
        "iat": now,
        "exp": now + 120,
        "jti": secrets.token_urlsafe(8),
        "events": {EVENT: {}},
        "sub": provider.subject,
        **claims,
    }
    token = JWT(
        header={"alg": "RS256", "typ": "logout+jwt", "kid": signer.kid, **(header or {})},
        claims={name: value for name, value in said.items() if value is not None},
    )
    token.make_signed_token(signer)
    return str(token.serialize())


def send(token: str, name: str = "company", **form: str) -> Any:
    """Post a logout token as a provider's server does: without cookies."""
    address = f"/accounts/oidc/{name}/backchannel-logout/"
    return Client(SERVER_NAME="localhost", SERVER_PORT="8000", enforce_csrf_checks=True).post(
        address, {"logout_token": token, **form}
    )


def still_signed_in(client: Client) -> bool:
    return client.get("/connections/").status_code == 200


def test_the_session_that_is_named_ends_and_no_other(provider, company) -> None:
    here, elsewhere = arrived(provider, "there-1"), arrived(provider, "there-2")
    answer = send(logout_token(provider, sid="there-1"))
    assert answer.status_code == 200 and "no-store" in answer.headers["Cache-Control"]
    assert not still_signed_in(here) and still_signed_in(elsewhere)
    event = AuditEvent.objects.get(kind="person.signed_out_by_provider")
    assert event.target == "grace"
    assert event.details == {"provider": "company", "sessions": 1, "access_ended": False}


def test_a_session_alone_is_enough_to_find_the_person(provider, company) -> None:
    here = arrived(provider, "there-1")
    assert send(logout_token(provider, sid="there-1", sub=None)).status_code == 200
    assert not still_signed_in(here)


def test_without_a_session_all_of_the_persons_sessions_by_this_provider_end(
    provider, company
) -> None:
    browsers = [arrived(provider, "there-1"), arrived(provider, "there-2")]
    grace = User.objects.get(username="grace")
    local = browser()
    local.force_login(grace, backend="django.contrib.auth.backends.ModelBackend")
    assert still_signed_in(local)
    assert send(logout_token(provider)).status_code == 200
    assert [still_signed_in(client) for client in browsers] == [False, False]
    assert still_signed_in(local), "a local sign-in is not the provider's to end"


def test_a_session_of_somebody_else_is_not_ended_by_a_wrong_pair(provider, company) -> None:
    here = arrived(provider, "there-1")
    assert send(logout_token(provider, sub="s-2", sid="there-1")).status_code == 200
    assert still_signed_in(here)


def test_a_session_without_a_name_ends_with_any_of_its_persons(provider, company) -> None:
    provider.token_claims = {}
    here = browser()
    arrive(here, provider)
    assert still_signed_in(here)
    assert send(logout_token(provider, sid="there-9", sub=None)).status_code == 200
    assert send(logout_token(provider, sid="there-9", sub="s-2")).status_code == 200
    assert still_signed_in(here)
    assert send(logout_token(provider, sid="there-9")).status_code == 200
    assert not still_signed_in(here)


def test_a_token_that_is_nested_without_end_is_refused(provider, company) -> None:
    nested = base64.urlsafe_b64encode(b"[" * 45_000).decode()
    assert send(f"{nested}.e30.e30").status_code == 400


def test_nobody_to_sign_out_is_fine(provider, company) -> None:
    assert send(logout_token(provider, sub="nobody")).status_code == 200


@pytest.mark.parametrize("chosen", [False, True])
def test_clients_lose_their_access_where_the_administrator_chose_so(
    provider, company, chosen: bool
) -> None:
    change(company, sign_out_ends_access=chosen)
    arrived(provider)
    grace = User.objects.get(username="grace")
    tokens = get_access_token_model().objects
    tokens.create(user=grace, token=secrets.token_hex(), expires="2100-01-01T00:00:00Z", scope="")
    assert send(logout_token(provider, sid="there-1")).status_code == 200
    assert tokens.filter(user=grace).exists() is not chosen


def test_a_logout_token_counts_once(provider, company) -> None:
    token = logout_token(provider)
    assert send(token).status_code == 200
    here = arrived(provider)
    again = send(token)
    assert again.status_code == 400 and "came before" in again.json()["error_description"]
    assert still_signed_in(here)


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"iss": "https://login.example"}, "not the issuer"),
        ({"iss": None}, "not the issuer"),
        ({"aud": "another"}, "another client"),
        ({"aud": None}, "another client"),
        ({"iat": None}, "no iat"),
        ({"iat": "now"}, "no iat"),
        ({"iat": int(time.time()) - 3_000}, "old"),
        ({"iat": int(time.time()) + 3_000}, "future"),
        ({"exp": int(time.time()) - 100}, "expired"),
        ({"exp": "soon"}, "no time"),
        ({"jti": None}, "no jti"),
        ({"jti": 7}, "jti is not usable"),
        ({"nonce": "n"}, "no nonce"),
        ({"events": None}, "events"),
        ({"events": [EVENT]}, "events"),
        ({"events": {"https://example.com/other": {}}}, "events"),
        ({"events": {EVENT: True}}, "events"),
        ({"sub": None}, "neither"),
        ({"sub": ["s-1"]}, "sub is not usable"),
        ({"sid": "s" * 501}, "sid is not usable"),
    ],
)
def test_a_token_that_is_not_by_the_book_ends_nothing(
    provider, company, claims: dict[str, Any], words: str
) -> None:
    here = arrived(provider)
    refused = send(logout_token(provider, **claims))
    assert refused.status_code == 400 and refused.json()["error"] == "invalid_request"
    assert words in refused.json()["error_description"]
    assert still_signed_in(here)


def test_providers_from_before_exp_was_required_are_understood(provider, company) -> None:
    here = arrived(provider)
    assert send(logout_token(provider, exp=None, header={"typ": "JWT"})).status_code == 200
    assert not still_signed_in(here)


def test_what_is_signed_wrongly_or_is_no_logout_token_ends_nothing(provider, company) -> None:
    here = arrived(provider)
    stranger = JWK.generate(kty="RSA", size=2048, kid=provider.signing_key.kid, use="sig")
    secret = JWK.generate(kty="oct", size=256, kid="s")
    for token in (
        logout_token(provider, key=stranger),
        logout_token(provider, key=secret, header={"alg": "HS256"}),
        logout_token(provider, header={"typ": "at+jwt"}),
        provider.id_token("", "token"),
        "",
        "a.b.c",
        "x" * 100_000,
    ):
        assert send(token).status_code == 400
    assert still_signed_in(here)


def test_a_new_key_of_the_provider_is_fetched(provider, company) -> None:
    here = arrived(provider)
    provider.rotate()
    from django.core.cache import cache

    cache.clear()
    assert send(logout_token(provider, sid="there-1")).status_code == 200
    assert not still_signed_in(here)


def test_a_new_key_is_fetched_also_right_after_the_old_ones_were(provider, company) -> None:
    """A provider says it once, and does not know when its keys were last read."""
    for _ in range(2):
        here = arrived(provider, "there-1")
        provider.rotate()
        asked = provider.seen.count("/jwks")
        assert send(logout_token(provider, sid="there-1")).status_code == 200
        assert provider.seen.count("/jwks") == asked + 1
        assert not still_signed_in(here)


def test_who_makes_keys_up_has_the_provider_asked_a_few_times_and_nobody_else_pays(
    provider, company
) -> None:
    here = arrived(provider, "there-1")
    asked = provider.seen.count("/jwks")
    for _ in range(12):
        refused = send(logout_token(provider, key=provider.new_key(), sid="there-1"))
        assert refused.status_code == 400
    assert provider.seen.count("/jwks") == asked + HURRIED_KEYS.per_address
    assert still_signed_in(here)
    provider.rotate()
    token = logout_token(provider, sid="there-1")
    assert send(token).json()["error"] == "temporarily_unavailable"
    elsewhere = Client(SERVER_NAME="localhost", SERVER_PORT="8000", REMOTE_ADDR="192.0.2.7")
    address = "/accounts/oidc/company/backchannel-logout/"
    assert elsewhere.post(address, {"logout_token": token}).status_code == 200
    assert not still_signed_in(here)


def test_a_known_key_costs_no_request_however_wrong_the_rest_is(provider, company) -> None:
    arrived(provider)
    asked = provider.seen.count("/jwks")
    forged = JWK.generate(kty="RSA", size=2048, kid=provider.signing_key.kid, use="sig")
    for token in (logout_token(provider, key=forged), logout_token(provider, aud="another")):
        assert send(token).status_code == 400
    assert provider.seen.count("/jwks") == asked


def test_another_provider_cannot_end_what_this_one_began(provider, company) -> None:
    with OpenIdProvider(claims=dict(CLAIMS)).serve() as other:
        app = SocialApp(provider_id="other", name="Other")
        from gateway_site import people_actions

        values = {"client_id": other.client_id, "settings": {"server_url": other.url}}
        people_actions.save_identity_provider(app, values, secret="x", actor=None)
        here = arrived(provider, "there-1")
        assert send(logout_token(other, sid="there-1"), "other").status_code == 200
        assert send(logout_token(other, sid="there-1"), "company").status_code == 400
        assert still_signed_in(here)


def test_only_posts_to_a_known_provider_are_heard(provider, company) -> None:
    address = "/accounts/oidc/company/backchannel-logout/"
    assert browser().get(address).status_code == 405
    assert send(logout_token(provider), "unknown").status_code == 404
