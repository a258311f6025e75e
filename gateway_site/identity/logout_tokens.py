"""Checks logout tokens (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6).

Pure but for the clock. An ID token must never pass for one: it has a ``nonce`` and no ``events``.
"""

import time
from dataclasses import dataclass
from typing import Any

from gateway_site.identity.errors import TokenRefused
from gateway_site.identity.id_tokens import LEEWAY, check_parties, opened

EVENT = "http://schemas.openid.net/event/backchannel-logout"
# Explicit typing is recommended there, and usual providers say nothing or JWT.
_TYPES = {"", "jwt", "logout+jwt", "application/logout+jwt"}
# Seconds. A logout token is sent at once and lives two minutes as a rule.
OLDEST = 600
LONGEST_NAME = 500


@dataclass(frozen=True, slots=True)
class LogoutNotice:
    """What a provider says has ended.

    Attributes:
        subject: the person there, "" if only a session is named.
        sid: the session there, "" for all of the person's.
        claims: everything the token says, ``jti`` with it.
        until: Unix time until which the token could be sent again.
    """

    subject: str
    sid: str
    claims: dict[str, Any]
    until: float


def read(token: str, keys: list[dict[str, Any]], issuer: str, client_id: str) -> LogoutNotice:
    """Return what a valid logout token says. That its ``jti`` is new is for the caller to check.

    Raises:
        KeyUnknown: none of the keys fits; newer ones may.
        TokenRefused: says why.
    """
    header, claims = opened(token, keys)
    if header["typ"].lower() not in _TYPES:
        raise TokenRefused("The token is of another type than logout+jwt.")
    check_parties(claims, issuer, client_id)
    until = _checked_end(claims)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise TokenRefused("The token is no logout token: its events do not say so.")
    if "nonce" in claims:
        raise TokenRefused("A logout token has no nonce.")
    subject, sid = _name(claims, "sub"), _name(claims, "sid")
    if not subject and not sid:
        raise TokenRefused("The logout token names neither a person nor a session.")
    if not _name(claims, "jti"):
        raise TokenRefused("The logout token has no jti.")
    return LogoutNotice(subject, sid, claims, until)


def _name(claims: dict[str, Any], member: str) -> str:
    value = claims.get(member, "")
    if not isinstance(value, str) or len(value) > LONGEST_NAME or "\x00" in value:
        raise TokenRefused(f"The logout token's {member} is not usable.")
    return value


def _checked_end(claims: dict[str, Any]) -> float:
    """Check ``iat`` and ``exp``; providers from before the final text send no ``exp``."""
    now, issued = time.time(), claims.get("iat")
    if isinstance(issued, bool) or not isinstance(issued, int | float):
        raise TokenRefused("The logout token has no iat.")
    if not now - OLDEST - LEEWAY < issued < now + LEEWAY:
        raise TokenRefused("The logout token is old, or from the future. Check the clocks.")
    expires = claims.get("exp", issued + OLDEST)
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise TokenRefused("The logout token's exp is no time.")
    if expires + LEEWAY <= now:
        raise TokenRefused("The logout token has expired. Check the clocks.")
    # Old tokens are refused by their iat, so nothing has to be remembered for longer.
    return min(float(expires), float(issued) + OLDEST) + LEEWAY
