"""What a person decided about a client: check, change and audit in one place.

The pages, the admin and the command line call these; nothing else writes a ConsentRecord.
"""

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from consent import agreement
from consent.models import ConsentRecord
from consent.signals import audit
from consent.upstream_checklist import Checklist
from oauthserver.actions import revoke_tokens
from oauthserver.audience import Resource
from oauthserver.models import OAuthClient


@dataclass(frozen=True, slots=True)
class Question:
    """What the person was asked: who wants to use what, and where the code would go.

    ``resource`` is None while the person has not chosen one (protocol.md d13).
    """

    client: OAuthClient
    resource: Resource | None
    scopes: tuple[str, ...]
    redirect_uri: str
    redirect_host: str


class NotReadyError(Exception):
    """A required upstream is not connected; the message names it for the person."""


def grant(user: User, question: Question, checklist: Checklist, *, address: str) -> ConsentRecord:
    """Record the person's yes.

    Raises:
        NotReadyError: a required upstream is missing (security.md 83).
    """
    assert question.resource is not None
    if checklist.why_not:
        raise NotReadyError(checklist.why_not)
    agreed = agreement.offered(question.resource.slug, question.client)
    with transaction.atomic():
        record, _ = ConsentRecord.objects.update_or_create(
            user=user,
            client=question.client,
            resource=question.resource.uri,
            defaults={
                "virtual_mcp_slug": question.resource.slug,
                "scopes": " ".join(question.scopes),
                "upstreams": checklist.ready_keys,
                "agreed": agreed,
                "redirect_uri": question.redirect_uri,
                "revoked_at": None,
                "outgrown_at": None,
            },
        )
        details = _details(question) | {"upstreams": checklist.ready_keys, "agreed": agreed}
        _tell("consent.given", user, question, details, address)
    return record


def decline(user: User, question: Question, *, address: str) -> None:
    """Record the person's no; an earlier yes stays what it was."""
    _tell("consent.declined", user, question, _details(question), address)


def revoke(record: ConsentRecord, *, actor: User, address: str = "") -> None:
    """Take a yes back: the client's tokens for this Virtual MCP stop working at once."""
    with transaction.atomic():
        record.revoked_at = timezone.now()
        record.save(update_fields=["revoked_at"])
        revoke_tokens(user=record.user, client=record.client, resource=record.resource, actor=actor)
        audit.send(
            sender=ConsentRecord,
            kind="consent.revoked",
            user=actor,
            target=record.virtual_mcp_slug,
            details={"client_id": record.client.client_id, "person": record.user.get_username()},
            address=address,
        )


def clients_let_in(user: User) -> list[str]:
    """Return the names of the clients that a person's yes holds for."""
    records = ConsentRecord.objects.filter(user=user, revoked_at=None)
    names = records.order_by("client__name").values_list("client__name", flat=True)
    return list(dict.fromkeys(name or "A program without a name" for name in names))


def _details(question: Question) -> dict[str, object]:
    return {
        "client_id": question.client.client_id,
        "client_name": question.client.name,
        "redirect_host": question.redirect_host,
        "scopes": list(question.scopes),
    }


def _tell(
    kind: str, user: User, question: Question, details: dict[str, object], address: str
) -> None:
    audit.send(
        sender=ConsentRecord,
        kind=kind,
        user=user,
        target=question.resource.slug if question.resource else "",
        details=details,
        address=address,
    )
