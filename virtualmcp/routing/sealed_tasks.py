"""The ids of tasks as a stateless client carries them (protocol.md 2.3.8, 2.5 S13).

An upstream's task id is sealed with the upstream and the tool it is of, for the person, client and
server it was made for. Nothing is stored; any node relays the next question about the task, as long
as the person may still call the tool: its result is the tool's answer.
"""

import msgspec

from virtualmcp.errors import ParamsInvalid
from virtualmcp.route_table import ChoiceFacts
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
    # The upstream's own name; "" in ids from before it stood there.
    tool: str = ""


_reader = msgspec.msgpack.Decoder(_Sealed)


def sealed(request: ClientRequest, upstream_id: int, task_id: str, tool: str) -> str:
    """Return the id that the client gets in the place of the upstream's.

    Args:
        tool: the upstream's own name of the tool whose task it is.
    """
    payload = msgspec.msgpack.encode(_Sealed(upstream_id, task_id, tool))
    return seal(PURPOSE, payload, bound_to=_owner(request), lifetime=LIFETIME)


def opened(request: ClientRequest, task_id: str) -> tuple[ChoiceFacts, str]:
    """Return the upstream as this person sees it, and its own id.

    Raises:
        ParamsInvalid: not one of ours, of another person, client or server, or of a tool that this
            person may not call any more.
    """
    found = _unsealed(request, task_id)
    choice = request.server.choice_of(found.upstream)
    if choice is None or not may_see(choice, found.tool):
        raise ParamsInvalid(_UNKNOWN)
    return choice, found.task


def tool_of(request: ClientRequest, task_id: str) -> str:
    """Return the tool whose task an id is of.

    Raises:
        ParamsInvalid: not one of ours, or of another person, client or server.
    """
    return _unsealed(request, task_id).tool


def may_see(choice: ChoiceFacts, tool: str) -> bool:
    """Tell whether a person may hear of tasks of a tool; of an unknown one where none is hidden."""
    return choice.shows(tool) if tool else not choice.hidden


def _unsealed(request: ClientRequest, task_id: str) -> _Sealed:
    try:
        return _reader.decode(unseal(PURPOSE, task_id, bound_to=_owner(request)))
    except (SealBroken, msgspec.MsgspecError) as error:
        raise ParamsInvalid(_UNKNOWN) from error


def _owner(request: ClientRequest) -> str:
    holder = request.holder
    return f"{request.server.slug}\n{holder.user_id}\n{holder.client_id}"
