"""What people and programs see when a request fails: what happened and what to do next.

With the request id, without a trace, a path or a server name (security.md 236). Programs that do
not ask for HTML get JSON.
"""

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from gateway_site.request_facts import current


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failed request, in words for a person and a code for a program."""

    status: int
    code: str
    title: str
    happened: str
    next: str


BAD_REQUEST = Failure(
    400,
    "invalid_request",
    "This request could not be read",
    "Something in the address or the form was not as expected.",
    "Go back and try again. If you followed a link, ask whoever sent it for a new one.",
)
FORBIDDEN = Failure(
    403,
    "access_denied",
    "You do not have access to this",
    "You are signed in with an account that may not open this page.",
    "Sign in with another account, or ask your administrator for access.",
)
NOT_FOUND = Failure(
    404,
    "not_found",
    "There is nothing here",
    "The address is not known, or you may not see what is behind it.",
    "Check the address, or start again from the catalogue.",
)
SERVER_FAULT = Failure(
    500,
    "server_error",
    "The gateway ran into a problem",
    "This is a fault on our side; nothing you did was wrong, and nothing was lost.",
    "Try again in a minute. If it keeps happening, give your administrator the request id.",
)
TOO_MANY_SIGN_INS = Failure(
    429,
    "temporarily_unavailable",
    "Too many people are signing in",
    "More sign-ins were begun from your network in the last minutes than the gateway takes.",
    "Wait five minutes, then sign in again. If it happens often, ask your administrator to name "
    "your network in GATEWAY_SHARED_EGRESS.",
)
TOO_MANY_TRIES = Failure(
    429,
    "temporarily_unavailable",
    "That was too often",
    "This was sent from your network more often in the last minute than the gateway takes: it "
    "slows down whoever tries passwords.",
    "Wait a minute, then go back and try again.",
)
STALE_FORM = Failure(
    403,
    "stale_form",
    "This form is no longer valid",
    "It was opened before you signed in or out, came from another site, or your browser "
    "blocked the cookie that protects it.",
    "Go back, reload the page and send it again. Cookies must be allowed for this site.",
)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer 400."""
    return _answer(request, BAD_REQUEST)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer 403, with the sentence the refusing code gave, if any."""
    return _answer(request, FORBIDDEN, happened=str(exception or ""))


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer 404."""
    return _answer(request, NOT_FOUND)


def too_many_sign_ins(request: HttpRequest, retry_after: int) -> HttpResponse:
    """Answer 429; ``retry_after`` is in seconds."""
    answer = _answer(request, TOO_MANY_SIGN_INS)
    answer["Retry-After"] = str(retry_after)
    return answer


def too_many_tries(request: HttpRequest) -> HttpResponse:
    """Answer 429 for the limits of sign-in (``settings.ACCOUNT_RATE_LIMITS``)."""
    answer = _answer(request, TOO_MANY_TRIES)
    answer["Retry-After"] = "60"
    return answer


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form without a valid token (``settings.CSRF_FAILURE_VIEW``)."""
    return _answer(request, STALE_FORM)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500 without touching the database or the session: either may be what failed."""
    request_id = current.get().request_id
    if not _wants_page(request):
        return _document(SERVER_FAULT, SERVER_FAULT.happened, request_id)
    page = render_to_string(
        "gateway/error.html", {"failure": SERVER_FAULT, "request_id": request_id}
    )
    return HttpResponse(page, status=SERVER_FAULT.status, headers={"Cache-Control": "no-store"})


def _answer(request: HttpRequest, failure: Failure, happened: str = "") -> HttpResponse:
    request_id = current.get().request_id
    happened = happened or failure.happened
    if not _wants_page(request):
        return _document(failure, happened, request_id)
    context = {"failure": failure, "happened": happened, "request_id": request_id}
    page = render(request, "gateway/error.html", context, status=failure.status)
    page["Cache-Control"] = "no-store"
    return page


def _document(failure: Failure, happened: str, request_id: str) -> HttpResponse:
    body = {"error": failure.code, "error_description": happened}
    if request_id:
        body["request_id"] = request_id
    return JsonResponse(body, status=failure.status, headers={"Cache-Control": "no-store"})


def _wants_page(request: HttpRequest) -> bool:
    return "text/html" in request.headers.get("Accept", "")
