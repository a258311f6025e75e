"""Response headers that neither Django nor django-csp sets: what pages may ask the browser for."""

from django.http import HttpRequest, HttpResponse

from gateway_site.two_way_middleware import TwoWayMiddleware

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


class SecurityHeadersMiddleware(TwoWayMiddleware):
    """Adds the headers to every answer of Django, errors included."""

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer the request and add the headers."""
        return add_headers(request, self.get_response(request))

    async def answer_async(self, request: HttpRequest) -> HttpResponse:
        """The same in the asynchronous chain."""
        return add_headers(request, await self.get_response(request))
