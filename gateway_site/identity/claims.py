"""What claims say: groups, address, domain. Pure; nothing here asks anybody.

Claims come from the ID token and from UserInfo. The ID token wins where both speak of groups,
because it is signed for this gateway.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oauthserver.claim_paths import at_path

Claims = Mapping[str, Any]

MOST_GROUPS = 5_000
LONGEST_GROUP = 255
_TRUE = (True, 1, "1", "true")
# Entra ID's SAML attribute with groups, and what stands in its place beyond 150 of them.
_SAML_GROUPS = "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups"
_SAML_GROUPS_ELSEWHERE = "http://schemas.microsoft.com/claims/groups.link"
_OTHER_TENANT = re.compile(r"https://sts\.windows\.net/([0-9a-fA-F-]{36})/?")


@dataclass(frozen=True, slots=True)
class GroupClaim:
    """The groups a provider named.

    Attributes:
        values: as the provider calls them.
        complete: False when the provider said that there are more than it sends (Entra's
            overage); what is missing can't be known, so ``values`` is empty then.
        present: whether there was a claim at all.
    """

    values: frozenset[str]
    complete: bool
    present: bool


def has_overage(claims: Claims, path: str) -> bool:
    """Tell whether the claim was left out because it would be too long (Entra ID).

    See https://learn.microsoft.com/entra/identity-platform/id-token-claims-reference:
    ``_claim_names`` names the claim, or ``hasgroups`` is true; SAML has an attribute with a link.
    """
    if path == _SAML_GROUPS and _SAML_GROUPS_ELSEWHERE in claims:
        return True
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, Mapping) and path in elsewhere:
        return True
    return path == "groups" and claims.get("hasgroups") in (True, "true")


def groups_in(id_token: Claims, userinfo: Claims, path: str) -> GroupClaim:
    """Return the groups at a path of the ID token, or else of UserInfo."""
    if not path:
        return GroupClaim(frozenset(), complete=True, present=False)
    for claims in (id_token, userinfo):
        value = at_path(claims, path)
        if value is not None:
            return GroupClaim(names_in(value), complete=True, present=True)
        if has_overage(claims, path):
            return GroupClaim(frozenset(), complete=False, present=False)
    return GroupClaim(frozenset(), complete=True, present=False)


def names_in(value: Any) -> frozenset[str]:
    """Read a group claim: a list, one name, names joined by semicolons, or an object's keys."""
    if isinstance(value, str):
        value = value.split(";")
    elif isinstance(value, Mapping):
        value = list(value)
    if not isinstance(value, list | tuple):
        return frozenset()
    names = (item.strip() for item in value[:MOST_GROUPS] if isinstance(item, str))
    return frozenset(name for name in names if 0 < len(name) <= LONGEST_GROUP)


def address_in(claims: Claims, names: tuple[str, ...]) -> str:
    """Return the e-mail address: the first of the named claims that holds one, else ""."""
    for name in names:
        value = claims.get(name)
        if isinstance(value, str) and "@" in value.strip("@") and len(value) <= 254:
            return value.strip() if keeps_its_letters(value) else ""
    return ""


def keeps_its_letters(address: str) -> bool:
    """Tell whether an address does not become another one, in ASCII, when it is written small.

    The library writes addresses small, and of the Kelvin sign that makes somebody else's k.
    """
    return address.isascii() or not address.lower().isascii()


def address_is_verified(claims: Claims) -> bool:
    """Tell whether the provider vouches for the address.

    ``email_verified`` must be the JSON value true (OpenID Connect Core 5.1): some providers send
    the text "false", which would count as true. Entra ID says ``xms_edov`` instead, where that
    optional claim was asked for.
    """
    if address_is_denied(claims):
        return False
    return claims.get("email_verified") is True or claims.get("xms_edov") in _TRUE


def address_is_denied(claims: Claims) -> bool:
    """Tell whether the provider says itself that the address is not verified.

    That holds against an administrator's trust in the provider's addresses: at Entra ID anybody
    who administers a tenant writes any address into it. So does it for a guest from another tenant,
    unless Entra vouches for the address.
    """
    said = (claims.get("email_verified"), claims.get("xms_edov"))
    if any(str(value).lower() in ("false", "0") for value in said if value is not None):
        return True
    return is_guest(claims) and claims.get("xms_edov") not in _TRUE


def is_guest(claims: Claims) -> bool:
    """Tell whether somebody's account is not of the Entra tenant that they came by.

    ``acct`` is 1 (an optional claim), or ``idp`` names another tenant or personal accounts:
    https://learn.microsoft.com/entra/identity-platform/optional-claims-reference and
    id-token-claims-reference.
    """
    tenant = claims.get("tid")
    if not isinstance(tenant, str):
        return False
    if claims.get("acct") in (1, "1"):
        return True
    home = str(claims.get("idp") or "")
    other = _OTHER_TENANT.fullmatch(home)
    return home == "live.com" or (other is not None and other[1].lower() != tenant.lower())


def domain_of(address: str) -> str:
    """Return the domain of an address in lower case, "" for none."""
    return address.rpartition("@")[2].lower() if "@" in address else ""
