"""Who left the company only at its provider: asked again there, or signed in again in time."""

import asyncio
import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import connections
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from gateway_site import identity_grants, identity_recheck, people_actions, token_renewal
from gateway_site.models import AuditEvent, IdentityGrant
from gateway_site.sign_in_age import why_sign_in_again
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, change, configured, leave, signed_in

pytestmark = pytest.mark.django_db(transaction=True)
CLAIMS = {
    "email": "grace@contoso.com",
    "email_verified": True,
    "preferred_username": "grace",
    "groups": ["engineering", "leads"],
}


@pytest.fixture
def provider(transactional_db) -> Iterator[OpenIdProvider]:
    with OpenIdProvider(claims=dict(CLAIMS), gives_refresh_tokens=True).serve() as provider:
        yield provider


@pytest.fixture
def company(provider) -> SocialApp:
    for name in ("engineering", "leads"):
        Group.objects.get_or_create(name=name)
    return configured(provider, groups_by_name=True, recheck_minutes=15)


def arrived(provider: OpenIdProvider) -> tuple[Client, User]:
    """Somebody who signed in, with a client that has a token."""
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    grace = User.objects.get(username="grace")
    get_access_token_model().objects.create(
        user=grace, token=secrets.token_hex(), scope="", expires=timezone.now() + timedelta(hours=1)
    )
    return client, grace


def ask() -> int:
    """Let the time come at which the provider is asked, and ask."""
    IdentityGrant.objects.update(recheck_at=timezone.now())
    return ask_who_is_due()


def ask_who_is_due() -> int:
    return sum(map(identity_recheck.ask_due, identity_recheck.providers_to_ask()))


def groups_of(person: User) -> set[str]:
    return set(person.groups.values_list("name", flat=True))


def has_tokens(person: User) -> bool:
    return bool(get_access_token_model().objects.filter(user=person).exists())


def still_signed_in(client: Client) -> bool:
    return client.get("/connections/").status_code == 200


def test_a_refresh_token_is_asked_for_only_where_the_provider_is_to_be_asked(
    provider, company
) -> None:
    for minutes, scope, prompt in ((15, "openid profile email offline_access", "consent"),
                                   (0, "openid profile email", None)):  # fmt: skip
        provider.metadata_changes = {"scopes_supported": ["openid", "offline_access"]}
        change(company, recheck_minutes=minutes)
        leave(browser())
        sent = leave(browser()).headers["Location"]
        provider.answer_to(sent)
        assert provider.asked[-1]["scope"] == scope
        assert provider.asked[-1].get("prompt") == prompt
        arrived(provider)
        assert IdentityGrant.objects.exists() is bool(minutes)
        IdentityGrant.objects.all().delete()


def test_a_provider_that_does_not_announce_the_scope_is_not_asked_for_it(provider, company) -> None:
    provider.answer_to(leave(browser()).headers["Location"])
    assert provider.asked[-1]["scope"] == "openid profile email"


def test_groups_follow_the_provider_between_sign_ins(provider, company) -> None:
    client, grace = arrived(provider)
    provider.claims["groups"] = ["engineering"]
    assert ask() == 1
    assert groups_of(grace) == {"engineering"}
    assert still_signed_in(client) and has_tokens(grace)
    again = IdentityGrant.objects.get().recheck_at
    assert again is not None and again > timezone.now() + timedelta(minutes=14)
    assert ask_who_is_due() == 0


def test_somebody_disabled_there_loses_everything_here(provider, company) -> None:
    client, grace = arrived(provider)
    provider.refresh_tokens.clear()
    assert ask() == 1
    assert not still_signed_in(client) and not has_tokens(grace)
    assert not IdentityGrant.objects.exists()
    event = AuditEvent.objects.get(kind="person.recheck_refused")
    assert event.target == "grace"
    assert event.details == {"provider": "company", "reason": "refused"}


