"""A configured identity provider as values: what is stored, read and checked in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

from gateway_site import public_address, saml_library
from gateway_site.identity.presets import PRESETS, Preset, preset_of

# Tenants that are everybody's: their tokens would come from any company's directory.
_SHARED_TENANTS = ("/common/", "/organizations/", "/consumers/")

# Minutes; more often than that is no business of a provider's token endpoint.
LEAST_RECHECK = 5


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """What an administrator decided about one OpenID provider.

    Attributes:
        sign_out_ends_access: signing out there ends people's clients here too, not only browsers.
        recheck_minutes: how often the provider is asked whether people may still come in; 0 never.
        staff_groups: the provider's groups whose people may open the administration.
        administrator_groups: those whose people may do everything there.
        sign_in_days: after so many days a client's person has to sign in there again; 0 never.
    """

    id: str
    name: str
    client_id: str
    preset: Preset
    issuer: str
    scopes: tuple[str, ...]
    groups_claim: str
    groups_by_name: bool
    allowed_domains: frozenset[str]
    allowed_groups: frozenset[str]
    sign_in_domains: frozenset[str]
    only_known_people: bool
    trust_addresses: bool
    sign_out_there: bool
    sign_out_ends_access: bool
    recheck_minutes: int
    sign_in_days: int
    staff_groups: frozenset[str]
    administrator_groups: frozenset[str]
    fetch_userinfo: bool


def facts_of(app: Any) -> ProviderFacts:
    """Read a stored provider; what it does not say, its preset does."""
    stored: Mapping[str, Any] = app.settings or {}
    preset = preset_of(str(stored.get("preset", "")))
    return ProviderFacts(
        id=app.provider_id,
        name=app.name,
        client_id=app.client_id,
        preset=preset,
        issuer=issuer_of(str(stored.get("server_url", ""))),
        scopes=tuple(stored.get("scope") or preset.scopes),
        groups_claim=str(stored.get("groups_claim", preset.groups_claim)),
        groups_by_name=stored.get("groups_by_name") is True,
        allowed_domains=_lower(stored.get("allowed_domains")),
        allowed_groups=frozenset(_texts(stored.get("allowed_groups"))),
        sign_in_domains=_lower(stored.get("sign_in_domains")),
        only_known_people=stored.get("only_known_people") is True,
        trust_addresses=stored.get("verified_email", preset.trusts_addresses) is True,
        sign_out_there=stored.get("sign_out_there") is True,
        sign_out_ends_access=stored.get("sign_out_ends_access") is True,
        recheck_minutes=_number(stored.get("recheck_minutes")),
        sign_in_days=_number(stored.get("sign_in_days")),
        staff_groups=frozenset(_texts(stored.get("staff_groups"))),
        administrator_groups=frozenset(_texts(stored.get("administrator_groups"))),
        fetch_userinfo=stored.get("fetch_userinfo", preset.fetch_userinfo) is True,
    )


def issuer_of(server_url: str) -> str:
    """Return the issuer without a trailing slash; a discovery document's address works too."""
    return server_url.partition("/.well-known/")[0].rstrip("/")


def check_settings(stored: Mapping[str, Any]) -> None:
    """Check what is to be stored.

    Raises:
        ValidationError: by field.
    """
    url = str(stored.get("server_url", ""))
    parts = urlsplit(url)
    secure = parts.scheme == "https" or (parts.scheme == "http" and public_address.is_loopback(url))
    # Metadata of SAML may be told apart by a query, an issuer may not have one.
    extra = parts.fragment or (parts.query and stored.get("preset") != "saml")
    if not parts.hostname or not secure or extra:
        raise ValidationError(
            {"server_url": "Give the provider's issuer, such as https://login.example.com/realm."}
        )
    if "login.microsoftonline.com" in url and any(t in f"{url}/" for t in _SHARED_TENANTS):
        raise ValidationError(
            {
                "server_url": "Give your own tenant's ID: this address lets in every company's "
                "people. You find it in Entra ID under Overview."
            }
        )
    if stored.get("preset", "generic") not in PRESETS:
        known = ", ".join(PRESETS)
        raise ValidationError({"preset": f"There is no such preset. There are: {known}."})
    if stored.get("preset") == "saml" and not saml_library.is_there():
        raise ValidationError({"preset": saml_library.MISSING})
    if "openid" not in (stored.get("scope") or ["openid"]):
        raise ValidationError({"scopes": "The scope openid has to be asked for."})
    for name in ("allowed_domains", "sign_in_domains"):
        for domain in _texts(stored.get(name)):
            if "@" in domain or "/" in domain or "." not in domain.strip("."):
                raise ValidationError({name: f"{domain[:60]} is no domain, such as contoso.com."})
    _check_numbers(stored)
    closed = stored.get("allowed_domains") or stored.get("only_known_people")
    if stored.get("preset") == "google" and not closed:
        raise ValidationError(
            {"allowed_domains": "Name your domains: anybody can have a Google account."}
        )


def _check_numbers(stored: Mapping[str, Any]) -> None:
    minutes, days = stored.get("recheck_minutes") or 0, stored.get("sign_in_days") or 0
    if not isinstance(minutes, int) or (minutes and not LEAST_RECHECK <= minutes <= 10_080):
        text = f"Give 0 for never, or {LEAST_RECHECK} to 10080 minutes (a week)."
        raise ValidationError({"recheck_minutes": text})
    if not isinstance(days, int) or not 0 <= days <= 365:
        raise ValidationError({"sign_in_days": "Give 0 for never, or 1 to 365 days."})
    if minutes and stored.get("preset") == "saml":
        text = "A SAML provider cannot be asked. Have people sign in again after some days."
        raise ValidationError({"recheck_minutes": text})


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _lower(value: Any) -> frozenset[str]:
    return frozenset(item.strip().lower() for item in _texts(value))
