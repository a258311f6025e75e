"""Whom an identity assertion is about: what a trusted issuer calls people, and who they are here.

By the draft an assertion has the ``sub`` that the provider shows the gateway at sign-in
(draft-ietf-oauth-identity-assertion-authz-grant, ID-JAG Claims). Where each application sees
another one, an administrator says which claim is the same for all. What it was at each person's
last sign-in is written down, so that a person is found by comparing texts exactly, among those who
have signed in with this issuer's provider, and nobody is found where two would be.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.db import transaction

from oauthserver import held_rows
from oauthserver.claim_paths import text_at
from oauthserver.models import IssuerSubject, TrustedIssuer
from oauthserver.signals import audit

# What people change themselves, or is given to somebody else when they leave: names nobody.
CHANGEABLE = frozenset(
    {
        *("preferred_username", "upn", "unique_name", "username", "name", "nickname"),
        *("given_name", "family_name", "phone_number", "profile", "website", "picture"),
    }
)
ADDRESS = "email"
OWN_ID = "aud_sub"
# One text for who is not known here and who may not: it says nothing about people.
NOT_KNOWN = "The person is not known here or may not use this resource. Sign in once first."
SEVERAL = (
    "The assertion names more than one person here, so it counts for none. Ask the gateway's "
    "administrator."
)
_BATCH = 500


class NobodyNamed(Exception):
    """An assertion names nobody who can be told.

    Attributes:
        reason: for the audit trail.
        words: for the client, and the person who reads its error.
    """

    def __init__(self, reason: str, words: str = NOT_KNOWN) -> None:
        super().__init__(reason)
        self.reason, self.words = reason, words


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a provider said of somebody at their last sign-in.

    Attributes:
        sources: sets of claims, the one to believe first first.
        address: the e-mail address that the provider vouches for, "" for none.
    """

    sources: tuple[Mapping[str, Any], ...]
    address: str


# Of a provider, how what its people's sign-ins left is read.
Reader = Callable[[str], Callable[[SocialAccount], SignIn]]
_read: Reader | None = None


def register_sign_ins(read: Reader) -> None:
    """Say how stored sign-ins are read. Called once, when the applications are ready."""
    global _read
    _read = read


# What assertions say -----------------------------------------------------------------------
def named_by(issuer: TrustedIssuer, claims: Mapping[str, Any]) -> tuple[str, str]:
    """Return the tenant ("" for none) and the text by which an assertion names a person. Pure.

    Raises:
        NobodyNamed: the claim is missing, or is an address that must not name anybody.
    """
    value = text_at(claims, issuer.person_claim)
    if not value:
        raise NobodyNamed("claim missing", _missing(issuer.person_claim))
    if issuer.person_claim == ADDRESS:
        if claims.get("email_verified") is not True:
            raise NobodyNamed(
                "address not verified",
                "The assertion's email names nobody, because email_verified is not true.",
            )
        value = _of_domain(value, issuer.domains)
        if not value:
            raise NobodyNamed(
                "domain", "The assertion's email is of no domain whose addresses count here."
            )
    tenant = text_at(claims, issuer.tenant_claim) if issuer.tenant_claim else ""
    if issuer.tenant_claim and not tenant:
        raise NobodyNamed("tenant missing", _missing(issuer.tenant_claim))
    return tenant, value


def _missing(claim: str) -> str:
    return f"The assertion does not say whom it is about: it has no text as {claim[:100]!r}."


def _of_domain(address: str, domains: Iterable[str]) -> str:
    """Return an address in one spelling, "" if it is of none of the domains.

    Letters beyond ASCII have more than one small form, and none of them counts here.
    """
    name, _, domain = address.rpartition("@")
    if not name or not address.isascii() or domain.lower() not in domains:
        return ""
    return address.lower()


# Who that is -------------------------------------------------------------------------------
def person_of(issuer: TrustedIssuer, claims: Mapping[str, Any]) -> Any:
    """Return the one person here whom an assertion is about.

    ``aud_sub`` is the gateway's own name for somebody and comes first; whatever else names
    somebody in the same assertion must not name anybody else.

    Raises:
        NobodyNamed: it is nobody, or not one.
    """
    subject = text_at(claims, "sub")
    if not subject:
        raise NobodyNamed("claim missing", _missing("sub"))
    people = _by_own_id(issuer, claims) if OWN_ID in claims else _by_claim(issuer, claims)
    if not people:
        raise NobodyNamed("unknown")
    if OWN_ID in claims:
        with suppress(NobodyNamed):
            people |= _by_claim(issuer, claims)
    if not issuer.tenant_claim:
        people |= {account.user for account in _having(issuer).filter(uid=subject)}
    if len(people) != 1:
        raise NobodyNamed("several people", SEVERAL)
    return people.pop()