def test_who_lost_the_group_that_lets_people_in_is_out(provider, company) -> None:
    change(company, allowed_groups=["leads"])
    client, grace = arrived(provider)
    provider.claims["groups"] = ["engineering"]
    assert ask() == 1
    assert not still_signed_in(client) and not has_tokens(grace)
    assert AuditEvent.objects.get(kind="person.recheck_refused").details["reason"] == "group"


def test_who_is_not_let_in_at_a_new_sign_in_loses_what_the_old_one_gave(provider, company) -> None:
    change(company, allowed_groups=["leads"])
    client, grace = arrived(provider)
    provider.claims["groups"] = ["engineering"]
    assert arrive(browser(), provider).status_code == 403
    assert not still_signed_in(client) and not has_tokens(grace)


def test_a_provider_that_cannot_be_asked_changes_nothing(provider, company) -> None:
    client, grace = arrived(provider)
    provider.client_secret = "another"
    assert ask() == 1
    assert still_signed_in(client) and has_tokens(grace)
    again = IdentityGrant.objects.get()
    assert again.recheck_at is not None and again.renewing_until is None
    assert again.recheck_at < timezone.now() + timedelta(minutes=3)
    provider.client_secret = "sso-s3cret"
    assert ask() == 1
    assert has_tokens(grace)


@pytest.mark.parametrize(
    "lie", [{"sub": "s-2"}, {"aud": "another"}, {"iss": "https://login.example"}, {"exp": 1}]
)
def test_an_answer_that_is_not_to_be_believed_changes_nothing(
    provider, company, lie: dict[str, Any]
) -> None:
    client, grace = arrived(provider)
    provider.claims["groups"] = []
    provider.token_claims = lie
    assert ask() == 1
    assert groups_of(grace) == {"engineering", "leads"} and still_signed_in(client)


@pytest.mark.parametrize("by_id_token", [True, False])
def test_nothing_is_kept_of_a_renewal_for_another_person(provider, company, by_id_token) -> None:
    client, _ = arrived(provider)
    before = IdentityGrant.objects.get().sealed_tokens
    provider.renews_id_tokens = by_id_token
    provider.subject = "s-2"
    assert ask() == 1
    assert IdentityGrant.objects.get().sealed_tokens == before
    assert still_signed_in(client)


@pytest.mark.parametrize("fetch", [True, False])
def test_a_renewal_that_does_not_speak_of_groups_and_address_takes_nothing(
    provider, company, fetch: bool
) -> None:
    change(
        company,
        allowed_groups=["leads"],
        allowed_domains=["contoso.com"],
        administrator_groups=["leads"],
        fetch_userinfo=fetch,
    )
    client, grace = arrived(provider)
    grace.refresh_from_db()
    assert grace.is_superuser
    provider.renews_id_tokens = False
    provider.userinfo = {"sub": provider.subject, "name": "Grace"}
    assert ask() == 1
    grace.refresh_from_db()
    assert grace.is_superuser and groups_of(grace) == {"engineering", "leads"}
    assert still_signed_in(client) and has_tokens(grace)


def test_userinfo_alone_can_say_that_somebody_is_out(provider, company) -> None:
    change(company, allowed_groups=["leads"])
    client, grace = arrived(provider)
    provider.renews_id_tokens = False
    provider.claims["groups"] = ["engineering"]
    assert ask() == 1
    assert not still_signed_in(client) and not has_tokens(grace)


def sign_in_is_asked_for(client: Client, grace: User, provider: OpenIdProvider) -> None:
    """Nothing granted is lost, and one sign-in puts everything right."""
    assert has_tokens(grace) and not still_signed_in(client)
    assert not AuditEvent.objects.filter(kind="person.recheck_refused").exists()
    assert AuditEvent.objects.get(kind="person.sign_in_asked").details == {"provider": "company"}
    assert "sign in again" in why_sign_in_again(grace)
    assert ask() == 0
    provider.loses_answers = False
    assert arrive(client, provider).status_code == 302
    grace.refresh_from_db()
    assert why_sign_in_again(grace) == "" and still_signed_in(client)
    assert ask() == 1 and still_signed_in(client)


