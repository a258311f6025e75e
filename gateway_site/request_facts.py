"""What is known of the request that is being answered: its id and who called.

Kept in a context variable, so that a log line or an audit event written deep in a room
carries both without being handed them.
"""

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse

from gateway_site.two_way_middleware import TwoWayMiddleware

REQUEST_ID_HEADER = "X-Request-Id"
_ACCEPTABLE_ID = re.compile(r"^[A-Za-z0-9._-]{8,64}$")


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Id and peer address of one request; both empty outside of requests."""

    request_id: str = ""
    address: str = ""


NO_REQUEST = RequestFacts()
current: ContextVar[RequestFacts] = ContextVar("request_facts", default=NO_REQUEST)


def facts_of(request: HttpRequest) -> RequestFacts:
    """Take the caller's request id if it is harmless, else make one."""
    offered = request.headers.get(REQUEST_ID_HEADER, "")
    request_id = offered if _ACCEPTABLE_ID.match(offered) else secrets.token_hex(8)
    return RequestFacts(request_id, request.META.get("REMOTE_ADDR", "") or "")


class RequestFactsMiddleware(TwoWayMiddleware):
    """Sets the facts for the time of one request and returns its id in a header."""

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer the request with its facts in place."""
        token = current.set(self._note(request))
        try:
            response: HttpResponse = self.get_response(request)
            response.headers[REQUEST_ID_HEADER] = current.get().request_id
            return response
        finally:
            current.reset(token)

    @staticmethod
    def _note(request: HttpRequest) -> RequestFacts:
        facts = facts_of(request)
        # The error pages show it to people.
        request.request_id = facts.request_id  # type: ignore[attr-defined]
        return facts

    async def answer_async(self, request: HttpRequest) -> HttpResponse:
        """The same in the asynchronous chain."""
        token = current.set(self._note(request))
        try:
            response: HttpResponse = await self.get_response(request)
            response.headers[REQUEST_ID_HEADER] = current.get().request_id
            return response
        finally:
            current.reset(token)
