"""What a sealed ``requestState`` is for and what it holds (protocol.md 2.4.1).

It comes back with a retry of the very same request, by the same person, through the same client,
on the same server, and never with another one (a43).
"""

import hashlib
from dataclasses import dataclass

import msgspec

from virtualmcp import raw_members
from virtualmcp.errors import StateInvalid
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.sealed_state import (
    LARGEST_CONTENT,
    LONGEST_SEALED,
    SealBroken,
    seal,
    unseal,
)

PURPOSE = "request state"
LIFETIME = 600


class _Sealed(msgspec.Struct):
    """``own`` marks a question the gateway asked itself; ``state`` is the upstream's; ``parked``
    names a call that is held for its answers."""

    upstream: int
    method: str
    name: str
    digest: str
    own: bool
    state: str | None
    parked: str = ""


@dataclass(slots=True, frozen=True)
class Resumed:
    """A retry's state, opened: the upstream's own (``None`` if it gave none), or the held call's
    id (``""`` if none is held)."""

    upstream_id: int
    own: bool
    state: str | None
    parked: str = ""


class StateTooLarge(Exception):
    """An upstream's state is larger than a seal may be."""


def seal_state(
    request: ClientRequest,
    upstream_id: int,
    name: str,
    arguments: bytes,
    *,
    state: str | None = None,
    own: bool = False,
    parked: str = "",
) -> str:
    """Seal what the retry of this request needs; ``name`` is in the upstream's terms.

    Raises:
        StateTooLarge: what comes of it could not be opened again.
    """
    content = _Sealed(upstream_id, request.method, name, _digest(arguments), own, state, parked)
    payload = msgspec.json.encode(content)
    if len(payload) > LARGEST_CONTENT:
        raise StateTooLarge
    sealed = seal(PURPOSE, payload, bound_to=_owner(request), lifetime=LIFETIME)
    if len(sealed) > LONGEST_SEALED:
        raise StateTooLarge
    return sealed


def open_state(
    request: ClientRequest, sealed: str, upstream_id: int, name: str, arguments: bytes
) -> Resumed:
    """Open the state a retry brought.

    Raises:
        StateInvalid: altered, too old, or of another person, server, request or arguments.
    """
    try:
        payload = unseal(PURPOSE, sealed, bound_to=_owner(request))
        content = msgspec.json.decode(payload, type=_Sealed)
    except (SealBroken, msgspec.MsgspecError) as error:
        raise StateInvalid(_WRONG) from error
    wanted = (upstream_id, request.method, name, _digest(arguments))
    if (content.upstream, content.method, content.name, content.digest) != wanted:
        raise StateInvalid(_WRONG)
    return Resumed(content.upstream, content.own, content.state, content.parked)


_WRONG = "This requestState does not belong to this request, or is too old. Make the request anew."


def _digest(arguments: bytes) -> str:
    """Return a digest that is equal for equal arguments, whatever the order of members."""
    try:
        canonical = msgspec.json.encode(raw_members.value(arguments or b"{}"), order="sorted")
    except NotAnObject:
        canonical = arguments
    return hashlib.sha256(canonical).hexdigest()


def _owner(request: ClientRequest) -> str:
    holder = request.holder
    return f"{request.server.slug}\n{holder.user_id}\n{holder.client_id}"
