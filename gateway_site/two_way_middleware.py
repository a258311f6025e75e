"""The frame of a middleware for both chains of Django, the synchronous and the asynchronous."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse


class TwoWayMiddleware:
    """Calls ``answer`` or ``answer_async``, whichever way the rest of the chain goes.

    ``get_response`` is a coroutine function for ``answer_async`` and a plain one for ``answer``.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        """Answer the request the way the chain goes."""
        return self.answer_async(request) if self.is_async else self.answer(request)

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer in the synchronous chain."""
        raise NotImplementedError

    async def answer_async(self, request: HttpRequest) -> HttpResponse:
        """Answer in the asynchronous chain."""
        raise NotImplementedError
