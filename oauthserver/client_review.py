"""Asking an administrator to admit a client, and the administrator's answer; the policy itself.

Only a signed-in person who brings a client to the consent page puts it into the queue: whoever
may register without signing in must not be able to fill an administrator's list.
"""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from oauthserver.actions import end_tokens, tell
from oauthserver.client_admission import MOST_HOSTS, problem_with_host
from oauthserver.models import ClientPolicy, OAuthClient
from oauthserver.signals import audit

MOST_WAITING = 500
POLICY_FIELDS = (
    "documents",
    "registration",
    "allowed_hosts",
    "advice",
    "forget_after_days",
    "machine_access",
)


def ask_for_review(client: OAuthClient, person: Any, *, address: str) -> bool:
    """Put a client into the administrators' queue, once.

    Returns:
        Whether it is there; False beyond ``MOST_WAITING``, where nothing is stored.
    """
    reviews = OAuthClient.Review
    if client.review != reviews.NONE:
        return True
    if OAuthClient.objects.filter(review=reviews.WAITING).count() >= MOST_WAITING:
        return False
    client.review = reviews.WAITING
    client.review_asked_by = person.get_username()
    try:
        with transaction.atomic():
            if client.pk is None:
                client.save()
            else:
                client.save(update_fields=["review", "review_asked_by", "updated"])
            tell("client.approval_asked", client, person, address=address)
    except IntegrityError:
        # Somebody else asked for the same client a moment ago.
        pass
    return True


def review_client(client: OAuthClient, approve: bool, *, actor: Any) -> None:
    """Admit a client whatever the policy says, or refuse it and end what it holds."""
    with transaction.atomic():
        client.review = client.Review.APPROVED if approve else client.Review.REFUSED
        client.reviewed_at = timezone.now()
        client.save(update_fields=["review", "reviewed_at", "updated"])
        if not approve:
            end_tokens(application=client)
        tell("client.approved" if approve else "client.refused", client, actor)


def review_again(client: OAuthClient) -> None:
    """Take an approval back because the client is no longer what was approved.

    Call in the transaction that saves the change, before it. Only an approval turns into
    waiting: what an administrator decided since ``client`` was read stands, and is read.
    """
    reviews = client.Review
    approved = OAuthClient.objects.filter(pk=client.pk, review=reviews.APPROVED)
    approved.update(review=reviews.WAITING)
    client.refresh_from_db(fields=["review"])


def set_policy(values: Mapping[str, Any], *, actor: Any) -> list[str]:
    """Change the policy; returns the names of what changed.

    Without machine access the tokens of service accounts end at once.

    Raises:
        ValidationError: by field.
    """
    unknown = set(values) - set(POLICY_FIELDS)
    if unknown:
        raise ValidationError(f"The client policy has no {', '.join(sorted(unknown))}.")
    with transaction.atomic():
        policy = ClientPolicy.objects.select_for_update().order_by("pk").first() or ClientPolicy()
        before = {name: getattr(policy, name) for name in POLICY_FIELDS}
        for name, value in values.items():
            setattr(policy, name, value)
        _check(policy)
        changed = [name for name in POLICY_FIELDS if before[name] != getattr(policy, name)]
        if changed:
            policy.save()
            if before["machine_access"] and not policy.machine_access:
                grant = OAuthClient.GRANT_CLIENT_CREDENTIALS
                end_tokens(application__authorization_grant_type=grant)
            details = {name: {"before": before[name], "after": values[name]} for name in changed}
            audit.send(
                sender=ClientPolicy,
                kind="client.policy_changed",
                user=actor,
                target="",
                details=details,
                address="",
            )
    return changed


def _check(policy: ClientPolicy) -> None:
    hosts = policy.allowed_hosts
    if not isinstance(hosts, list) or len(hosts) > MOST_HOSTS:
        raise ValidationError({"allowed_hosts": f"List at most {MOST_HOSTS} hosts."})
    for entry in hosts:
        if problem := problem_with_host(entry):
            raise ValidationError({"allowed_hosts": f"{problem} Not: {str(entry)[:100]}"})
    if not hosts and policy.Mode.HOSTS in (policy.documents, policy.registration):
        raise ValidationError({"allowed_hosts": "List at least one host, or choose another rule."})
    policy.full_clean()
