"""Try an upstream step by step, as its administrator's "Test connection" shows it.

Every step is one that a connect or a call takes; the first that fails says what to do.
Nothing is registered and no account is made by trying.
"""

import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from django.utils import timezone

from upstreams import (
    credential_building,
    credentials,
    health_record,
    oauth_discovery,
    oauth_registration,
    oauth_trace,
)
from upstreams.canonical_call import CanonicalCall, SilentSink
from upstreams.credentials import Credential
from upstreams.database_calls import in_thread
from upstreams.egress_guard import check_url_by, host_of, resolve_by, upstream_rules
from upstreams.errors import HeldBack, NeedsConnection, SetupFailed, UpstreamError
from upstreams.health_record import Finding
from upstreams.models import CredentialKind, OAuthTrace, Upstream
from upstreams.oauth_challenge import Challenge
from upstreams.oauth_discovery import RESOURCE_STEP, SERVER_STEP, Discovered
from upstreams.revisions import Era
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

StepState = Literal["ok", "failed", "skipped"]
MAX_TOOLS: Final = 1000
MAX_PAGES: Final = 50
_TITLES: Final = {
    RESOURCE_STEP: "Protected resource metadata",
    SERVER_STEP: "Authorization server metadata",
}


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """One step; ``detail`` is for the administrator only."""

    name: str
    title: str
    state: StepState
    text: str
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the step did not fail."""
        return self.state != "failed"


@dataclass(slots=True)
class ProbeReport:
    """What was tried, in order; ``held_back`` says that the gateway itself broke it off."""

    steps: list[ProbeStep] = field(default_factory=list)
    era: str = ""
    revision: str = ""
    tools: int | None = None
    at: str = ""
    held_back: bool = False
    trace: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return all(step.ok for step in self.steps)

    @property
    def complete(self) -> bool:
        """Whether every step was tried."""
        return all(step.state != "skipped" for step in self.steps)

    def add(self, name: str, title: str, text: str, *, detail: str = "") -> None:
        """Note a step that went well."""
        self.steps.append(ProbeStep(name, title, "ok", text, detail))

    def skip(self, name: str, title: str, text: str) -> None:
        """Note a step that could not be tried."""
        self.steps.append(ProbeStep(name, title, "skipped", text))

    def fail(self, name: str, title: str, error: UpstreamError) -> None:
        """Note a step that failed."""
        self.held_back = self.held_back or isinstance(error, HeldBack)
        detail = error.detail if error.detail != error.message else ""
        self.steps.append(ProbeStep(name, title, "failed", error.message, detail))

    def as_json(self) -> dict[str, Any]:
        """Return a form for the database."""
        return {**asdict(self), "ok": self.ok, "trace": []}


class _Page(msgspec.Struct):
    tools: list[msgspec.Raw] = []
    nextCursor: str | None = None  # noqa: N815


async def probe(upstream: Upstream, user: "User | None" = None) -> ProbeReport:
    """Try everything, store the report on the upstream and return it.

    ``user`` is the person whose account is used where the upstream wants one each.
    """
    report = ProbeReport(at=timezone.now().isoformat(timespec="seconds"))
    async with oauth_trace.recording(
        oauth_trace.Purpose.TEST, upstream.pk, user.pk if user else None
    ) as trace:
        challenge = await _try_address(upstream, report)
        if report.ok and upstream.credential_kind == CredentialKind.USER_OAUTH:
            await _try_oauth(upstream, challenge, report)
        if report.ok:
            await _try_protocol(upstream, user, report)
        failed = next((step for step in report.steps if not step.ok), None)
        if failed is not None:
            trace.outcome = OAuthTrace.Outcome.FAILED
            trace.failed_step, trace.message = failed.name, failed.text
    report.trace = trace.steps
    await in_thread(_store, upstream, report)
    if not report.held_back:
        await in_thread(health_record.record, upstream.pk, _finding(report))
    return report


def _finding(report: ProbeReport) -> Finding:
    failed = next((step for step in report.steps if not step.ok), None)
    if failed is None:
        return Finding(tools=report.tools)
    said = f"{failed.title}: {failed.text}"
    return Finding(f"{said} ({failed.detail})" if failed.detail else said)


def _store(upstream: Upstream, report: ProbeReport) -> None:
    values: dict[str, Any] = {"last_checked_at": timezone.now(), "last_check": report.as_json()}
    if report.revision:
        values |= {"detected_era": report.era, "detected_revision": report.revision}
    Upstream.objects.filter(pk=upstream.pk).update(**values)
    for name, value in values.items():
        setattr(upstream, name, value)


async def _try_address(upstream: Upstream, report: ProbeReport) -> Challenge | None:
    title, rules = "Address", upstream_rules(upstream)
    try:
        check_url_by(upstream.url, rules)
        parts = urlsplit(upstream.url)
        plain = parts.scheme == "http"
        port = parts.port or (80 if plain else 443)
        addresses = await resolve_by(host_of(parts), port, rules, plain=plain)
        challenge = await oauth_discovery.read_challenge(upstream, rules)
    except UpstreamError as error:
        report.fail("address", title, error)
        return None
    asks = "asks for a sign-in" if challenge is not None else "answers without a sign-in"
    report.add("address", title, f"Reachable; it {asks}.", detail=", ".join(addresses))
    return challenge


async def _try_oauth(upstream: Upstream, challenge: Challenge | None, report: ProbeReport) -> None:
    """Take the same steps as ``oauth_discovery.discover``, noting each."""
    rules, policy = upstream_rules(upstream), oauth_discovery.policy_of(upstream)
    try:
        found = await oauth_discovery.discover_from(upstream, challenge, rules, policy)
    except SetupFailed as error:
        if error.step == SERVER_STEP:
            report.add(RESOURCE_STEP, _TITLES[RESOURCE_STEP], "Read.")
        report.fail(error.step, _TITLES.get(error.step, error.step), error)
        return
    text = (
        f"The upstream calls itself {found.resource}."
        if found.has_resource_metadata
        else "None; taken as a server of 2025-03-26, whose origin is its authorization server."
    )
    report.add(RESOURCE_STEP, _TITLES[RESOURCE_STEP], text)
    signed = "names itself in answers" if found.server.iss_in_answer else "does not name itself"
    pkce = "PKCE S256" if found.server.pkce else "PKCE not announced"
    report.add(SERVER_STEP, _TITLES[SERVER_STEP], f"{found.server.issuer}, {pkce}, {signed}.")
    _judge_registration(upstream, found, report)


def _judge_registration(upstream: Upstream, found: Discovered, report: ProbeReport) -> None:
    title = "Registration"
    if upstream.oauth_client_id:
        text = f"Uses the client id entered here ({upstream.oauth_client_id})."
    elif oauth_registration.document_for(found.server):
        text = f"Uses the gateway's document {oauth_registration.document_for(found.server)}."
    elif found.server.registration_endpoint:
        text = "The gateway registers itself at the first connect."
    else:
        report.fail("registration", title, oauth_registration.ask_administrator(found.server))
        return
    report.add("registration", title, text)


async def _credential(
    upstream: Upstream, user: "User | None", facts: UpstreamFacts, report: ProbeReport
) -> Credential | None:
    title = "Credential"
    try:
        found = await credentials.credential_for(user.pk if user else 0, facts)
    except NeedsConnection:
        report.skip(
            "credential", title, "Connect your own account to this upstream to test the rest."
        )
        return None
    except UpstreamError as error:
        if credential_building.awaits_first_connection(error):
            report.skip("credential", title, "Connect the shared account to test the rest.")
        else:
            report.fail("credential", title, error)
        return None
    report.add("credential", title, f"{upstream.get_credential_kind_display()}.")
    return found


async def _try_protocol(upstream: Upstream, user: "User | None", report: ProbeReport) -> None:
    from upstreams import mcp_client

    facts = UpstreamFacts.of(upstream)
    credential = await _credential(upstream, user, facts, report)
    if credential is None:
        return
    try:
        era, revision = await mcp_client.era_of(facts, credential)
    except UpstreamError as error:
        report.fail("protocol", "Protocol", error)
        return
    report.era, report.revision = str(era), revision
    family = "stateless" if era == Era.MODERN else "stateful"
    report.add("protocol", "Protocol", f"Speaks {revision} ({family}).")
    try:
        report.tools = await count_tools(facts, credential)
    except (UpstreamError, msgspec.DecodeError) as error:
        failure = (
            error
            if isinstance(error, UpstreamError)
            else UpstreamError("The list of tools cannot be read.", detail=type(error).__name__)
        )
        report.fail("tools", "Tools", failure)
        return
    more = " or more" if report.tools >= MAX_TOOLS else ""
    report.add("tools", "Tools", f"Lists {report.tools}{more}.")


async def count_tools(facts: UpstreamFacts, credential: Credential) -> int:
    """Return how many tools a server lists, at most a thousand and a page more.

    Raises:
        UpstreamError: it does not list them.
        msgspec.DecodeError: what it lists cannot be read.
    """
    from upstreams import mcp_client

    total, cursor = 0, None
    for _ in range(MAX_PAGES):
        params = msgspec.json.encode({"cursor": cursor}) if cursor else b"{}"
        call = CanonicalCall("tools/list", params=params, timeout=facts.list_timeout)
        outcome = await mcp_client.call(facts, credential, call, SilentSink())
        if outcome.error:
            raise UpstreamError(
                "The upstream refused to list its tools.",
                detail=outcome.error[:300].decode("utf-8", "replace"),
            )
        page = msgspec.json.decode(outcome.result, type=_Page)
        total += len(page.tools)
        cursor = page.nextCursor
        if not cursor or total >= MAX_TOOLS:
            break
    return total