def _having(issuer: TrustedIssuer) -> Any:
    """Return how people of the issuer's provider are known, and of no other one."""
    return SocialAccount.objects.filter(provider=issuer.provider).select_related("user")


def _by_own_id(issuer: TrustedIssuer, claims: Mapping[str, Any]) -> set[Any]:
    own = text_at(claims, OWN_ID)
    if not own.isascii() or not own.isdecimal() or len(own) > 18:
        return set()
    people = get_user_model()._default_manager.filter(pk=own)
    return {one for one in people if _having(issuer).filter(user=one).exists()}


def _by_claim(issuer: TrustedIssuer, claims: Mapping[str, Any]) -> set[Any]:
    tenant, value = named_by(issuer, claims)
    if issuer.by_subject_alone:
        return {account.user for account in _having(issuer).filter(uid=value)}
    rows = IssuerSubject.objects.filter(
        issuer=issuer, tenant=tenant, value=value, account__provider=issuer.provider
    )
    found = rows.order_by().values_list("account__user", flat=True).distinct()[:2]
    return set(get_user_model()._default_manager.filter(pk__in=list(found)))


# What sign-ins say -------------------------------------------------------------------------
def called_at_sign_in(issuer: TrustedIssuer, said: SignIn) -> tuple[str, str] | None:
    """Return the tenant and the text that name somebody in a sign-in, None if nothing does."""
    path = issuer.sign_in_claim or issuer.person_claim
    tenant_path = issuer.sign_in_tenant_claim or issuer.tenant_claim
    for claims in said.sources:
        if issuer.person_claim == ADDRESS:
            value = _of_domain(said.address, issuer.domains)
        else:
            value = text_at(claims, path)
        tenant = text_at(claims, tenant_path) if issuer.tenant_claim else ""
        if value and (tenant or not issuer.tenant_claim):
            return tenant, value
    return None


@transaction.atomic
def learn(account: SocialAccount) -> None:
    """Write down what the issuers of a sign-in's provider call the person from now on.

    A sign-in that no longer says it takes it back.
    """
    for issuer in held_rows.shared_issuers_of(account.provider):
        if issuer.by_subject_alone:
            continue
        called = called_at_sign_in(issuer, _reader_of(account.provider)(account))
        before = IssuerSubject.objects.filter(issuer=issuer, account=account).first()
        if called is None:
            IssuerSubject.objects.filter(issuer=issuer, account=account).delete()
        else:
            facts = {"tenant": called[0], "value": called[1]}
            IssuerSubject.objects.update_or_create(issuer=issuer, account=account, defaults=facts)
        if before is not None and called != (before.tenant, before.value):
            _tell_of_change(issuer, account, before, called)


def _tell_of_change(
    issuer: TrustedIssuer,
    account: SocialAccount,
    before: IssuerSubject,
    called: tuple[str, str] | None,
) -> None:
    audit.send(
        sender=IssuerSubject,
        kind="person.issuer_subject_changed",
        user=account.user,
        target=account.user.get_username(),
        details={
            "issuer": issuer.issuer,
            "claim": issuer.person_claim,
            "before": _in_words(before.tenant, before.value),
            "after": _in_words(*called) if called else "",
        },
        address="",
    )


def _in_words(tenant: str, value: str) -> str:
    return f"{value} of {tenant}" if tenant else value


def learn_all(issuer: TrustedIssuer) -> None:
    """Read anew what an issuer calls people, out of their last sign-ins. The caller holds its row.

    What it called them by another claim or provider counts no longer.
    """
    IssuerSubject.objects.filter(issuer=issuer).delete()
    if issuer.by_subject_alone:
        return
    read, rows = _reader_of(issuer.provider), []
    for account in _having(issuer).order_by("pk").iterator(chunk_size=_BATCH):
        called = called_at_sign_in(issuer, read(account))
        if called is not None:
            tenant, value = called
            rows.append(IssuerSubject(issuer=issuer, account=account, tenant=tenant, value=value))
    IssuerSubject.objects.bulk_create(rows, batch_size=_BATCH)


@transaction.atomic
def learn_addresses(provider: str) -> None:
    """Read the addresses of a provider's people anew, after what is said to be verified changed."""
    for issuer in TrustedIssuer.objects.select_for_update().filter(
        provider=provider, person_claim=ADDRESS
    ):
        learn_all(issuer)


def known_people(issuer: TrustedIssuer) -> tuple[int, int]:
    """Return how many people have signed in with an issuer's provider, and how many it can name."""
    everybody = _having(issuer).values("user").distinct().count()
    if issuer.by_subject_alone:
        return everybody, everybody
    return everybody, issuer.subjects.values("account__user").distinct().count()


def _reader_of(provider: str) -> Callable[[SocialAccount], SignIn]:
    if _read is None:
        raise RuntimeError("Nobody reads sign-ins; is the gateway_site app installed?")
    return _read(provider)
