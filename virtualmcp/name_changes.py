"""What an administrator does to public names: give another one, let a former one go (3.2.1).

A name that clients were given goes on leading to its tool or prompt, and nobody else gets it,
until it is freed. What is kept of a tool elsewhere (rules, choices, definitions, consents) goes
by the upstream's own name, so it stays with the tool whatever that is called.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from upstreams.models import Upstream
from virtualmcp.models import PublicName, VirtualMcp
from virtualmcp.signals import audit, changed
from virtualmcp.tool_names import ALPHABET, LONGEST, LONGEST_UPSTREAM, is_safe, prefixed


@dataclass(frozen=True, slots=True)
class Named:
    """A tool or prompt of a Virtual MCP; ``name`` is what its upstream calls it."""

    server: VirtualMcp
    upstream: Upstream
    kind: str
    name: str

    @property
    def word(self) -> str:
        """What it is, in a sentence."""
        return str(PublicName.Kind(self.kind).label).lower()

    def rows(self) -> "QuerySet[PublicName]":
        """Return its names, former ones too."""
        return PublicName.objects.filter(
            virtual_mcp=self.server, upstream=self.upstream, kind=self.kind, upstream_name=self.name
        )


def of_row(row: PublicName) -> Named:
    """Return what a row names."""
    return Named(row.virtual_mcp, row.upstream, row.kind, row.upstream_name)


def former_names(named: Named) -> list[str]:
    """Return the names that it had before and that still lead to it."""
    rows = named.rows().filter(former=True).order_by("public_name")
    return list(rows.values_list("public_name", flat=True))


def check(named: Named, wanted: str, freed: Collection[str] = ()) -> None:
    """Check that something may be called so, once the names ``freed`` of its own are let go.

    Raises:
        ValidationError: for ``public_name``; says what is wrong and what to do.
    """
    own = set(named.rows().values_list("public_name", flat=True))
    if wanted in own:
        current = named.rows().filter(former=False, public_name=wanted).exists()
        if not current and wanted in freed:
            _refuse(f"{wanted} cannot be given and freed at once. Do one of them.")
        return
    if not is_safe(wanted):
        _refuse(
            f"Use 1 to {LONGEST} {ALPHABET}: hosts and model APIs take no other names of "
            f"{named.word}s."
        )
    others = PublicName.objects.filter(
        virtual_mcp=named.server, kind=named.kind, public_name=wanted
    ).select_related("upstream")
    other = others.first()
    if other is not None and other.former:
        _refuse(
            f"{wanted} is a former name of {_said(other)}, and clients may still call that so. "
            "Free it on that page first."
        )
    if other is not None:
        _refuse(f"{wanted} is the name of {_said(other)}. Choose another one.")
    _check_aliases(named, wanted)


def _check_aliases(named: Named, wanted: str) -> None:
    """Refuse what others are reached by as well: their own names, alone and with the key."""
    if wanted in (named.name, prefixed(named.upstream.key, named.name)):
        return
    current = (
        PublicName.objects.filter(virtual_mcp=named.server, kind=named.kind, former=False)
        .exclude(upstream=named.upstream, upstream_name=named.name)
        .select_related("upstream")
    )
    for row in current:
        if wanted in (row.upstream_name, prefixed(row.upstream.key, row.upstream_name)):
            _refuse(
                f"{wanted} also leads to {row.public_name} of {row.upstream}, whose own name it is "
                "and which apps may call so. Choose another one."
            )


def _said(row: PublicName) -> str:
    if row.former:
        return f"the {row.get_kind_display().lower()} {row.upstream_name} of {row.upstream}"
    return f"another {row.get_kind_display().lower()}, of {row.upstream}"


def _refuse(message: str) -> None:
    raise ValidationError({"public_name": message})


@transaction.atomic
def change_name(named: Named, wanted: str, *, freed: Collection[str] = (), actor: Any) -> bool:
    """Call something ``wanted`` in public, and let some of its former names go.

    Something that no client listed yet is pinned to the name. Returns whether anything changed.

    Raises:
        ValidationError: as ``check``; also for what cannot be of this Virtual MCP.
    """
    VirtualMcp.objects.select_for_update().get(pk=named.server.pk)
    check(named, wanted, freed)
    gone = named.rows().filter(former=True, public_name__in=freed)
    let_go = sorted(gone.values_list("public_name", flat=True))
    gone.delete()
    row = named.rows().filter(former=False).first()
    before = row.public_name if row is not None else ""
    try:
        with transaction.atomic():
            _write(named, row, wanted)
    except IntegrityError as error:
        message = f"The name {wanted} has just been taken. Choose another one."
        raise ValidationError({"public_name": message}) from error
    about = {named.word: named.name}
    if wanted != before:
        _audit("name.changed", named, actor, {**about, "before": before, "after": wanted})
    if let_go:
        _audit("name.freed", named, actor, {**about, "names": let_go})
    if wanted != before or let_go:
        changed.send(sender=PublicName, kind="configuration", key=named.server.slug)
    return wanted != before or bool(let_go)


def _write(named: Named, row: PublicName | None, wanted: str) -> None:
    if row is None:
        _check_new(named)
        row = PublicName(
            virtual_mcp=named.server,
            upstream=named.upstream,
            kind=named.kind,
            upstream_name=named.name,
        )
    elif row.public_name == wanted:
        return
    named.rows().filter(former=True, public_name=wanted).delete()
    before, row.public_name, row.set_by_hand = row.public_name, wanted, True
    row.save()
    if before:
        PublicName.objects.create(
            virtual_mcp=named.server,
            upstream=named.upstream,
            kind=named.kind,
            upstream_name=named.name,
            public_name=before,
            former=True,
        )


def _check_new(named: Named) -> None:
    if not 0 < len(named.name) <= LONGEST_UPSTREAM:
        raise ValidationError(f"A {named.word}'s own name has 1 to {LONGEST_UPSTREAM} characters.")
    if not named.server.choices.filter(upstream=named.upstream).exists():
        raise ValidationError(f"{named.upstream} is not behind {named.server}. Choose it there.")


def _audit(kind: str, named: Named, actor: Any, details: dict[str, Any]) -> None:
    audit.send(
        sender=PublicName,
        kind=kind,
        user=actor,
        target=f"{named.upstream.key} in {named.server.slug}",
        details=details,
        address="",
    )
