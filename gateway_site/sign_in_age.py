"""After how many days people sign in again at their provider, as its administrator decided.

It bounds how long somebody who was only switched off at the provider keeps their clients, where
nothing else tells the gateway: the browser session ends, and clients are refused new tokens.
"""

from datetime import timedelta

from allauth.account import app_settings as account_settings
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import User
from django.utils import timezone

from gateway_site.identity.provider_facts import facts_of
from gateway_site.models import IdentityGrant

# A sign-in by a provider is written down in two places, not at the same instant.
_SAME_INSTANT = timedelta(minutes=1)
# In between, a person may be asked for a second factor here, for as long as that waits.
_SAME_SIGN_IN = _SAME_INSTANT + timedelta(seconds=account_settings.LOGIN_TIMEOUT)


def why_sign_in_again(user: User) -> str:
    """Return why a person's clients get no new tokens, "" if they do.

    What counts is the latest sign-in: who came in another way since, such as by a local account,
    is none of this provider's.
    """
    latest = SocialAccount.objects.filter(user_id=user.pk).order_by("-last_login").first()
    if latest is None:
        return ""
    app = SocialApp.objects.filter(provider_id=latest.provider).first()
    if app is None:
        return ""
    facts = facts_of(app)
    days = facts.sign_in_days
    since = (user.last_login or latest.last_login) - latest.last_login
    old = bool(days) and timezone.now() - latest.last_login > timedelta(days=days)
    if old and since <= _SAME_SIGN_IN:
        return f"The person has to sign in again: that is asked for every {days} days."
    # The provider may say so minutes after the sign-in: another way since then is one at once.
    asked = bool(facts.recheck_minutes) and since <= _SAME_INSTANT
    if asked and _is_asked_for(user, facts.id):
        return "The person has to sign in again: the identity provider wants to see them."
    return ""


def _is_asked_for(user: User, provider: str) -> bool:
    asked = IdentityGrant.objects.filter(user_id=user.pk, provider=provider, sign_in_asked=True)
    return bool(asked.exists())
