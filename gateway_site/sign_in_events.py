"""Sign-ins, failed ones and second factors, for the audit trail and the log."""

from typing import Any

from allauth.account.authentication import get_authentication_records
from allauth.account.signals import (
    password_changed,
    password_reset,
    password_set,
)
from allauth.account.signals import user_logged_in as arrived
from allauth.mfa.signals import authenticator_added, authenticator_removed, authenticator_reset
from allauth.socialaccount.signals import social_account_added, social_account_removed
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed

from gateway_site import audit_trail
from gateway_site.identity import arrival, provider_sessions


def connect() -> None:
    """Connect the receivers once."""
    receivers = (
        (user_logged_in, _signed_in),
        (user_logged_in, provider_sessions.arrived),
        (arrived, arrival.signed_in),
        (user_logged_out, _signed_out),
        (user_login_failed, _failed),
        (password_changed, _password_changed),
        (password_set, _password_changed),
        (password_reset, _password_changed),
        (social_account_added, _provider_linked),
        (social_account_removed, _provider_unlinked),
        (authenticator_added, _factor_added),
        (authenticator_removed, _factor_removed),
        (authenticator_reset, _factor_added),
    )
    for signal, receiver in receivers:
        signal.connect(receiver, dispatch_uid=f"audit_trail.{receiver.__name__}.{id(signal)}")


def _signed_in(sender: Any, request: Any, user: Any, **_: Any) -> None:
    audit_trail.record("person.signed_in", user=user, details=_way_in(request, user))


def _way_in(request: Any, user: Any) -> dict[str, str]:
    """Return by what somebody came in: a password or a provider, and with which second factor."""
    steps = get_authentication_records(request, user) if hasattr(request, "session") else []
    # A session keeps those of earlier sign-ins too.
    first = [number for number, step in enumerate(steps) if step["method"] != "mfa"]
    if not first:
        return {"how": getattr(user, "backend", "").rpartition(".")[2]}
    way, factors = steps[first[-1]], steps[first[-1] + 1 :]
    found = {"how": str(way["method"])}
    if way["method"] == "socialaccount":
        found = {"how": "identity provider", "provider": str(way.get("provider", ""))}
    return found | ({"second_factor": str(factors[-1].get("type", ""))} if factors else {})


def _signed_out(sender: Any, request: Any, user: Any, **_: Any) -> None:
    if user is not None:
        audit_trail.record("person.signed_out", user=user)


def _failed(sender: Any, credentials: dict[str, Any], **_: Any) -> None:
    """Note the name that was tried; people do type passwords there, so only a known one is kept."""
    from django.contrib.auth.models import User

    tried = str(credentials.get("username") or credentials.get("email") or "")[:150]
    known = User.objects.filter(username=tried).exists() if tried else False
    audit_trail.record("person.sign_in_failed", target=tried if known else "an unknown name")


def _password_changed(sender: Any, user: Any, **_: Any) -> None:
    audit_trail.record("person.password_changed", user=user, target=user.get_username())


def _provider_linked(sender: Any, sociallogin: Any, **_: Any) -> None:
    account = sociallogin.account
    audit_trail.record("person.provider_linked", user=sociallogin.user, target=account.provider)


def _provider_unlinked(sender: Any, socialaccount: Any, **_: Any) -> None:
    audit_trail.record(
        "person.provider_unlinked", user=socialaccount.user, target=socialaccount.provider
    )


def _factor_added(sender: Any, user: Any, authenticator: Any, **_: Any) -> None:
    audit_trail.record("person.second_factor_added", user=user, target=str(authenticator.type))


def _factor_removed(sender: Any, user: Any, authenticator: Any, **_: Any) -> None:
    audit_trail.record("person.second_factor_removed", user=user, target=str(authenticator.type))
