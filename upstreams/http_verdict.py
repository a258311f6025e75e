"""What an upstream's HTTP status means for the call (protocol.md 2.3.9). Pure."""

import email.utils
import re
import time
from typing import Final

from upstreams.errors import (
    CredentialRefused,
    ScopeInsufficient,
    UpstreamAnswerInvalid,
    UpstreamBusy,
    UpstreamError,
)

MAX_RETRY_AFTER: Final = 3600.0
_SCOPE: Final = re.compile(r'\bscope\s*=\s*(?:"([^"]*)"|([^\s,"]+))', re.IGNORECASE)
_INSUFFICIENT: Final = re.compile(r'\berror\s*=\s*"?insufficient_scope\b', re.IGNORECASE)


def credential_verdict(
    title: str, status: int, headers: dict[bytes, bytes]
) -> CredentialRefused | None:
    """Return the error if the upstream refuses the credential or its scope, else None.

    The challenge is kept for discovery and never shown (D8).
    """
    if status not in (401, 403):
        return None
    challenge = headers.get(b"www-authenticate", b"").decode("latin-1")
    if status == 401:
        return CredentialRefused(
            f"{title} does not accept the account's login.", challenge=challenge
        )
    if _INSUFFICIENT.search(challenge):
        found = _SCOPE.search(challenge)
        scope = (found.group(1) or found.group(2) or "") if found else ""
        return ScopeInsufficient(
            f"{title} asks for a further permission.", challenge=challenge, scope=scope
        )
    return None


def busy_verdict(title: str, status: int, headers: dict[bytes, bytes]) -> UpstreamBusy | None:
    """Return the error if the upstream asks to come back later, else None."""
    if status not in (429, 503):
        return None
    return UpstreamBusy(
        f"{title} is busy; try again later.",
        detail=f"HTTP {status}",
        retry_after=retry_after(headers.get(b"retry-after", b"")),
    )


def failure(title: str, status: int, content_type: bytes = b"") -> UpstreamError:
    """Return the error for an answer that carries no JSON-RPC message."""
    if status == 403:
        return UpstreamAnswerInvalid(f"{title} forbids this.", detail="HTTP 403")
    if status == 404:
        message = f"{title} has no MCP endpoint at its configured address."
        return UpstreamAnswerInvalid(message, detail="HTTP 404")
    if status >= 500:
        return UpstreamAnswerInvalid(f"{title} failed.", detail=f"HTTP {status}")
    kind = content_type.decode("latin-1")[:80] or "no content type"
    return UpstreamAnswerInvalid(
        f"{title} gave an answer that is not MCP.", detail=f"HTTP {status}, {kind}"
    )


def retry_after(value: bytes, now: float | None = None) -> float | None:
    """Return a ``Retry-After`` header's seconds (RFC 9110 10.2.3), None if it has none to give."""
    text = value.decode("latin-1").strip()
    if text.isdigit() and len(text) < 10:
        return min(float(text), MAX_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    seconds = moment - (time.time() if now is None else now)
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