def test_a_refusal_after_a_lost_answer_asks_for_a_sign_in_and_ends_nothing(
    provider, company
) -> None:
    client, grace = arrived(provider)
    provider.loses_answers = True
    assert ask() == 1
    assert still_signed_in(client) and why_sign_in_again(grace) == ""
    assert ask() == 1
    sign_in_is_asked_for(client, grace, provider)


def test_a_refusal_after_a_process_died_with_its_answer_ends_nothing(provider, company) -> None:
    client, grace = arrived(provider)
    provider.refresh_tokens.clear()
    IdentityGrant.objects.update(renewing_until=timezone.now() - timedelta(minutes=1))
    assert ask() == 1
    sign_in_is_asked_for(client, grace, provider)


@pytest.mark.parametrize("suberror", ["basic_action", "additional_action", "message_only"])
def test_who_has_to_do_something_at_the_provider_is_asked_to_sign_in(
    provider, company, suberror: str
) -> None:
    client, grace = arrived(provider)
    provider.refresh_tokens.clear()
    provider.suberror = suberror
    assert ask() == 1
    sign_in_is_asked_for(client, grace, provider)


def test_a_provider_whose_metadata_cannot_be_had_is_asked_again_soon(provider, company) -> None:
    client, grace = arrived(provider)
    provider.metadata_changes = {"issuer": "https://elsewhere.example.com"}
    cache.clear()
    ask()
    assert still_signed_in(client) and has_tokens(grace)
    again = IdentityGrant.objects.get().recheck_at
    assert again is not None and again < timezone.now() + timedelta(minutes=3)


def test_a_provider_that_was_not_reached_does_not_soften_its_next_refusal(
    provider, company
) -> None:
    client, grace = arrived(provider)
    there = provider.metadata()["token_endpoint"]
    provider.metadata_changes = {"token_endpoint": "http://127.0.0.1:1/token"}
    cache.clear()
    assert ask() == 1 and still_signed_in(client)
    provider.metadata_changes = {"token_endpoint": there}
    cache.clear()
    provider.refresh_tokens.clear()
    assert ask() == 1
    assert not still_signed_in(client) and not has_tokens(grace)


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections, as a firewall or a hung process does, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as taking:
        yield f"http://127.0.0.1:{taking.getsockname()[1]}"


def somebody_of(app: SocialApp, name: str) -> User:
    """Somebody with a token and a grant, as a sign-in leaves them."""
    person = User.objects.create_user(name)
    SocialAccount.objects.create(user=person, provider=app.provider_id, uid=name)
    get_access_token_model().objects.create(
        user=person, token=name, scope="", expires=timezone.now() + timedelta(hours=1)
    )
    tokens = {"refresh_token": secrets.token_hex()}
    identity_grants.remember(person.pk, app.provider_id, name, tokens, {}, timezone.now())
    return person


@pytest.mark.parametrize("how", ["silent", "refuses connections", "silent after the token"])
def test_a_provider_that_does_not_answer_is_left_alone_for_this_turn(
    provider, company, settings, how
) -> None:
    settings.SOCIALACCOUNT_REQUESTS_TIMEOUT = 0.2
    people = [somebody_of(company, f"person{number}") for number in range(3)]
    with silent_server() as nowhere:
        closed = "http://127.0.0.1:1"
        name = "userinfo_endpoint" if how.endswith("token") else "token_endpoint"
        provider.metadata_changes = {name: closed if how.startswith("refuses") else nowhere}
        provider.renews_id_tokens = False
        for grant in IdentityGrant.objects.all():
            provider.refresh_tokens.add(identity_grants.opened(grant, "refresh_token"))
        cache.clear()
        assert ask_who_is_due() == 1
    later = timezone.now() + timedelta(seconds=30)
    assert IdentityGrant.objects.filter(recheck_at__lt=later).count() == 2, "the rest stay due"
    assert all(map(has_tokens, people))
    assert not AuditEvent.objects.filter(kind__startswith="person.recheck").exists()


