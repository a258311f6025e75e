"""Who begins to sign in, or sends what looks like an answer, fills no table from one address."""

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.cache import cache

from gateway_site import people_actions, saml_library
from gateway_site.identity import stranger_limits
from oauthserver.request_limits import Limit
from tests.fakes.openid_provider import OpenIdProvider
from tests.fakes.saml_provider import SamlProvider
from tests.gateway_site import arriving
from tests.gateway_site.arriving import browser, signed_in

pytestmark = pytest.mark.django_db
HERE, SHARED, ELSEWHERE = "203.0.113.5", "198.51.100.7", "203.0.113.6"
needs_saml = pytest.mark.skipif(not saml_library.is_there(), reason=saml_library.MISSING)


@pytest.fixture(autouse=True)
def small_shares(monkeypatch: Any, settings: Any) -> None:
    """Let few be many."""
    settings.GATEWAY_SHARED_EGRESS = ["198.51.100.0/24"]
    for name in ("SIGN_INS_BEGUN", "PROVEN_ANSWERS", "UNPROVEN_ANSWERS"):
        limit = getattr(stranger_limits, name)
        monkeypatch.setattr(stranger_limits, name, Limit(limit.name, 3, 6, 8))


@pytest.fixture
def company(db):
    cache.clear()
    with OpenIdProvider(claims={"email": "ada@contoso.com", "email_verified": True}).serve() as one:
        arriving.configured(one)
        yield one


def begin(address: str, client: Any = None) -> Any:
    client = client or browser()
    return client.post(
        "/accounts/oidc/company/login/", REMOTE_ADDR=address, HTTP_ACCEPT="text/html"
    )


def test_one_address_begins_so_many_sign_ins_and_the_next_is_told_when_to_come_again(company):
    assert [begin(HERE).status_code for _ in range(5)] == [302, 302, 302, 429, 429]
    assert Session.objects.count() == 3
    refused = begin(HERE)
    assert 0 < int(refused.headers["Retry-After"]) <= 300
    assert refused.headers["Cache-Control"] == "no-store"
    page = refused.content.decode()
    assert "Too many people are signing in" in page and "GATEWAY_SHARED_EGRESS" in page
    assert "gateway-session" not in refused.cookies
    assert begin(ELSEWHERE).status_code == 302
    assert [begin(SHARED).status_code for _ in range(4)] == [302] * 4


def test_everybody_together_leaves_so_much(company):
    assert [begin(f"192.0.2.{n}").status_code for n in range(10)] == [302] * 8 + [429] * 2
    assert Session.objects.count() == 8


def test_who_has_a_session_already_begins_as_often_as_they_like(company):
    client = browser()
    assert [begin(HERE, client).status_code for _ in range(5)] == [302] * 5
    assert Session.objects.count() == 1
    # A cookie that names no session is no session.
    for number in range(3):
        stranger = browser()
        stranger.cookies["gateway-session"] = f"{number}" * 32
        status = begin(HERE, stranger).status_code
    assert status == 429


def test_the_address_that_chooses_the_provider_counts_too(company):
    settings = {"server_url": company.url, "sign_in_domains": ["contoso.com"]}
    arriving.configured(company, "another", **settings)

    def choose() -> int:
        form = {"address": "ada@contoso.com"}
        return int(browser().post("/accounts/choose/", form, REMOTE_ADDR=HERE).status_code)

    assert [choose() for _ in range(4)] == [302, 302, 302, 429]


@pytest.fixture
def saml_company(db):
    from allauth.socialaccount.models import SocialApp

    cache.clear()
    with SamlProvider(attributes={"email": ["ada@contoso.com"]}).serve() as provider:
        app = SocialApp(provider_id="company", name="Company")
        settings = {"preset": "saml", "server_url": f"{provider.url}/metadata.xml"}
        people_actions.save_identity_provider(app, {"settings": settings}, actor=None)
        yield provider


@needs_saml
def test_answers_that_no_provider_vouches_for_are_few_and_do_not_hold_up_real_ones(saml_company):
    def send(value: str) -> Any:
        form = {"SAMLResponse": value}
        return browser().post("/accounts/saml/company/acs/", form, REMOTE_ADDR=HERE)

    assert [send("x" * 1000).status_code for _ in range(4)] == [302, 302, 302, 429]
    assert send("PHg+").status_code == 429
    assert Session.objects.count() == 3
    client = browser()
    sent = client.post("/accounts/saml/company/login/?next=/", REMOTE_ADDR=HERE)
    answer = saml_company.answer_to(sent.headers["Location"])
    session = client.cookies.pop("gateway-session")
    came = client.post("/accounts/saml/company/acs/", answer, REMOTE_ADDR=HERE)
    assert came.status_code == 302
    client.cookies["gateway-session"] = session.value
    client.get(came.headers["Location"])
    assert signed_in(client)
