"""Two browsers in which one person comes for the first time, at the very same moment."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.internal.flows import signup
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from gateway_site.sign_in import AccountAdapter, SocialAccountAdapter
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, configured, leave, signed_in

pytestmark = pytest.mark.django_db(transaction=True)
CLAIMS = {"email": "grace@contoso.com", "email_verified": True, "preferred_username": "grace"}
# Where the second arrival may overtake the first: before and after it looked at the address.
MOMENTS = [
    (SocialAccountAdapter, "is_open_for_signup"),
    (signup, "assess_unique_email"),
    (AccountAdapter, "clean_username"),
]


@pytest.fixture
def provider(transactional_db) -> Iterator[OpenIdProvider]:
    with OpenIdProvider(claims=dict(CLAIMS)).serve() as provider:
        configured(provider)
        yield provider


def overtaken(monkeypatch: Any, moment: tuple[Any, str], happens: Callable[[], None]) -> None:
    """Have something happen once, at a moment of the next first sign-in."""
    owner, name = moment
    before, once = getattr(owner, name), [happens]

    def wait(*args: Any, **kwargs: Any) -> Any:
        if once:
            once.pop()()
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, wait)


def follow(client: Client, answer: Any) -> None:
    """Go where the browser is sent until that is the page the person wanted."""
    for _ in range(3):
        assert answer.status_code == 302, answer.content.decode()
        if answer.headers["Location"] == "/":
            return
        answer = client.get(answer.headers["Location"])
    raise AssertionError(answer.headers["Location"])


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[1])
@pytest.mark.parametrize("subject", ["s-1", "s-2"])
def test_they_end_in_one_account(provider, monkeypatch, moment, subject: str) -> None:
    faster: list[Client] = []

    def arrives() -> None:
        faster.append(browser())
        slow, provider.subject = provider.subject, subject
        arrive(faster[0], provider)
        provider.subject = slow

    overtaken(monkeypatch, moment, arrives)
    slower = browser()
    follow(slower, arrive(slower, provider))
    assert signed_in(slower) and signed_in(faster[0])
    assert User.objects.count() == 1
    assert EmailAddress.objects.filter(verified=True).count() == 1
    assert SocialAccount.objects.count() == len({"s-1", subject})


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[1])
def test_two_people_who_want_one_name_both_get_an_account(provider, monkeypatch, moment) -> None:
    def another_arrives() -> None:
        provider.subject, provider.claims["email"] = "s-2", "hopper@contoso.com"
        arrive(browser(), provider)
        provider.subject, provider.claims["email"] = "s-1", "grace@contoso.com"

    overtaken(monkeypatch, moment, another_arrives)
    slower = browser()
    arrive(slower, provider)
    assert signed_in(slower)
    assert set(User.objects.values_list("email", flat=True)) == {
        "grace@contoso.com",
        "hopper@contoso.com",
    }
    assert SocialAccount.objects.count() == 2


def test_no_half_an_account_is_left_and_nobody_sees_an_error(provider) -> None:
    """Really at once; which moments meet is up to the machine."""

    def come(_: int) -> bool:
        try:
            client = browser()
            sent = leave(client)
            answer = provider.answer_to(sent.headers["Location"])
            came = client.get("/accounts/oidc/company/login/callback/", answer)
            follow(client, came)
            return signed_in(client)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(come, range(6))) == [True] * 6
    assert User.objects.count() == SocialAccount.objects.count() == 1