def test_nobody_waits_for_another_provider_that_does_not_answer(
    provider, company, settings, monkeypatch
) -> None:
    settings.SOCIALACCOUNT_REQUESTS_TIMEOUT = 30
    monkeypatch.setattr(identity_recheck, "EVERY_SECONDS", 0.05)
    with silent_server() as nowhere:
        for name in ("aaa", "zzz"):
            app = SocialApp(provider_id=name, name=name)
            values = {"client_id": "gw", "settings": {"server_url": nowhere, "recheck_minutes": 5}}
            people_actions.save_identity_provider(app, values, actor=None)
            somebody_of(app, name)
        grace = somebody_of(company, "grace")

        def is_let_in() -> bool:
            try:
                return has_tokens(grace)
            finally:
                connections.close_all()

        async def turn() -> float:
            job = asyncio.create_task(identity_recheck.keep_asking())
            async with asyncio.timeout(10):
                while await asyncio.to_thread(is_let_in):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            began = time.monotonic()
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            return time.monotonic() - began

        assert asyncio.run(turn()) < 1.5, "a shutdown waits for no provider"
    for thread in threading.enumerate():
        if thread.name.startswith("recheck-"):
            thread.join(10)
            assert not thread.is_alive()
    assert AuditEvent.objects.get(kind="person.recheck_refused").target == "grace"


def test_a_turn_that_is_told_to_end_asks_nobody_further(provider, company) -> None:
    somebody_of(company, "grace")
    over = threading.Event()
    over.set()
    assert identity_recheck.ask_due(company, over) == 0
    assert not provider.token_requests


def test_the_administrator_sees_whom_the_provider_cannot_be_asked_about(
    provider, company, admin_client
) -> None:
    def pages() -> tuple[str, str]:
        checked = admin_client.post(f"/admin/socialaccount/socialapp/{company.pk}/test/")
        form = admin_client.get(f"/admin/socialaccount/socialapp/{company.pk}/change/")
        return checked.content.decode(), form.content.decode()

    people = [somebody_of(company, f"person{number}") for number in range(3)]
    for page in pages():
        assert "About all 3 of its people" in page
    IdentityGrant.objects.filter(user=people[0]).delete()
    IdentityGrant.objects.filter(user=people[1]).update(sealed_tokens={})
    for page in pages():
        assert "About 1 of 3 people" in page and "Of the other 2 no refresh token" in page
        assert "offline_access" in page
    change(company, recheck_minutes=0)
    assert all("refresh token is kept" not in page for page in pages())


@pytest.mark.parametrize("how", ["deleted", "another issuer", "another client", "renamed"])
def test_what_one_provider_gave_one_client_is_shown_to_no_other(provider, company, how) -> None:
    arrived(provider)
    if how == "deleted":
        people_actions.delete_identity_provider(company, actor=None)
    elif how == "another issuer":
        change(company, server_url="https://login.example")
    elif how == "another client":
        people_actions.save_identity_provider(company, {"client_id": "gw-2"}, actor=None)
    else:
        people_actions.save_identity_provider(company, {"name": "Contoso"}, actor=None)
    assert IdentityGrant.objects.exists() is (how == "renamed")


def test_nobody_is_asked_about_who_does_not_use_the_gateway(provider, company) -> None:
    _, grace = arrived(provider)
    get_access_token_model().objects.all().delete()
    people_actions.people_sessions.end_all(grace)
    assert ask() == 0


def test_where_no_refresh_token_came_nobody_is_asked(provider, company) -> None:
    provider.gives_refresh_tokens = False
    client, _ = arrived(provider)
    asked = len(provider.token_requests)
    assert ask() == 0 and len(provider.token_requests) == asked
    assert still_signed_in(client)


