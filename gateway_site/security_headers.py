"""Response headers that neither Django nor django-csp sets: what pages may ask the browser for."""

from collections.abc import Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse

PERMISSIONS_POLICY = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "usb",
    )
)
PUBLIC_PATHS = ("/static/", "/.well-known/", "/healthz", "/readyz")


def add_headers(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Set the headers that the response does not have yet.

    What a signed-in person sees is not stored by browsers or proxies on the way.
    """
    response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if not request.path.startswith(PUBLIC_PATHS):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


class SecurityHeadersMiddleware:
    """Adds the headers to every answer of Django, errors included."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request and add the headers."""
        if self.is_async:
            return self._answer_async(request)  # type: ignore[return-value]
        return add_headers(request, self.get_response(request))

    async def _answer_async(self, request: HttpRequest) -> HttpResponse:
        return add_headers(request, await self.get_response(request))  # type: ignore[misc]
