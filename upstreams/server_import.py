"""Add the servers a document describes: the action behind the admin page and the command."""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from upstreams import actions
from upstreams.models import CredentialKind, Upstream
from upstreams.server_documents import Candidate, DocumentRefused


@transaction.atomic
def import_servers(chosen: Iterable[tuple[Candidate, str]], actor: Any) -> list[Upstream]:
    """Add upstreams, all of them or none.

    Args:
        chosen: what ``read_document`` returned and the administrator chose, each with its
            credential kind, "" for the proposed one; with another kind, a key that the
            document holds is dropped.
        actor: for the audit trail.

    Raises:
        DocumentRefused: one cannot be added; names it and says why, without its key.
    """
    made = []
    for candidate, chosen_kind in chosen:
        if candidate.refusal:
            raise DocumentRefused(f"{candidate.name}: {candidate.refusal}")
        kind = chosen_kind or candidate.fields["credential_kind"]
        fields = {**candidate.fields, "credential_kind": kind}
        fields["key"] = _free_key(fields["key"])
        try:
            upstream = actions.create_upstream(fields, actor)
            if candidate.secret and kind == CredentialKind.FIXED:
                actions.set_fixed_credential(upstream, candidate.secret, actor)
        except ValidationError as error:
            raise DocumentRefused(f"{candidate.name}: {' '.join(error.messages)}") from error
        made.append(upstream)
    return made


def _free_key(wanted: str) -> str:
    """Return the key, with a number if it is taken."""
    taken = set(Upstream.objects.values_list("key", flat=True))
    if wanted not in taken:
        return wanted
    return next(key for number in range(2, 1000) if (key := f"{wanted[:27]}-{number}") not in taken)


def already_there(candidate: Candidate) -> Upstream | None:
    """Return an upstream that has the same address already."""
    return Upstream.objects.filter(url=candidate.fields.get("url", "")).first()
