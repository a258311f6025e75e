"""Whether somebody a provider vouches for may come in, and with which groups. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from gateway_site.identity.claims import (
    GroupClaim,
    address_in,
    address_is_denied,
    address_is_verified,
    domain_of,
)
from gateway_site.identity.id_tokens import LEEWAY
from gateway_site.identity.provider_facts import ProviderFacts

# In a sign-in's state: when somebody who is signed in was sent to sign in again.
AGAIN_SINCE = "again_since"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody may not come in: for the audit trail, and in words for the person."""

    reason: str
    words: str


def refusal_of_leftover(claims: dict[str, Any], since: float) -> Refusal | None:
    """Return why a sign-in does not prove who sits there now, None if it does.

    Args:
        claims: those of the ID token.
        since: Unix time at which the provider was asked to have the person sign in again.
    """
    at = signed_in_there(claims)
    if at is None:
        return Refusal(
            "no_auth_time",
            "Your identity provider does not say when you signed in there (auth_time), so this "
            "does not count as signing in again. Ask its administrator to add that claim, or sign "
            "out, sign in and add a security key or an authenticator app within ten minutes.",
        )
    if at < since - LEEWAY:
        return Refusal(
            "not_again",
            "Your identity provider did not ask you to sign in again. Sign out there, then try "
            "once more.",
        )
    return None


def signed_in_there(claims: dict[str, Any]) -> float | None:
    """Return when the person signed in at the provider (``auth_time``), None if it is not said."""
    at = claims.get("auth_time")
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) else None


def refusal_of(facts: ProviderFacts, claims: dict[str, Any], groups: GroupClaim) -> Refusal | None:
    """Return why this person may not come in, None if they may.

    Domains count only if the provider vouches for the address or for the domain itself; an
    incomplete group claim opens nothing.
    """
    if facts.allowed_domains and _domain(facts, claims) not in facts.allowed_domains:
        return Refusal(
            "domain",
            "Your account there does not belong to a domain that may use this gateway. Sign in "
            "with your company account.",
        )
    if facts.allowed_groups and facts.allowed_groups.isdisjoint(groups.values):
        if not groups.complete:
            return Refusal(
                "too_many_groups",
                "You are in so many groups that your identity provider did not name them, so it "
                "cannot be seen whether you may use this gateway. Ask your administrator.",
            )
        return Refusal(
            "group",
            "You are in none of the groups that may use this gateway. Ask your administrator for "
            "access.",
        )
    return None


def groups_are_unknown(facts: ProviderFacts, data: dict[str, Any], groups: GroupClaim) -> bool:
    """Tell whether a renewed sign-in leaves open in which groups the person is.

    A renewal need not bring an ID token (OpenID Connect Core 12.2), and UserInfo need not repeat
    what it said.

    Args:
        data: the claims of each source that answered.
    """
    return bool(facts.groups_claim) and "id_token" not in data and not groups.present


def refusal_on_renewal(
    facts: ProviderFacts, data: dict[str, Any], claims: dict[str, Any], groups: GroupClaim
) -> Refusal | None:
    """Return why a person may no longer come in, judged by what a renewed sign-in says of them.

    What it does not say does not count against them: at the sign-in itself it was there.
    """
    if groups_are_unknown(facts, data, groups):
        facts = replace(facts, allowed_groups=frozenset())
    if not _domain_is_known(facts, claims):
        facts = replace(facts, allowed_domains=frozenset())
    return refusal_of(facts, claims, groups)


def _domain_is_known(facts: ProviderFacts, claims: dict[str, Any]) -> bool:
    if facts.preset.domain_claim:
        return facts.preset.domain_claim in claims
    vouched = facts.trust_addresses or "email_verified" in claims or "xms_edov" in claims
    return vouched and bool(address_in(claims, facts.preset.email_claims))


def mapped(
    facts: ProviderFacts, groups: GroupClaim, mapping: Iterable[tuple[str, str]]
) -> set[str]:
    """Return the names of the gateway's groups that a provider's groups give.

    Args:
        mapping: pairs of the provider's name and the gateway's.
    """
    names = {ours for theirs, ours in mapping if theirs in groups.values}
    return names | set(groups.values) if facts.groups_by_name else names


def _domain(facts: ProviderFacts, claims: dict[str, Any]) -> str:
    if facts.preset.domain_claim:
        return str(claims.get(facts.preset.domain_claim, "")).lower()
    trusted = facts.trust_addresses and not address_is_denied(claims)
    if not (trusted or address_is_verified(claims)):
        return ""
    return domain_of(address_in(claims, facts.preset.email_claims))
