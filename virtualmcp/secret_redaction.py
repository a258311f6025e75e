"""Keeps credentials out of what upstreams say (security.md 4J #208, protocol.md 5.2)."""

import re
from functools import lru_cache
from urllib.parse import parse_qsl

from upstreams import credentials
from upstreams.upstream_facts import UpstreamFacts

REDACTED = "[redacted]"
_LONGEST = 2_000
# Shorter values would be found inside ordinary text.
_SHORTEST_SECRET = 12
_LOOKS_SECRET = re.compile(
    r"(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"
    r"|\b(?:sk|ghp|gho|ghs|github_pat|glpat|xox[abprs]|lin_api|ntn)[-_][A-Za-z0-9_-]{12,}"
    r"|(?i:\b(?:access_token|refresh_token|api[-_]?key|client_secret|password)\b[\"']?\s*[=:]\s*)"
    r"[\"']?[^\s\"'&,;]{6,}"
)
_INTERNAL_URL = re.compile(
    r"(?i)\b[a-z][a-z0-9+.-]*://(?:[^\s/@\"']*@)?(?:localhost|127\.|10\.|192\.168\.|169\.254\.|"
    r"172\.(?:1[6-9]|2\d|3[01])\.|\[(?:::1|f[cde])|[a-z0-9-]+\.(?:internal|local|svc)\b)[^\s\"']*"
)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\).*|\n\s+at [\w.$<>]+ ?\(.*", re.DOTALL)


def secrets_of(user_id: int, facts: UpstreamFacts) -> tuple[str, ...]:
    """Return what a call with this person's credential must not bring back; from memory only."""
    credential = credentials.cached_credential(user_id, facts)
    if credential is None or not (credential.headers or credential.query):
        return ()
    return _words_of(credential.headers, credential.query)


@lru_cache(maxsize=1024)
def _words_of(headers: tuple[tuple[bytes, bytes], ...], query: bytes) -> tuple[str, ...]:
    """Return the secret words of a credential; kept, since every result is searched for them."""
    words = [value.decode("latin-1").rsplit(" ", 1)[-1] for _, value in headers]
    words += [value for _, value in parse_qsl(query.decode("latin-1"))]
    return tuple(word for word in words if len(word) >= _SHORTEST_SECRET)


def clean_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return an upstream's message without secrets, stack traces and internal addresses."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    text = _TRACEBACK.sub("", text)
    text = _LOOKS_SECRET.sub(REDACTED, text)
    text = _INTERNAL_URL.sub(REDACTED, text)
    text = "".join(char for char in text if char >= " " or char in "\n\t").strip()
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def clean_json(raw: bytes, secrets: tuple[str, ...]) -> bytes:
    """Return raw JSON in which the credential in use does not occur; usually the same bytes."""
    for secret in secrets:
        needle = secret.encode("latin-1")
        if needle in raw:
            raw = raw.replace(needle, REDACTED.encode())
    return raw
