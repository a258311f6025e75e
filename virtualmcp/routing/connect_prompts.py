"""Asking a person to open a page before a call can go on, in the form their client understands.

Most often the page is the gateway's own connect page: an upstream's refusal of a credential never
leaves as 401 or 403, which would make the client authorize anew against the gateway (protocol.md
D8, 2.3.9). A stateful upstream's own URL questions (-32042) go the same way.
"""

import secrets
from dataclasses import dataclass

import msgspec

from upstreams.connect_links import link_for
from upstreams.errors import NeedsConnection
from upstreams.revisions import Era
from virtualmcp import raw_members
from virtualmcp.eras.conversion import CALL, signed
from virtualmcp.errors import INTERNAL_ERROR, URL_ELICITATION_REQUIRED
from virtualmcp.routing.client_abilities import takes_url_errors, takes_url_questions
from virtualmcp.routing.client_request import Answer, ClientRequest, WireError
from virtualmcp.routing.relay_bindings import seal_state
from virtualmcp.server_identity import raw_server_info

# Keys of questions the gateway asks itself; an upstream's keys are never of this form.
OWN_KEY = "gateway:open-"


@dataclass(slots=True, frozen=True)
class PageToOpen:
    """A page and what to tell the person about it. ``id`` is the stateful upstream's, or ``""``."""

    url: str
    message: str
    id: str = ""


class CallMade(msgspec.Struct, frozen=True):
    """The call that has to wait, in the upstream's terms."""

    upstream_id: int
    upstream_key: str
    name: str
    arguments: bytes


def connect_page(request: ClientRequest, needed: NeedsConnection) -> PageToOpen:
    """Return the connect page of this person for this upstream."""
    url = link_for(request.holder.user_id, needed.upstream_key)
    title = needed.title or needed.upstream_key
    wording = {
        "reconnect": f"Your {title} account has to be connected again.",
        "scope": f"{title} asks for more permissions for this.",
    }
    message = wording.get(needed.reason, f"Your {title} account is not connected yet.")
    return PageToOpen(url, message)


def ask_to_open(
    request: ClientRequest, call: CallMade, pages: list[PageToOpen], *, declined: bool = False
) -> Answer:
    """Answer a call with pages the person has to open first.

    ``declined`` says that the client was asked already and refused: it is told in words then,
    rather than asked in a circle.
    """
    if takes_url_errors(request):
        return _url_error(call, pages)
    if takes_url_questions(request) and not declined:
        return _url_question(request, call, pages)
    return in_words(request, call.upstream_key, pages)


def in_words(request: ClientRequest, upstream_key: str, pages: list[PageToOpen]) -> Answer:
    """Answer with the links in text: a failed tool result, or an error for other methods."""
    text = "\n".join(f"{page.message} Open this page, then try again: {page.url}" for page in pages)
    if request.method == CALL:
        content = [{"type": "text", "text": text}]
        return Answer(result=_signed_result(request, {"content": content, "isError": True}))
    data = {"upstream": upstream_key, "connect_url": pages[0].url}
    return Answer(error=WireError(INTERNAL_ERROR, text, raw_members.write(data)))


def _url_error(call: CallMade, pages: list[PageToOpen]) -> Answer:
    """Error -32042 of 2025-11-25: open the pages, then make the call again."""
    elicitations = [
        {
            "mode": "url",
            "elicitationId": page.id or secrets.token_urlsafe(16),
            "url": page.url,
            "message": page.message,
        }
        for page in pages
    ]
    data = raw_members.write({"elicitations": elicitations, "upstream": call.upstream_key})
    return Answer(error=WireError(URL_ELICITATION_REQUIRED, pages[0].message, data))


def _url_question(request: ClientRequest, call: CallMade, pages: list[PageToOpen]) -> Answer:
    """End the call with a question (2026-07-28, MRTR); the retry makes the call anew."""
    questions = {
        f"{OWN_KEY}{number}": {
            "method": "elicitation/create",
            "params": {"mode": "url", "message": page.message, "url": page.url},
        }
        for number, page in enumerate(pages, 1)
    }
    state = seal_state(request, call.upstream_id, call.name, call.arguments, own=True)
    result = {
        "resultType": "input_required",
        "inputRequests": questions,
        "requestState": state,
        "_meta": signed(None, raw_server_info(request.server)),
    }
    return Answer(result=raw_members.write(result))


def _signed_result(request: ClientRequest, result: dict[str, object]) -> bytes:
    if request.era is Era.MODERN:
        meta = signed(None, raw_server_info(request.server))
        result = {**result, "resultType": "complete", "_meta": meta}
    return raw_members.write(result)
