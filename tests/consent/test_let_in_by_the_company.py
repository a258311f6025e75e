"""What the company's identity provider lets a client do: seen and ended by the person it is for."""

import pytest
from django.contrib.auth.models import Permission, User
from oauth2_provider.models import AccessToken

from gateway_site.models import AuditEvent
from oauthserver import bearer_tokens, trusted_issuers
from oauthserver.bearer_tokens import TokenHolder
from oauthserver.models import TrustedIssuer, VouchedAccess
from tests.consent.people_and_servers import browser_of, person
from tests.consent.test_consent_page import text_of
from tests.gateway_site.test_withdrawn_under_way import ISSUER, Company

pytestmark = pytest.mark.django_db
LIST = "/admin/oauthserver/vouchedaccess/"


@pytest.fixture
def company() -> Company:
    return Company()


def let_in(company: Company) -> str:
    answer = company.vouched()()
    assert answer.status_code == 200, answer.content
    return str(answer.json()["access_token"])


def works(token: str) -> bool:
    bearer_tokens.forget()
    found = bearer_tokens.holder_for_any_resource([f"Bearer {token}".encode()])
    return isinstance(found, TokenHolder)


def test_a_person_sees_whom_their_company_let_in_and_ends_it(company: Company) -> None:
    browser = browser_of(company.user)
    assert "Let in by your company" not in text_of(browser.get("/connections/"))
    token = let_in(company)
    page = text_of(browser.get("/connections/"))
    assert "Let in by your company" in page and "Assistant" in page
    assert "by idp.corp.example" in page
    access = VouchedAccess.objects.get()
    end = f"/connections/company/{access.pk}/end"
    assert browser_of(person("other")).post(end).status_code == 404
    assert browser.get(end).status_code == 405
    assert works(token)
    ended = text_of(browser.post(end, follow=True))
    assert "Assistant can no longer use tools as you" in ended
    assert "Let in by your company" not in ended
    assert not works(token)
    event = AuditEvent.objects.filter(kind="client.vouched_access_ended").get()
    assert (event.actor, event.details["issuer"]) == (company.user.username, ISSUER)


def test_what_a_person_agreed_to_themselves_stays(company: Company) -> None:
    own = str(company.redemption()().json()["access_token"])
    let_in(company)
    VouchedAccess.objects.update(client=AccessToken.objects.order_by("pk")[0].application)
    browser_of(company.user).post(f"/connections/company/{VouchedAccess.objects.get().pk}/end")
    assert works(own)


def test_the_next_assertion_lets_it_in_again_and_one_row_says_so(company: Company) -> None:
    ask = company.vouched()
    ask()
    access = VouchedAccess.objects.get()
    browser = browser_of(company.user)
    browser.post(f"/connections/company/{access.pk}/end")
    client = company.client
    let_in(company)
    VouchedAccess.objects.exclude(pk=access.pk).get()
    access.refresh_from_db()
    assert (access.client, access.ended_at is None) == (client, False)


def test_who_is_trusted_no_longer_lets_nobody_stay(company: Company) -> None:
    token = let_in(company)
    trusted_issuers.trust(ISSUER, {"enabled": False}, actor=None)
    assert not works(token)
    trusted_issuers.trust(ISSUER, {"enabled": True}, actor=None)
    again = let_in(company)
    trusted_issuers.drop(TrustedIssuer.objects.get(), actor=None)
    assert not works(again)
    assert not VouchedAccess.objects.filter(ended_at=None).exists()


def test_an_administrator_ends_it_and_is_asked_first(company: Company) -> None:
    token = let_in(company)
    boss = browser_of(User.objects.create_superuser("boss", "boss@corp.example", "pw-of-boss"))
    form = {"action": "end_selected", "_selected_action": [VouchedAccess.objects.get().pk]}
    assert "Are you sure?" in text_of(boss.post(LIST, form))
    assert works(token)
    assert "1 ended." in text_of(boss.post(LIST, {**form, "confirmed": "yes"}, follow=True))
    assert not works(token)
    assert "1 access" in text_of(boss.get(LIST, {"standing": "over"}))
    assert "0 access" in text_of(boss.get(LIST, {"standing": "stands"}))
    row = VouchedAccess.objects.get()
    assert boss.post(f"{LIST}{row.pk}/change/", {"scopes": "all"}).status_code == 403
    reader = person("reader", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_vouchedaccess"))
    browser_of(reader).post(LIST, {**form, "confirmed": "yes"})
    assert browser_of(reader).get(f"{LIST}{row.pk}/change/").status_code == 200
