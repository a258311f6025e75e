"""What a token endpoint answered, clamped or refused (pure; RFC 6749 5.1, security.md #145)."""

import base64
import re
from dataclasses import dataclass, field
from typing import Any, Final

from upstreams.errors import SetupFailed, UpstreamAnswerInvalid
from upstreams.fetched_answer import FetchedAnswer, parse_object
from upstreams.server_metadata import scope_words

STEP: Final = "token"
MAX_TOKEN: Final = 12_000
# A shorter life would make every call a refresh; a longer one than a year is not believed.
SHORTEST_SECONDS: Final = 10
LONGEST_SECONDS: Final = 365 * 24 * 3600
# Printable ASCII without spaces and quotes: fits a header and RFC 6750 2.1 or is refused.
_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+\Z")
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,60}\Z")
_LABEL_CLAIMS: Final = ("email", "preferred_username", "name")


@dataclass(frozen=True, slots=True)
class TokenReply:
    """A grant as it may be stored; ``expires_in`` in seconds, None where it is not known."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_in: int | None = None
    scope: tuple[str, ...] | None = None
    account_label: str = ""


def refused(reason: str) -> SetupFailed:
    """Return the refusal of an answer that cannot be used."""
    return SetupFailed(
        STEP, "The authorization server's token answer cannot be used.", detail=reason
    )


def read_reply(answer: FetchedAnswer) -> TokenReply:
    """Check a successful token answer.

    Raises:
        SetupFailed: HTML, another token type than Bearer, a token that fits no header.
    """
    try:
        document = answer.json_object()
    except UpstreamAnswerInvalid as error:
        raise refused(error.detail) from error
    token_type = document.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise refused(f"token_type is {str(token_type)[:40]!r}; the gateway uses Bearer tokens")
    refresh = document.get("refresh_token") or ""
    scope = document.get("scope")
    return TokenReply(
        access_token=_token(document.get("access_token"), "access_token"),
        refresh_token=_token(refresh, "refresh_token") if refresh else "",
        expires_in=lifetime(document.get("expires_in")),
        scope=scope_words(scope) if isinstance(scope, str) and scope else None,
        account_label=label_in(document.get("id_token")),
    )


def read_assertion(answer: FetchedAnswer, issued: str) -> str:
    """Check the answer of a token exchange (RFC 8693 2.2.1) and return what was issued.

    Raises:
        SetupFailed: another type of token than ``issued``, or none.
    """
    try:
        document = answer.json_object()
    except UpstreamAnswerInvalid as error:
        raise refused(error.detail) from error
    kind = document.get("issued_token_type")
    if kind != issued:
        raise refused(f"issued_token_type is {str(kind)[:80]!r}; {issued} was asked for")
    return _token(document.get("access_token"), "access_token")


def _token(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise refused(f"there is no {name}")
    if len(value) > MAX_TOKEN or not _TOKEN.match(value):
        raise refused(f"the {name} is too long or holds characters a header may not hold")
    return value


def lifetime(value: Any) -> int | None:
    """Return the seconds a token lives, clamped; None where the server did not say usably."""
    if isinstance(value, str) and value.isascii() and value.strip().isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return int(min(max(value, SHORTEST_SECONDS), LONGEST_SECONDS))


def label_in(id_token: Any) -> str:
    """Return a name for the account out of an ID token, for display only.

    Its signature is not checked: it came straight from the token endpoint over TLS
    (OpenID Connect Core 3.1.3.7), and nothing is decided by it.
    """
    if not isinstance(id_token, str) or len(id_token) > MAX_TOKEN or id_token.count(".") != 2:
        return ""
    payload = id_token.split(".")[1]
    try:
        claims = parse_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (UpstreamAnswerInvalid, ValueError):
        return ""
    return label_of(claims)


def label_of(claims: dict[str, Any]) -> str:
    """Return a name for the account out of a person's claims, "" if they hold none."""
    for name in _LABEL_CLAIMS:
        value = claims.get(name)
        if isinstance(value, str) and value and value.isprintable():
            return value[:200]
    return ""


def error_code(answer: FetchedAnswer) -> str:
    """Return the OAuth error of an answer (RFC 6749 5.2), "" if it has none."""
    try:
        code = answer.json_object().get("error")
    except UpstreamAnswerInvalid:
        return ""
    return code if isinstance(code, str) and _ERROR_CODE.match(code) else ""
