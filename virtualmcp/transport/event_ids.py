"""Event ids of stateful clients' streams: which stream, and which event of it (protocol.md a25).

``<token>.<number>``. The token is sealed for the session, which itself is bound to person, client
and Virtual MCP, so that nobody can name another one's stream; it holds the id of the request that
the stream answers, so that any process can end that request honestly.
"""

import secrets
from dataclasses import dataclass
from typing import Final

import msgspec

from virtualmcp.eras.era_in import LIFETIME
from virtualmcp.routing.sealed_state import SealBroken, seal, unseal

PURPOSE: Final = "event"
LONGEST: Final = 4_096


class _Sealed(msgspec.Struct, array_like=True, gc=False):
    nonce: bytes
    request_id: bytes


_reader = msgspec.msgpack.Decoder(_Sealed)


class EventIdUnknown(Exception):
    """Not an event id of this session."""


@dataclass(slots=True, frozen=True)
class Position:
    """Where in which stream; ``request_id`` is raw JSON, ``b""`` for a stream of notices."""

    token: str
    number: int
    request_id: bytes


def new_token(session_digest: str, request_id: bytes = b"") -> str:
    """Return the token of a stream that begins.

    Raises:
        VaultError: there is no usable key.
    """
    payload = msgspec.msgpack.encode(_Sealed(secrets.token_bytes(16), request_id))
    return seal(PURPOSE, payload, bound_to=session_digest, lifetime=LIFETIME)


def read(session_digest: str, last_event_id: bytes) -> Position:
    """Read a ``Last-Event-ID``.

    Raises:
        EventIdUnknown: it is not one of this session's.
        VaultError: there is no usable key.
    """
    token, _, number = last_event_id.decode("latin-1").rpartition(".")
    if len(last_event_id) > LONGEST or not number.isdecimal() or len(number) > 12:
        raise EventIdUnknown
    try:
        sealed = _reader.decode(unseal(PURPOSE, token, bound_to=session_digest))
    except (SealBroken, msgspec.MsgspecError) as error:
        raise EventIdUnknown from error
    return Position(token, int(number), sealed.request_id)
