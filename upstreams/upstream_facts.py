"""An immutable snapshot of one upstream's configuration, so that the relay path asks no ORM."""

from dataclasses import dataclass
from typing import Final

from upstreams.models import SessionScope, Upstream

# Where an upstream's page leaves it open: room for a tool that works with the model for a while.
SAMPLING_PER_MINUTE: Final = 20
SAMPLING_TOKENS_PER_DAY: Final = 1_000_000


@dataclass(slots=True, frozen=True)
class UpstreamFacts:
    """What the data path must know of an upstream; times in seconds."""

    id: int
    key: str
    title: str
    url: str
    enabled: bool
    era: str
    detected_era: str
    detected_revision: str
    credential_kind: str
    credential_placement: str
    credential_name: str
    credential_prefix: str
    private_network: str
    call_timeout: float
    list_timeout: float
    max_in_flight: int = 200
    max_answer_bytes: int = 10 * 1024 * 1024
    # Sent with every request; their values are in the vault.
    further_header_names: tuple[str, ...] = ()
    session_scope: str = SessionScope.PERSON
    # What it may ask of one person's own model (protocol.md 3.6).
    sampling_per_minute: int = SAMPLING_PER_MINUTE
    sampling_tokens_per_day: int = SAMPLING_TOKENS_PER_DAY

    @classmethod
    def of(cls, upstream: Upstream) -> "UpstreamFacts":
        """Take the snapshot of a row that was just read."""
        return cls(
            id=upstream.pk,
            key=upstream.key,
            title=upstream.title,
            url=upstream.url,
            enabled=upstream.enabled,
            era=upstream.era,
            detected_era=upstream.detected_era,
            detected_revision=upstream.detected_revision,
            credential_kind=upstream.credential_kind,
            credential_placement=upstream.credential_placement,
            credential_name=upstream.credential_name,
            credential_prefix=upstream.credential_prefix,
            private_network=upstream.private_network,
            call_timeout=float(upstream.call_timeout),
            list_timeout=float(upstream.list_timeout),
            max_in_flight=upstream.max_in_flight,
            max_answer_bytes=upstream.max_answer_mib * 1024 * 1024,
            further_header_names=tuple(upstream.further_header_names),
            session_scope=upstream.session_scope,
            sampling_per_minute=upstream.sampling_per_minute or SAMPLING_PER_MINUTE,
            sampling_tokens_per_day=upstream.sampling_tokens_per_day or SAMPLING_TOKENS_PER_DAY,
        )
