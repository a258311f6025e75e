"""Which family of revisions an upstream speaks: found out once, kept, and healed (protocol.md 2.2).

The question is ``server/discover`` sent as a modern request, which no stateful server
carries out by mistake. What is found out is kept in the process and written to the
upstream's row, for other processes and the next start. A wrong memory is mended when an
upstream contradicts it, at most twice a minute.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from upstreams import json_rpc, legacy_sessions, modern_exchange
from upstreams.call_answer import NoMessage
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.database_calls import in_thread
from upstreams.errors import (
    CredentialRefused,
    UpstreamAnswerInvalid,
    UpstreamError,
    UpstreamIncompatible,
)
from upstreams.json_rpc import NotJsonRpc
from upstreams.models import EraChoice, Upstream
from upstreams.revisions import LEGACY_ACCEPTED, LEGACY_LATEST, MODERN, Era
from upstreams.session_opening import InitializeRefused
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential

log = logging.getLogger(__name__)

PROBE_SECONDS: Final = 10.0
BETWEEN_REPROBES: Final = 30.0
LEGACY_VALID: Final = 3600.0
HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32020, -32021, -32022
MODERN_ERRORS: Final = frozenset({HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION})
# Statuses by which a server says that it does not know the kind of request at all.
CONTRADICTING: Final = frozenset({400, 404, 405, 406, 415})


@dataclass(frozen=True, slots=True)
class KnownEra:
    """What was found out, at which address and (monotonic seconds) when."""

    url: str
    era: Era
    revision: str
    at: float


_ERAS: Final = {era.value: era for era in Era}
_known: dict[int, KnownEra] = {}
_reprobed: dict[int, float] = {}
_probing: dict[tuple[Any, ...], asyncio.Task[KnownEra]] = {}
_background: set[asyncio.Task[None]] = set()


def known_era(facts: UpstreamFacts) -> Era | None:
    """Return the era without asking anybody, None if it has to be found out."""
    if facts.era != EraChoice.AUTO:
        return _ERAS[facts.era]
    known = _known.get(facts.id)
    if known is not None and known.url == facts.url:
        return known.era
    return _ERAS.get(facts.detected_era)


def known_revision(facts: UpstreamFacts, era: Era) -> str:
    """Return the revision that goes with the era, as far as it is known."""
    if era is Era.MODERN:
        return MODERN
    known = _known.get(facts.id)
    if known is not None and known.url == facts.url and known.era is era:
        return known.revision
    return facts.detected_revision if facts.detected_era == era else LEGACY_LATEST


def forget(upstream_id: int | None = None) -> None:
    """Drop what was found out, of one upstream or of all."""
    if upstream_id is None:
        _known.clear()
        _reprobed.clear()
    else:
        _known.pop(upstream_id, None)
        _reprobed.pop(upstream_id, None)


async def find_out(
    facts: UpstreamFacts,
    credential: "Credential",
    client: ClientFacts | None = None,
    principal: str = "",
) -> Era:
    """Probe the upstream; asks running at the same time share one probe.

    Raises:
        CredentialRefused: 401 or 403: no verdict, authorize first.
        UpstreamIncompatible: it speaks only revisions the gateway does not.
        UpstreamError: it is down, or no MCP server; nothing is remembered.
    """
    loop = asyncio.get_running_loop()
    key = (loop, facts.id, facts.url, credential.id, principal)
    task = _probing.get(key)
    if task is None:
        probe = _probe(facts, credential, client or ClientFacts(), principal)
        task = _probing[key] = loop.create_task(probe)
        task.add_done_callback(lambda done: _probed(key, done))
    found = await asyncio.shield(task)
    return found.era


def _probed(key: tuple[Any, ...], done: "asyncio.Task[KnownEra]") -> None:
    _probing.pop(key, None)
    if not done.cancelled():
        done.exception()  # seen here, although everybody who waited may have left


def look_for_modern(
    facts: UpstreamFacts, credential: "Credential", client: ClientFacts, principal: str
) -> None:
    """See from time to time, beside the calls, whether a stateful upstream has become stateless.

    The stateless revision is preferred wherever it is offered (D2).
    """
    known = _known.get(facts.id)
    fresh = known is not None and time.monotonic() - known.at < LEGACY_VALID
    if fresh or facts.era != EraChoice.AUTO:
        return
    now = time.monotonic()
    _known[facts.id] = KnownEra(facts.url, Era.LEGACY, known_revision(facts, Era.LEGACY), now)
    probe = legacy_sessions.quietly(find_out(facts, credential, client, principal))
    task = asyncio.get_running_loop().create_task(probe)
    _background.add(task)
    task.add_done_callback(_background.discard)


async def find_out_again(
    facts: UpstreamFacts, credential: "Credential", client: ClientFacts, principal: str, was: Era
) -> Era:
    """Probe after a contradiction; returns ``was`` when it must not be asked again yet.

    Raises:
        UpstreamError: as for ``find_out``.
    """
    if facts.era != EraChoice.AUTO:
        return was
    known = known_era(facts)
    if known is not None and known is not was:
        return known
    now = time.monotonic()
    if now - _reprobed.get(facts.id, -BETWEEN_REPROBES) < BETWEEN_REPROBES:
        return was
    _reprobed[facts.id] = now
    return await find_out(facts, credential, client, principal)


async def _probe(
    facts: UpstreamFacts, credential: "Credential", client: ClientFacts, principal: str
) -> KnownEra:
    verdict = await _discover(facts, credential)
    if verdict is None:
        verdict = await _initialize(facts, credential, client, principal)
    era, revision = verdict
    known = KnownEra(facts.url, era, revision, time.monotonic())
    _known[facts.id] = known
    if (facts.detected_era, facts.detected_revision) != (era, revision):
        task = asyncio.get_running_loop().create_task(_save(facts, era, revision))
        _background.add(task)
        task.add_done_callback(_background.discard)
    return known


async def _discover(facts: UpstreamFacts, credential: "Credential") -> tuple[Era, str] | None:
    """Ask ``server/discover``; None means: try ``initialize``.

    Raises:
        UpstreamError: no verdict, or none the gateway can live with.
    """
    call = CanonicalCall(method="server/discover", timeout=PROBE_SECONDS)
    try:
        outcome, _ = await modern_exchange.exchange(facts, credential, call, SilentSink())
    except NoMessage as answer:
        if answer.status == 403:
            raise CredentialRefused(answer.message, detail=answer.detail) from answer
        if answer.status >= 500:
            raise
        return None
    except UpstreamAnswerInvalid as answer:
        log.info("%s answered server/discover with no valid message: %s", facts.key, answer.detail)
        if answer.__cause__ is not None and isinstance(answer.__cause__, NotJsonRpc):
            return None
        raise
    try:
        if outcome.result:
            members = json_rpc.members_of(outcome.result)
            return _choose(facts, members.get("supportedVersions"))
        error = json_rpc.error_of(outcome.error)
        if error.code == UNSUPPORTED_VERSION:
            members = json_rpc.members_of(error.data or b"{}")
            return _choose(facts, members.get("supported"))
    except NotJsonRpc:
        return None
    if error.code in MODERN_ERRORS:
        log.error("%s refused server/discover with error %d", facts.key, error.code)
        return Era.MODERN, MODERN
    return None


def _choose(facts: UpstreamFacts, versions: json_rpc.Raw | None) -> tuple[Era, str] | None:
    """Read a list of supported versions.

    Raises:
        UpstreamIncompatible: only stateless revisions the gateway does not know.
    """
    found = json_rpc.plain(versions) if versions is not None else []
    named = [version for version in found if isinstance(version, str)] if found else []
    if MODERN in named:
        return Era.MODERN, MODERN
    if any(version in LEGACY_ACCEPTED for version in named) or not named:
        return None
    raise UpstreamIncompatible(
        f"{facts.title} speaks a protocol revision that the gateway does not know.",
        detail=f"it supports {', '.join(named)[:200]}",
    )


async def _initialize(
    facts: UpstreamFacts, credential: "Credential", client: ClientFacts, principal: str
) -> tuple[Era, str]:
    """Try the stateful opening; its session serves the call that asked.

    Raises:
        UpstreamError: it is no stateful server either.
    """
    sessions = legacy_sessions.sessions()
    try:
        session = await sessions.take(facts, credential, client, principal)
    except InitializeRefused as refused:
        if refused.error_code != UNSUPPORTED_VERSION:
            raise
        verdict = await _discover(facts, credential)
        if verdict is None:
            raise UpstreamIncompatible(
                f"{facts.title} speaks a protocol revision that the gateway does not know.",
                detail=f"initialize: error {refused.error_code}",
            ) from refused
        return verdict
    except NoMessage as answer:
        if answer.status == 403:
            raise CredentialRefused(answer.message, detail=answer.detail) from answer
        raise
    return Era.LEGACY, session.revision


async def _save(facts: UpstreamFacts, era: Era, revision: str) -> None:
    """Write the verdict to the row; only a memory, so that its failure hurts nobody."""
    row = Upstream.objects.filter(pk=facts.id, url=facts.url)
    try:
        await in_thread(row.update, detected_era=era.value, detected_revision=revision)
    except Exception:  # any database trouble: the next process asks the upstream itself
        log.warning("could not save what %s speaks", facts.key, exc_info=True)


def contradicts_modern(outcome_error: bytes, status: int) -> bool:
    """Whether an error answer cannot be one of a stateless server that takes our revision."""
    if not outcome_error or status not in CONTRADICTING:
        return False
    try:
        code = json_rpc.error_of(outcome_error).code
    except NotJsonRpc:
        return True
    return code == UNSUPPORTED_VERSION or code in (-32600, -32000)


def contradicts_opening(error: UpstreamError) -> bool:
    """Whether a failed ``server/discover`` or ``initialize`` speaks against what is remembered."""
    known_status = isinstance(error, NoMessage) and error.status in (200, *CONTRADICTING)
    return known_status or contradicts_legacy(error)


def contradicts_legacy(error: UpstreamError) -> bool:
    """Whether a failed opening may mean that the upstream has become stateless."""
    if isinstance(error, InitializeRefused):
        return error.error_code == UNSUPPORTED_VERSION
    return isinstance(error, NoMessage) and error.status in CONTRADICTING
