"""Who only comes by a provider adds a second factor with a fresh sign-in there."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, configured

pytestmark = pytest.mark.django_db(transaction=True)
PAGES = ["/accounts/2fa/totp/activate/", "/accounts/2fa/webauthn/add/"]


@pytest.fixture
def provider(transactional_db) -> Iterator[OpenIdProvider]:
    claims = {"email": "grace@contoso.com", "email_verified": True}
    with OpenIdProvider(claims=claims).serve() as provider:
        configured(provider)
        yield provider


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    ("auth_time", "opens"), [(0, True), (-3_500, True), (-3_700, False), (None, True)]
)
def test_a_factor_needs_a_fresh_sign_in(provider, page: str, auth_time: Any, opens: bool) -> None:
    said = None if auth_time is None else int(time.time()) + auth_time
    provider.token_claims = {"auth_time": said}
    client = browser()
    arrive(client, provider)
    answer = client.get(page)
    assert answer.status_code == (200 if opens else 302)
    if not opens:
        assert answer.headers["Location"].startswith("/accounts/oidc/company/login/?next=")
        assert client.get("/accounts/2fa/").status_code == 200


def test_without_auth_time_the_arrival_counts_for_ten_minutes(provider) -> None:
    provider.token_claims = {"auth_time": None}
    client = browser()
    arrive(client, provider)
    session = client.session
    for record in session["account_authentication_methods"]:
        record["at"] -= 700
    session.save()
    assert client.get(PAGES[0]).status_code == 302
