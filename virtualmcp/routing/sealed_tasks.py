"""The ids of tasks as a stateless client carries them (protocol.md 2.3.8, 2.5 S13).

An upstream's task id is sealed with the upstream it is of, for the person, client and server it
was made for. Nothing is stored; any node relays the next question about the task.
"""

import msgspec

from virtualmcp.errors import ParamsInvalid
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.sealed_state import SealBroken, seal, unseal

PURPOSE = "task"
# A task may take days; upstreams that keep it longer are asked anew by whoever lost it.
LIFETIME = 7 * 24 * 3600
LONGEST_OWN = 1_024
_UNKNOWN = "Unknown task. It was made for somebody else, or too long ago; call the tool again."


class _Sealed(msgspec.Struct, array_like=True, gc=False):
    upstream: int
    task: str


_reader = msgspec.msgpack.Decoder(_Sealed)


def sealed(request: ClientRequest, upstream_id: int, task_id: str) -> str:
    """Return the id that the client gets in the place of the upstream's."""
    payload = msgspec.msgpack.encode(_Sealed(upstream_id, task_id))
    return seal(PURPOSE, payload, bound_to=_owner(request), lifetime=LIFETIME)


def opened(request: ClientRequest, task_id: str) -> tuple[int, str]:
    """Return the upstream and its own id.

    Raises:
        ParamsInvalid: not one of ours, or of another person, client or server.
    """
    try:
        found = _reader.decode(unseal(PURPOSE, task_id, bound_to=_owner(request)))
    except (SealBroken, msgspec.MsgspecError) as error:
        raise ParamsInvalid(_UNKNOWN) from error
    return found.upstream, found.task


def unknown() -> ParamsInvalid:
    """Return the refusal for a task whose upstream is not offered any more."""
    return ParamsInvalid(_UNKNOWN)


def _owner(request: ClientRequest) -> str:
    holder = request.holder
    return f"{request.server.slug}\n{holder.user_id}\n{holder.client_id}"
