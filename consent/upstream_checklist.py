"""Which upstreams stand behind a Virtual MCP, and what a person still has to do for each.

The consent page shows this list and the server refuses an approval by it (security.md 83), so
both always see the same facts.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.db.models import QuerySet

from upstreams.accounts import status_for
from upstreams.models import CredentialKind, Upstream
from virtualmcp.access_policy import open_choices
from virtualmcp.models import UpstreamChoice


@dataclass(frozen=True, slots=True)
class ChecklistRow:
    """One upstream on the page, in words and states the template only has to print."""

    upstream: Upstream
    required: bool
    state: str
    label: str
    scope: str
    reason: str

    @property
    def key(self) -> str:
        """The upstream's key, as in ``/connect/<key>/``."""
        return self.upstream.key

    @property
    def host(self) -> str:
        """Where the upstream is, so that a person sees whom they connect (security.md 70)."""
        return urlsplit(self.upstream.url).netloc

    @property
    def ready(self) -> bool:
        """Whether calls through this upstream would work now."""
        return self.state in ("connected", "not_needed")

    @property
    def own_account(self) -> bool:
        """Whether each person has their own account or key there."""
        return self.upstream.credential_kind in (
            CredentialKind.USER_OAUTH,
            CredentialKind.USER_KEY,
        )

    @property
    def connectable(self) -> bool:
        """Whether there is something the person can do about it on this page."""
        personal = self.own_account or self.by_company
        return personal and self.state in ("not_connected", "needs_reconnect")

    @property
    def by_key(self) -> bool:
        """Whether connecting means pasting a key instead of visiting the upstream."""
        return self.upstream.credential_kind == CredentialKind.USER_KEY

    @property
    def by_company(self) -> bool:
        """Whether connecting means signing in again with the company's identity provider."""
        return self.upstream.credential_kind == CredentialKind.ENTERPRISE

    @property
    def blocking(self) -> bool:
        """Whether approval has to wait for it.

        What an administrator switched off cannot be connected by anybody, and is left out of the
        answers in any case, so it holds up nobody.
        """
        return self.required and not self.ready and self.upstream.enabled


@dataclass(frozen=True, slots=True)
class Checklist:
    """All rows, in the administrator's order."""

    rows: tuple[ChecklistRow, ...]

    @property
    def why_not(self) -> str:
        """Return the sentence that says what approval waits for, or "" when nothing is missing."""
        to_connect = [r.upstream.title for r in self.rows if r.blocking and r.connectable]
        broken = [r.upstream.title for r in self.rows if r.blocking and not r.connectable]
        sentences = []
        if to_connect:
            sentences.append(f"Connect {_listed(to_connect)} first.")
        if broken:
            verb = "is" if len(broken) == 1 else "are"
            sentences.append(
                f"{_listed(broken)} {verb} required here but not available; "
                "your administrator has to see to that."
            )
        return " ".join(sentences)

    @property
    def ready_keys(self) -> list[str]:
        """Keys of the upstreams that work for this person, as kept in the consent record."""
        return [row.key for row in self.rows if row.ready]


def checklist_for(user: User, slug: str) -> Checklist:
    """Return the checklist of one Virtual MCP for one person; empty for an unknown slug.

    Upstreams that access rules deny this person are not on it: nobody connects what they may not
    use, and nothing holds up an approval for it.
    """
    choices = open_choices(user).filter(virtual_mcp__slug=slug).select_related("upstream")
    return Checklist(tuple(_row(user, choice) for choice in choices))


def _row(user: User, choice: UpstreamChoice) -> ChecklistRow:
    upstream = choice.upstream
    status = status_for(user, upstream)
    asked = upstream.oauth_scopes if upstream.credential_kind == CredentialKind.USER_OAUTH else ""
    scope = status.scope or asked
    return ChecklistRow(upstream, choice.required, status.state, status.label, scope, status.reason)


def may_connect(user: User, upstream: Upstream) -> bool:
    """Whether a Virtual MCP this person may use leads to ``upstream``: nobody needs others."""
    return reachable_upstreams(user).filter(pk=upstream.pk).exists()


def reachable_upstreams(user: User) -> QuerySet[Upstream]:
    """Return the enabled upstreams behind the Virtual MCPs this person may use."""
    choices = open_choices(user)
    return Upstream.objects.filter(enabled=True, pk__in=choices.values("upstream_id"))


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"
