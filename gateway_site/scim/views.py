"""SCIM 2.0 at /scim/v2 (RFC 7644): a company's directory tells who may sign in, and who no more."""

import json
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from gateway_site.scim import documents, resources
from gateway_site.scim.errors import ScimRefusal, not_found
from gateway_site.scim.requests import (
    group_in,
    group_patches,
    page_of,
    person_changes,
    person_in,
    terms_of,
)
from gateway_site.scim.tokens import holder_of

CONTENT_TYPE = "application/scim+json"
MAX_BODY = 2 * 1024 * 1024
_TYPES = ("application/scim+json", "application/json")


def base() -> str:
    """Return the address of the service."""
    return f"{settings.PUBLIC_URL}/scim/v2"


@csrf_exempt
def scim(request: HttpRequest, kind: str, key: str = "") -> HttpResponse:
    """Answer one request; every refusal is in SCIM's form."""
    try:
        by = holder_of(request.headers.get("Authorization", ""))
        if by is None:
            raise ScimRefusal(401, "Send the bearer token that was made for SCIM.")
        return _answer(request, kind.lower(), key, f"scim:{by}")
    except ScimRefusal as refusal:
        answer = _json(refusal.body(), refusal.status)
        if refusal.status == 401:
            answer.headers["WWW-Authenticate"] = 'Bearer realm="scim"'
        return answer


def _answer(request: HttpRequest, kind: str, key: str, by: str) -> HttpResponse:
    if kind == "users":
        return _people(request, key, by)
    if kind == "groups":
        return _groups(request, key, by)
    if request.method != "GET":
        raise ScimRefusal(405, "This is only read.")
    if kind == "serviceproviderconfig" and not key:
        return _json(documents.service_provider_config(base()))
    listed = {"resourcetypes": documents.resource_types, "schemas": documents.schemas}
    if kind not in listed:
        raise not_found()
    found = listed[kind](base())
    if not key:
        return _json(documents.list_of(found, total=len(found), start=1))
    for document in found:
        if document["id"] == key:
            return _json(document)
    raise not_found()


def _people(request: HttpRequest, key: str, by: str) -> HttpResponse:
    if not key:
        if request.method == "GET":
            return _list(request, resources.people, resources.shown_person)
        if request.method == "POST":
            made = resources.create_person(person_in(_body(request)), by=by)
            return _created(resources.shown_person(made, base()))
        raise ScimRefusal(405, "Users are listed with GET and made with POST.")
    row = resources.person(key)
    if request.method == "PUT":
        # What a whole User does not say is as it was; only who says active decides about it.
        row = resources.change_person(row, person_in(_body(request)), by=by)
    elif request.method == "PATCH":
        row = resources.change_person(row, person_changes(_body(request)), by=by)
    elif request.method == "DELETE":
        resources.delete_person(row, by=by)
        return HttpResponse(status=204)
    elif request.method != "GET":
        raise ScimRefusal(405, "Use GET, PUT, PATCH or DELETE.")
    return _json(resources.shown_person(row, base()))


def _groups(request: HttpRequest, key: str, by: str) -> HttpResponse:
    members = "members" not in request.GET.get("excludedAttributes", "").lower()

    def show(row: Any, address: str) -> dict[str, Any]:
        return resources.shown_group(row, address, members=members)

    if not key:
        if request.method == "GET":
            return _list(request, resources.groups, show)
        if request.method == "POST":
            made = resources.create_group(group_in(_body(request)), by=by)
            return _created(resources.shown_group(made, base()))
        raise ScimRefusal(405, "Groups are listed with GET and made with POST.")
    row = resources.group(key)
    if request.method == "PUT":
        resources.change_group(row, [group_in(_body(request))], by=by)
    elif request.method == "PATCH":
        resources.change_group(row, group_patches(_body(request)), by=by)
    elif request.method == "DELETE":
        resources.delete_group(row, by=by)
        return HttpResponse(status=204)
    elif request.method != "GET":
        raise ScimRefusal(405, "Use GET, PUT, PATCH or DELETE.")
    return _json(show(row, base()))


def _list(
    request: HttpRequest,
    find: Callable[[dict[str, str]], QuerySet[Any]],
    show: Callable[[Any, str], dict[str, Any]],
) -> HttpResponse:
    page = page_of(request.GET.dict())
    asked = request.GET.get("filter", "")
    found = find(terms_of(asked) if asked else {})
    rows = found[page.start - 1 : page.start - 1 + page.count]
    shown = [show(row, base()) for row in rows]
    return _json(documents.list_of(shown, total=found.count(), start=page.start))


def _body(request: HttpRequest) -> dict[str, Any]:
    if (request.content_type or "").lower() not in _TYPES:
        raise ScimRefusal(415, f"Send {CONTENT_TYPE}.")
    if int(request.headers.get("Content-Length") or 0) > MAX_BODY or len(request.body) > MAX_BODY:
        raise ScimRefusal(413, "The request is too large.", "tooMany")
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError) as failure:
        raise ScimRefusal(400, "The request is not JSON.", "invalidSyntax") from failure
    if not isinstance(body, dict):
        raise ScimRefusal(400, "The request is not a JSON object.", "invalidSyntax")
    return body


def _json(body: dict[str, Any], status: int = 200) -> JsonResponse:
    return JsonResponse(body, status=status, content_type=CONTENT_TYPE)


def _created(shown: dict[str, Any]) -> HttpResponse:
    answer = _json(shown, 201)
    answer.headers["Location"] = shown["meta"]["location"]
    return answer
