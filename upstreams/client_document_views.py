"""Serve the gateway's own client metadata documents and keys to authorization servers."""

from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from upstreams import client_documents
from upstreams import client_keys as own_keys

_CACHE = "public, max-age=300"


@require_safe
def client_document(request: HttpRequest, name: str) -> JsonResponse:
    """Answer with one of the documents."""
    try:
        document = client_documents.client_document(name)
    except KeyError as error:
        raise Http404("There is no such document.") from error
    return JsonResponse(document, headers={"Cache-Control": _CACHE})


@require_safe
def client_keys(request: HttpRequest) -> JsonResponse:
    """Answer with the public keys (RFC 7517)."""
    return JsonResponse(own_keys.public_keys(), headers={"Cache-Control": _CACHE})