def test_a_sign_in_that_comes_while_an_old_one_is_refused_stands(
    provider, company, monkeypatch
) -> None:
    client, grace = arrived(provider)
    provider.refresh_tokens.clear()
    asked = token_renewal.ask

    def and_signs_in(request: token_renewal.RenewalRequest) -> token_renewal.Renewal:
        answer = asked(request)
        arrive(browser(), provider)
        return answer

    monkeypatch.setattr(token_renewal, "ask", and_signs_in)
    ask()
    assert has_tokens(grace) and still_signed_in(client)


# A sign-in that is too old ----------------------------------------------------------------


def aged(person: User, days: float) -> None:
    at = timezone.now() - timedelta(days=days)
    SocialAccount.objects.filter(user=person).update(last_login=at)
    User.objects.filter(pk=person.pk).update(last_login=at)
    person.refresh_from_db()


def test_after_some_days_people_sign_in_again_at_their_provider(provider, company) -> None:
    change(company, sign_in_days=7)
    _, grace = arrived(provider)
    assert why_sign_in_again(grace) == ""
    aged(grace, 6.9)
    assert why_sign_in_again(grace) == ""
    aged(grace, 7.1)
    assert "sign in again" in why_sign_in_again(grace) and "7 days" in why_sign_in_again(grace)
    arrive(browser(), provider)
    grace.refresh_from_db()
    assert why_sign_in_again(grace) == ""


def test_a_second_factor_that_took_minutes_belongs_to_the_same_sign_in(provider, company) -> None:
    change(company, sign_in_days=7)
    _, grace = arrived(provider)
    aged(grace, 8)
    assert grace.last_login is not None
    grace.last_login += timedelta(minutes=14)
    assert "sign in again" in why_sign_in_again(grace)
    grace.last_login += timedelta(minutes=3)
    assert why_sign_in_again(grace) == "", "as long as it waits, no longer"


def test_another_way_minutes_after_the_provider_counts_when_it_wants_to_see_somebody(
    provider, company
) -> None:
    change(company, recheck_minutes=5)
    _, grace = arrived(provider)
    IdentityGrant.objects.update(sign_in_asked=True)
    grace.refresh_from_db()
    assert "wants to see them" in why_sign_in_again(grace)
    assert grace.last_login is not None
    grace.last_login += timedelta(minutes=2)
    assert why_sign_in_again(grace) == ""


def test_a_local_sign_in_since_is_none_of_the_providers(provider, company) -> None:
    change(company, sign_in_days=7)
    _, grace = arrived(provider)
    aged(grace, 30)
    browser().force_login(grace, backend="django.contrib.auth.backends.ModelBackend")
    grace.refresh_from_db()
    assert why_sign_in_again(grace) == ""
    assert why_sign_in_again(User.objects.create_user("local")) == ""


def test_the_browser_session_ends_with_the_age_of_the_sign_in(provider, company, days_pass) -> None:
    change(company, sign_in_days=7)
    client, _ = arrived(provider)
    assert still_signed_in(client)
    days_pass(8)
    assert not still_signed_in(client)


@pytest.fixture
def days_pass(monkeypatch) -> Any:
    """Have the rules of sessions see another day."""
    from gateway_site import session_rules

    class _Later:
        def __init__(self, days: float) -> None:
            self.days = days

        def time(self) -> float:
            return timezone.now().timestamp() + self.days * 86_400

    return lambda days: monkeypatch.setattr(session_rules, "time", _Later(days))


@pytest.mark.parametrize(
    "wrong",
    [
        {"recheck_minutes": 1},
        {"recheck_minutes": 99_999},
        {"recheck_minutes": "often"},
        {"sign_in_days": -1},
        {"sign_in_days": 1_000},
    ],
)
def test_only_sensible_times_can_be_set(provider, company, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        change(company, **wrong)
