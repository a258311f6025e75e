"""What a sign-in leaves for upstreams that the company vouches for: sealed, renewed once."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

from gateway_site import identity_grants, people_actions, token_renewal
from gateway_site.identity import discovery
from gateway_site.models import IdentityGrant
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, configured, signed_in
from upstreams import accounts, actions, enterprise_grants, enterprise_identity, key_rotation
from upstreams.errors import SetupFailed
from upstreams.models import CredentialKind, Upstream

pytestmark = pytest.mark.django_db(transaction=True)
CLAIMS = {"email": "grace@contoso.com", "email_verified": True, "preferred_username": "grace"}


@pytest.fixture
def provider(transactional_db) -> Iterator[OpenIdProvider]:
    with OpenIdProvider(claims=dict(CLAIMS), gives_refresh_tokens=True).serve() as provider:
        yield provider


@pytest.fixture
def company(provider) -> SocialApp:
    return configured(provider)


@pytest.fixture
def planning() -> Upstream:
    return Upstream.objects.create(
        key="planning",
        title="Planning",
        url="https://planning.example/mcp",
        credential_kind=CredentialKind.ENTERPRISE,
        enterprise_token_url="https://login.example/token",
        enterprise_client_id="gw",
    )


def grace_arrives(provider: OpenIdProvider) -> User:
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    return User.objects.get(username="grace")


def run_out() -> None:
    IdentityGrant.objects.update(ends={"id_token": int(time.time()) - 5, "access_token": 0})


def test_a_sign_in_is_kept_only_where_an_upstream_needs_it(provider, company) -> None:
    grace = grace_arrives(provider)
    assert not IdentityGrant.objects.exists()
    assert enterprise_identity.subject_token(grace.pk, "id_token") is None


def test_a_sign_in_vouches_for_its_person_and_is_sealed(provider, company, planning) -> None:
    grace = grace_arrives(provider)
    found = enterprise_identity.subject_token(grace.pk, "id_token", "company")
    assert found is not None
    assert identity_grants.claims_in(found.token)["sub"] == provider.subject
    assert accounts.status_for(grace, planning).state == "not_needed"
    stored = str(IdentityGrant.objects.values().get())
    assert found.token not in stored and not any(t in stored for t in provider.refresh_tokens)
    assert found.token not in repr(found)
    assert enterprise_identity.subject_token(grace.pk, "id_token", "another") is None
    other = User.objects.create_user("other")
    IdentityGrant.objects.update(user=other)
    assert enterprise_identity.subject_token(other.pk, "id_token") is None


def test_a_token_address_is_shown_only_tokens_of_its_own_provider(
    provider, company, planning
) -> None:
    grace = grace_arrives(provider)
    assert enterprise_identity.subject_token(grace.pk, "id_token") is not None
    actions.update_upstream(planning, {"title": "Plans"}, None)
    with OpenIdProvider(claims=dict(CLAIMS)).serve() as other:
        configured(other, "another")
        assert enterprise_identity.subject_token(grace.pk, "id_token") is None
        assert enterprise_identity.subject_token(grace.pk, "id_token", "company") is not None
        status = accounts.status_for(grace, planning)
        assert status.state == "unavailable" and "which identity provider" in status.reason
        with pytest.raises(SetupFailed) as unclear:
            asyncio.run(enterprise_grants.account_for(grace.pk, planning.pk))
        assert "which identity provider" in unclear.value.message
        with pytest.raises(ValidationError) as refused:
            actions.update_upstream(planning, {"title": "Planning"}, None)
        assert "another, company" in refused.value.message_dict["enterprise_provider"][0]
        planning.refresh_from_db()
        actions.update_upstream(planning, {"enterprise_provider": "company"}, None)
    assert accounts.status_for(grace, planning).state == "not_needed"


def test_what_has_run_out_is_renewed_by_one_of_many(provider, company, planning) -> None:
    grace = grace_arrives(provider)
    first = enterprise_identity.subject_token(grace.pk, "id_token")
    before = len(provider.token_requests)
    run_out()
    with ThreadPoolExecutor(8) as pool:
        found = set(
            pool.map(
                lambda _: enterprise_identity.subject_token(grace.pk, "id_token").token, range(8)
            )
        )
    assert len(found) == 1 and first is not None and first.token not in found
    assert len(provider.token_requests) == before + 1


def while_it_is_asked(monkeypatch, happens: Callable[[], object]) -> None:
    """Have something happen between the provider's answer and its being kept."""
    ask = token_renewal.ask

    def asking(request: Any) -> Any:
        answer = ask(request)
        happens()
        return answer

    monkeypatch.setattr(token_renewal, "ask", asking)


def test_access_that_ends_during_a_renewal_stays_ended(
    provider, company, planning, monkeypatch
) -> None:
    grace = grace_arrives(provider)
    run_out()
    while_it_is_asked(monkeypatch, lambda: people_actions.end_access(grace, actor=None))
    assert enterprise_identity.subject_token(grace.pk, "id_token") is None
    assert not IdentityGrant.objects.exists()


def test_a_sign_in_during_a_renewal_is_not_overwritten(
    provider, company, planning, monkeypatch
) -> None:
    grace = grace_arrives(provider)
    run_out()
    while_it_is_asked(monkeypatch, lambda: grace_arrives(provider))
    assert enterprise_identity.subject_token(grace.pk, "id_token") is not None
    row = IdentityGrant.objects.get()
    assert (row.version, row.renewing_until) == (2, None)


def test_nobody_holds_the_lease_while_the_providers_metadata_is_fetched(
    provider, company, planning, monkeypatch
) -> None:
    grace = grace_arrives(provider)
    run_out()
    held: list[object] = []
    ask = discovery.metadata_of

    def asking(issuer: str) -> Any:
        held.append(IdentityGrant.objects.get().renewing_until)
        return ask(issuer)

    monkeypatch.setattr(discovery, "metadata_of", asking)
    assert enterprise_identity.subject_token(grace.pk, "id_token") is not None
    assert held == [None]


def test_a_provider_that_renews_no_more_means_signing_in_again(provider, company, planning) -> None:
    grace = grace_arrives(provider)
    provider.refresh_tokens.clear()
    run_out()
    assert enterprise_identity.subject_token(grace.pk, "id_token") is None
    assert accounts.status_for(grace, planning).state == "needs_reconnect"
    grace_arrives(provider)
    assert enterprise_identity.subject_token(grace.pk, "id_token") is not None


def test_a_renewal_for_somebody_else_is_not_taken(provider, company, planning) -> None:
    grace = grace_arrives(provider)
    run_out()
    provider.token_claims["sub"] = "s-another"
    assert enterprise_identity.subject_token(grace.pk, "id_token") is None


def test_who_is_switched_off_is_vouched_for_no_more(provider, company, planning) -> None:
    grace = grace_arrives(provider)
    User.objects.filter(pk=grace.pk).update(is_active=False)
    assert enterprise_identity.subject_token(grace.pk, "id_token") is None
    User.objects.filter(pk=grace.pk).update(is_active=True)
    identity_grants.forget(grace.pk)
    assert enterprise_identity.subject_token(grace.pk, "id_token") is None


def test_a_new_key_seals_what_sign_ins_left_too(provider, company, planning, settings) -> None:
    grace = grace_arrives(provider)
    old = list(settings.GATEWAY_ENCRYPTION_KEYS)
    new = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU="
    settings.GATEWAY_ENCRYPTION_KEYS = [new, *old]
    key_rotation.reseal_all()
    settings.GATEWAY_ENCRYPTION_KEYS = [new]
    assert enterprise_identity.subject_token(grace.pk, "id_token") is not None
