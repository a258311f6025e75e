"""What sign-ins say of people whom trusted issuers vouch for (oauthserver.issuer_subjects)."""

from collections.abc import Callable, Mapping
from typing import Any

from allauth.socialaccount.models import SocialAccount, SocialApp
from allauth.socialaccount.signals import social_account_added

from gateway_site.identity.claims import address_in, address_is_denied, address_is_verified
from gateway_site.identity.provider import together
from gateway_site.identity.provider_facts import ProviderFacts, facts_of
from oauthserver import issuer_subjects
from oauthserver.issuer_subjects import SignIn


def connect() -> None:
    """Register with the authorization server and listen to new links; called once at start."""
    issuer_subjects.register_sign_ins(sign_ins_of)
    social_account_added.connect(_linked, dispatch_uid="vouched_people.linked")


def _linked(sender: Any, sociallogin: Any, **_: Any) -> None:
    issuer_subjects.learn(sociallogin.account)


def sign_ins_of(provider: str) -> Callable[[SocialAccount], SignIn]:
    """Return how the stored sign-ins of a provider are read."""
    app = SocialApp.objects.filter(provider_id=provider).first()
    facts = facts_of(app) if app is not None else None

    def read(account: SocialAccount) -> SignIn:
        return said_at_sign_in(facts, str(account.uid), account.extra_data)

    return read


def said_at_sign_in(facts: ProviderFacts | None, subject: str, stored: Mapping[str, Any]) -> SignIn:
    """Return what a provider said of somebody, its signed word first. Pure.

    Args:
        facts: the provider, None if it is gone; then no address is vouched for.
        subject: what it calls the person.
        stored: claims of ID token and UserInfo, or SAML's attributes.
    """
    if facts is not None and facts.preset.key == "saml":
        # The subject is not an attribute, so that none can take its place.
        sources: tuple[Mapping[str, Any], ...] = ({**stored, "sub": subject},)
        merged: dict[str, Any] = dict(stored)
    else:
        found = (stored.get("id_token"), stored.get("userinfo"))
        sources = tuple(claims for claims in found if isinstance(claims, Mapping))
        merged = together(dict(stored))
    return SignIn(sources, _vouched_address(facts, merged) if facts is not None else "")


def _vouched_address(facts: ProviderFacts, claims: dict[str, Any]) -> str:
    trusted = facts.trust_addresses and not address_is_denied(claims)
    if not (trusted or address_is_verified(claims)):
        return ""
    return address_in(claims, facts.preset.email_claims)
