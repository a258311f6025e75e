"""Serve upstreams' icons from the gateway's own origin, to whoever was given the address.

Hosts load them without credentials, from their servers or a person's browser. A drawing (SVG) is a
document that may hold scripts: as a picture they don't run, and opened by itself it may do nothing.
"""

from typing import Final

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from virtualmcp import icon_addresses, icon_fetching

_KEEP: Final = "public, max-age=86400"
_NOTHING_ALLOWED: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
_NONE = "There is no such icon."


@require_safe
async def icon(request: HttpRequest, upstream: int, signature: str, name: str) -> HttpResponse:
    """Answer with a picture.

    Raises:
        Http404: an address that the gateway did not make, or no picture is to be had.
    """
    source = icon_addresses.source_of(upstream, signature, name)
    if source is None:
        raise Http404(_NONE)
    found = await icon_fetching.icon(upstream, source)
    if found is None:
        return HttpResponse(status=503, headers={"Retry-After": "2"})
    if not found.found:
        raise Http404(_NONE)
    headers = {
        "Cache-Control": _KEEP,
        "Content-Security-Policy": _NOTHING_ALLOWED,
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Access-Control-Allow-Origin": "*",
    }
    if found.media_type == icon_fetching.SVG:
        headers["Content-Disposition"] = 'attachment; filename="icon.svg"'
    return HttpResponse(found.content, content_type=found.media_type, headers=headers)
