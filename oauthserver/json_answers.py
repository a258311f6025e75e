"""Answers of the endpoints that programs call: JSON, never stored, errors in OAuth's form."""

import logging
from collections.abc import Callable
from typing import Any, ClassVar

from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.generic.base import View

from oauthserver.errors import ProtocolError, TooManyRequests, Unavailable

RETRY_SECONDS = 2
log = logging.getLogger(__name__)


def answer(members: dict[str, Any], status: int = 200) -> JsonResponse:
    """Return JSON that no cache keeps (RFC 6749 5.1, RFC 7591 3.2.1)."""
    response = JsonResponse(members, status=status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response


def refusal(error: ProtocolError) -> JsonResponse:
    """Return an error answer (RFC 6749 5.2)."""
    response = answer(
        {"error": error.error, "error_description": error.description}, error.http_status
    )
    if error.challenge:
        response.headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def _store_errors() -> tuple[type[Exception], ...]:
    try:
        from redis.exceptions import RedisError
    except ImportError:
        return (DatabaseError, OSError)
    return (DatabaseError, OSError, RedisError)


STORE_ERRORS = _store_errors()


@method_decorator(csrf_exempt, name="dispatch")
class ProgramView(View):
    """Base of the endpoints that programs call and that answer JSON."""

    allowed: ClassVar[tuple[str, ...]] = ("POST",)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Answer; a store that is down is 503, so that no client throws away what it holds."""
        handler: Callable[..., HttpResponse] = (
            self.respond if request.method in self.allowed else self.wrong_method
        )
        try:
            return handler(request, **kwargs)
        except ProtocolError as error:
            return refusal(error)
        except STORE_ERRORS:
            log.exception("A store failed at %s", request.path)
            return refusal(Unavailable())

    def respond(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Answer one of the allowed methods."""
        raise NotImplementedError

    def wrong_method(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Answer any other method with 405."""
        methods = ", ".join(self.allowed)
        text = f"Send a {' or '.join(self.allowed)} request."
        response = answer({"error": "invalid_request", "error_description": text}, 405)
        response.headers["Allow"] = methods
        return response
