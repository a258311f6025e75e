"""When a request wants the person to sign in again: ``prompt``, ``max_age``, ``id_token_hint``.

(OpenID Connect Core 3.1.2.1.) The browser is signed out and sent to the sign-in page; that it
was is noted in a signed cookie under a digest of the request. Whoever comes back signed in later
than that has done what was asked, however long connecting their accounts then takes. Not in the
session: nobody is signed in, and whoever asks again and again must not fill the database.
"""

import time
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from allauth.account.authentication import get_authentication_records
from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.signals import user_logged_in
from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import resolve_url

from oauthserver.authorization_request import AuthorizationRequest

REMEMBERED_SECONDS = 3600
MOST_REMEMBERED = 20
MAX_HINT = 254
_SALT = "oauthserver.sign_in_demands"
_SIGNED_IN_AT = "oauthserver.signed_in_at"


def request_digest(request: HttpRequest) -> str:
    """Return what tells one authorization request from another."""
    return _digest_of(request.META.get("QUERY_STRING", ""))


def _digest_of(query: str) -> str:
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    # Short, since a cookie holds many of them.
    return sha256(repr(pairs).encode()).hexdigest()[:32]


def demanded_prompt(request: HttpRequest, going_to: str | None) -> str:
    """Return what an identity provider is to ask for before a person goes on to a request.

    Args:
        going_to: the address that the sign-in leads back to.

    Returns:
        ``login``, ``select_account``, or "" where no client asked for a new sign-in.
    """
    query = urlsplit(going_to or "").query
    if _digest_of(query) not in _demands(request):
        return ""
    asked = dict(parse_qsl(query))
    again = "login" in asked.get("prompt", "").split() or "max_age" in asked
    return "login" if again else "select_account"


def note_sign_in(sender: Any, request: HttpRequest | None, **kwargs: Any) -> None:
    """Write the time of a sign-in into its session; receiver of ``user_logged_in``."""
    if request is not None and hasattr(request, "session"):
        request.session[_SIGNED_IN_AT] = time.time()


def connect() -> None:
    """Listen to sign-ins; repeated calls change nothing."""
    user_logged_in.connect(note_sign_in, dispatch_uid="oauthserver.signed_in_at")


def authenticated_at(request: HttpRequest) -> float:
    """Return when the person last proved who they are, in seconds since 1970; 0 if unknown."""
    records = get_authentication_records(request, request.user)
    times = [record.get("at", 0) for record in records]
    return float(max([*times, request.session.get(_SIGNED_IN_AT, 0)]))


def unmet(request: HttpRequest, asked: AuthorizationRequest, hinted: str) -> bool:
    """Whether a signed-in person has to sign in (again) before this request goes on.

    Args:
        hinted: subject of a genuine ``id_token_hint``, or "".
    """
    at = authenticated_at(request)
    if at >= _demands(request).get(request_digest(request), float("inf")):
        return False
    too_long_ago = asked.max_age != "" and time.time() - at > int(asked.max_age)
    other_person = hinted not in ("", str(request.user.pk))
    return bool(asked.prompt & {"login", "select_account"}) or too_long_ago or other_person


def sign_in_page(request: HttpRequest, asked: AuthorizationRequest) -> HttpResponseRedirect:
    """Send the browser to sign in and back here, signed out first if somebody is signed in.

    ``login_hint`` goes along for the page to fill in; it is a hint and proves nothing.
    """
    demands = _demands(request)
    if request.user.is_authenticated:
        logout(request)
    parameters = QueryDict(mutable=True)
    parameters["next"] = request.get_full_path()
    hint = asked.login_hint
    if hint and len(hint) <= MAX_HINT and hint.isprintable():
        parameters["login_hint"] = hint
    answer = HttpResponseRedirect(
        f"{resolve_url(settings.LOGIN_URL)}?{parameters.urlencode(safe='/')}"
    )
    if asked.prompt & {"login", "select_account"} or asked.max_age or asked.id_token_hint:
        demands[request_digest(request)] = time.time()
        _remember(answer, demands)
    return answer


def _remember(answer: HttpResponse, demands: dict[str, float]) -> None:
    newest = sorted(demands.items(), key=lambda entry: entry[1])[-MOST_REMEMBERED:]
    answer.set_cookie(
        _cookie(),
        signing.dumps(dict(newest), salt=_SALT),
        max_age=REMEMBERED_SECONDS,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _cookie() -> str:
    return f"{settings.SESSION_COOKIE_NAME}-asked"


def _demands(request: HttpRequest) -> dict[str, float]:
    kept = request.COOKIES.get(_cookie(), "")
    try:
        known: dict[str, float] = signing.loads(kept, salt=_SALT, max_age=REMEMBERED_SECONDS)
    except signing.BadSignature:
        return {}
    oldest = time.time() - REMEMBERED_SECONDS
    return {digest: at for digest, at in known.items() if at > oldest}
