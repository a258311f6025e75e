"""Positions in our own pages of a merged list, carried by the client as sealed cursors.

All pages of the upstreams are read and merged before the first of ours goes out, since policy,
pinned names and collisions need the whole list (protocol.md 3.5). A cursor is good for the list
it was made for: when that has changed the client begins again.
"""

from virtualmcp.errors import CursorInvalid
from virtualmcp.published_lists import Published
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.sealed_state import SealBroken, seal, unseal

PURPOSE = "cursor"
LIFETIME = 600


def page_number(request: ClientRequest, cursor: str, published: Published) -> int:
    """Return which page a cursor asks for; the empty string is the first (a39).

    Raises:
        CursorInvalid: not ours, not this person's, too old, or of a list that changed.
    """
    if not cursor:
        return 0
    try:
        payload = unseal(PURPOSE, cursor, bound_to=_owner(request))
    except SealBroken as error:
        raise CursorInvalid("This cursor is not valid. List again from the beginning.") from error
    digest, number = payload[:-4], int.from_bytes(payload[-4:])
    if digest != published.digest or number >= len(published.pages):
        raise CursorInvalid("The list has changed since this cursor. List from the beginning.")
    return number


def next_cursor(request: ClientRequest, published: Published, number: int) -> str:
    """Return the cursor of the page after ``number``, ``""`` at the end."""
    if number + 1 >= len(published.pages):
        return ""
    payload = published.digest + (number + 1).to_bytes(4)
    return seal(PURPOSE, payload, bound_to=_owner(request), lifetime=LIFETIME)


def _owner(request: ClientRequest) -> str:
    return f"{request.server.slug}\n{request.holder.user_id}\n{request.method}"
