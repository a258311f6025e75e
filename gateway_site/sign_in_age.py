"""After how many days people sign in again at their provider, as its administrator decided.

It bounds how long somebody who was only switched off at the provider keeps their clients, where
nothing else tells the gateway: the browser session ends, and clients are refused new tokens.
"""

from datetime import timedelta

from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import User
from django.utils import timezone

from gateway_site.identity.provider_facts import facts_of

# A sign-in by a provider is written down in two places, not at the same instant.
_SAME_SIGN_IN = timedelta(minutes=1)


def why_sign_in_again(user: User) -> str:
    """Return why a person's clients get no new tokens, "" if they do.

    What counts is the latest sign-in: who came in another way since, such as by a local account,
    is none of this provider's.
    """
    latest = SocialAccount.objects.filter(user_id=user.pk).order_by("-last_login").first()
    if latest is None:
        return ""
    app = SocialApp.objects.filter(provider_id=latest.provider).first()
    days = facts_of(app).sign_in_days if app is not None else 0
    if not days or timezone.now() - latest.last_login <= timedelta(days=days):
        return ""
    if user.last_login is not None and user.last_login > latest.last_login + _SAME_SIGN_IN:
        return ""
    return f"The person has to sign in again: that is asked for every {days} days."
