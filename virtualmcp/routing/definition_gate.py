"""Whether what a client calls is still what was approved (protocol.md 3.2.6).

Hosts keep tool lists for weeks, so a call must notice a changed definition as well as a listing:
lists older than ``RECHECK`` seconds are read again in the background of a call.
"""

from upstreams.errors import UpstreamError
from virtualmcp import definition_pins
from virtualmcp.definitions import SUBJECTS, Pinned, digests
from virtualmcp.errors import DefinitionHeld
from virtualmcp.listed_entries import Kind, ListContent
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import fan_out
from virtualmcp.routing.client_request import ClientRequest

RECHECK = 300.0


async def check(
    request: ClientRequest, choice: ChoiceFacts, name: str, kind: Kind
) -> ListContent | None:
    """Let a call pass unless the definition of what it names is held back.

    Returns the list that was looked at, if one is in memory.

    Raises:
        DefinitionHeld: it waits for an administrator, or was rejected by one.
    """
    user_id, facts, client = request.holder.user_id, choice.upstream, request.client
    review = request.server.review
    content = fan_out.watched_list(user_id, facts, client, kind, RECHECK)
    if content is None and review.can_hold:
        try:
            content = await fan_out.read_now(user_id, facts, client, kind)
        except UpstreamError:
            # What was seen last decides; the call itself will say what is wrong.
            content = None
    if content is not None:
        definition_pins.look(request.server, choice, content)
    if not review.can_hold:
        return content
    pinned: Pinned = (facts.id, SUBJECTS[kind], name)
    digest = digests(content).get(name, "") if content is not None else ""
    if not review.serves(pinned, digest):
        raise DefinitionHeld(
            f"{SUBJECTS[kind].capitalize()} {name[:128]!r} of {facts.title} is held back: an "
            "administrator has to approve what it says of itself first."
        )
    return content
