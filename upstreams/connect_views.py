"""The pages of connecting an account: /connect/<key>/ and /connect/callback.

Asynchronous, because they wait for other people's servers. Everything shown is our own
wording; nothing an authorization server wrote reaches a page.
"""

import logging
import secrets
from collections.abc import Sequence
from typing import Final

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.signing import BadSignature
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods

from upstreams import (
    account_names,
    accounts,
    connect_links,
    connect_steps,
    enterprise_identity,
    oauth_flow,
    oauth_trace,
    user_keys,
)
from upstreams.database_calls import in_thread
from upstreams.enterprise_identity import SignInWay
from upstreams.errors import ConnectRefused, SetupFailed, UpstreamError
from upstreams.models import CredentialKind, OAuthTrace, Upstream
from upstreams.oauth_flow import CallbackAnswer, Connected
from upstreams.server_metadata import origin_of, scope_words
from upstreams.signals import audit

logger = logging.getLogger(__name__)

COOKIE_SECONDS: Final = 3600
_SALT: Final = "upstreams.connect"
_SEE_OTHER: Final = 303
CONNECT: Final = oauth_trace.Purpose.CONNECT
# What an authorization server answers that may be otherwise in a minute (RFC 6749 4.1.2.1).
_PASSING: Final = frozenset({"server_error", "temporarily_unavailable"})


def cookie_name() -> str:
    """Return the name of the binding cookie; ``__Host-`` keeps sibling hosts from setting it."""
    return "__Host-gateway-connect" if settings.SERVED_OVER_TLS else "gateway-connect"


def _browser_secret(request: HttpRequest) -> str:
    """Return the secret of this browser's binding cookie, "" if it has no valid one."""
    try:
        value = request.get_signed_cookie(cookie_name(), salt=_SALT, max_age=COOKIE_SECONDS)
    except (KeyError, BadSignature):
        return ""
    return str(value)


def _bind(response: HttpResponse, secret: str) -> None:
    response.set_signed_cookie(
        cookie_name(),
        secret,
        salt=_SALT,
        max_age=COOKIE_SECONDS,
        path="/",
        secure=settings.SERVED_OVER_TLS,
        httponly=True,
        samesite="Lax",
    )


async def _page(
    request: HttpRequest, template: str, context: dict[str, object], status: int = 200
) -> HttpResponse:
    response = await in_thread(render, request, f"upstreams/{template}", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


async def _go(address: str) -> HttpResponse:
    response = HttpResponseRedirect(address)
    response.status_code = _SEE_OTHER
    response["Cache-Control"] = "no-store"
    return response


async def _person(request: HttpRequest) -> User | None:
    user = await request.auser()
    return user if isinstance(user, User) and user.is_active else None


def _find(user: User, key: str) -> Upstream:
    """Return the upstream if this person may connect to it (blocking).

    Raises:
        Http404: there is none, or it is not for them; both look the same.
    """
    upstream = Upstream.objects.filter(key=key, enabled=True).first()
    if upstream is None or not accounts.may_connect(user, upstream):
        raise Http404("There is no such service here for you.")
    return upstream


@sensitive_post_parameters("key")
@require_http_methods(["GET", "POST"])
@login_required
async def connect(request: HttpRequest, key: str) -> HttpResponse:
    """Show what connecting means (GET), begin it or store a key (POST)."""
    user = await _person(request)
    if user is None:
        raise Http404("There is no such service here for you.")
    handle = request.GET.get(connect_links.PARAMETER, "")
    if handle and not connect_links.is_for(handle, user.pk, key):
        return await _refuse_link(request, user, key)
    upstream = await in_thread(_find, user, key)
    values = request.POST if request.method == "POST" else request.GET
    # A link out of an assistant has no page of ours to go back to.
    default = connect_links.done_path(key) if handle else "/connections/"
    return_to = oauth_flow.local_path(values.get("next", ""), default)
    if request.method != "POST":
        return await _show(request, user, upstream, return_to)
    if upstream.credential_kind == CredentialKind.USER_KEY:
        return await _save_key(request, user, upstream, return_to)
    return await _begin(request, user, upstream, return_to)


async def _refuse_link(request: HttpRequest, user: User, key: str) -> HttpResponse:
    """Refuse a link that is another person's or too old, before anything is looked up."""
    await in_thread(_report_link, user, key)
    return await _page(request, "link_refused.html", {"here": request.get_full_path()}, status=403)


def _report_link(user: User, key: str) -> None:
    audit.send(
        sender=Upstream,
        kind="account.link_refused",
        user=user,
        target=key[:31],
        details={},
        address="",
    )


@require_GET
@login_required
async def connected(request: HttpRequest, key: str) -> HttpResponse:
    """Tell a person who came by an assistant's link how it stands, and to go back there."""
    user = await _person(request)
    if user is None:
        raise Http404("There is no such service here for you.")
    upstream = await in_thread(_find, user, key)
    status = await in_thread(accounts.status_for, user, upstream)
    return await _page(request, "connected.html", {"upstream": upstream, "account": status})


async def _show(
    request: HttpRequest, user: User, upstream: Upstream, return_to: str, *, problem: str = ""
) -> HttpResponse:
    status = await in_thread(accounts.status_for, user, upstream)
    by_company = upstream.credential_kind == CredentialKind.ENTERPRISE
    ways: Sequence[SignInWay] = ()
    if by_company and status.state == "needs_reconnect":
        ways = await in_thread(
            enterprise_identity.sign_in_ways, user.pk, upstream.enterprise_provider
        )
    context: dict[str, object] = {
        "upstream": upstream,
        "upstream_host": origin_of(upstream.url).partition("://")[2],
        "account": status,
        "scopes": scope_words(upstream.oauth_scopes),
        "by_key": upstream.credential_kind == CredentialKind.USER_KEY,
        "by_oauth": upstream.credential_kind in oauth_flow.BY_OAUTH,
        "by_company": by_company,
        "ways": ways,
        "for_everybody": upstream.credential_kind == CredentialKind.SHARED_OAUTH,
        "return_to": return_to,
        "problem": problem,
    }
    return await _page(request, "connect.html", context, status=400 if problem else 200)


async def _save_key(
    request: HttpRequest, user: User, upstream: Upstream, return_to: str
) -> HttpResponse:
    pasted = request.POST.get("key", "").strip()
    try:
        if not pasted:
            raise SetupFailed("authorization", "Paste your key into the field first.")
        await user_keys.check_and_save(user, upstream, pasted, actor=user)
    except SetupFailed as error:
        return await _show(request, user, upstream, return_to, problem=error.message)
    messages.success(request, f"Your key for {upstream.title} is stored.")
    return await _go(return_to)


async def _begin(
    request: HttpRequest, user: User, upstream: Upstream, return_to: str
) -> HttpResponse:
    if upstream.credential_kind not in oauth_flow.BY_OAUTH:
        return await _show(request, user, upstream, return_to)
    secret = _browser_secret(request) or oauth_flow.new_browser_secret()
    try:
        async with oauth_trace.recording(CONNECT, upstream.pk, user.pk) as trace:
            address = await oauth_flow.begin(user, upstream, browser=secret, return_to=return_to)
            trace.attempt = oauth_flow.attempt_of(address)
            trace.outcome = OAuthTrace.Outcome.UNDER_WAY
            trace.redirected(address)
    except UpstreamError as error:
        return await _failed(request, user, upstream, error, return_to)
    response = await _go(address)
    _bind(response, secret)
    return response


async def _failed(
    request: HttpRequest, user: User, upstream: Upstream, error: UpstreamError, return_to: str
) -> HttpResponse:
    reference = secrets.token_hex(4)
    step = error.step if isinstance(error, SetupFailed) else error.code
    logger.warning(
        "connecting %s failed at %s (reference %s): %s", upstream.key, step, reference, error.detail
    )
    context: dict[str, object] = {
        "upstream": upstream,
        "message": error.message,
        "detail": error.detail if user.is_staff else "",
        "step": connect_steps.title_of(step),
        "steps": connect_steps.steps_until(step),
        "passing": error.transient if isinstance(error, SetupFailed) else error.retryable,
        "reference": reference,
        "return_to": return_to,
    }
    return await _page(request, "connect_failed.html", context, status=502)


@require_GET
async def callback(request: HttpRequest, key: str = "") -> HttpResponse:
    """Take the answer of an authorization server (RFC 6749 4.1.2).

    A person who is not signed in is not sent to sign in and back: the answer would then
    be used by whoever signs in.
    """
    user = await _person(request)
    if user is None:
        refusal = ConnectRefused("signed_out", "You are not signed in any more.")
        return await _refused(request, refusal)
    answer = CallbackAnswer(
        path=request.path,
        state=request.GET.getlist("state"),
        code=request.GET.getlist("code"),
        error=request.GET.getlist("error"),
        iss=request.GET.getlist("iss"),
    )
    try:
        done = await _completed(request, answer, user)
    except ConnectRefused as error:
        return await _refused(request, error)
    except oauth_flow.ExchangeFailed as error:
        return await _failed(request, user, error.upstream, error, error.return_to)
    _say_done(request, done)
    return await _go(done.return_to)


async def _completed(request: HttpRequest, answer: CallbackAnswer, user: User) -> Connected:
    """Finish a connect, and add it to the trace of the attempt if there is one."""
    began = await in_thread(
        oauth_trace.attempt_known, oauth_flow.attempt_of(request.get_full_path())
    )
    browser = _browser_secret(request)
    if began is None:
        done = await oauth_flow.complete(answer, user, browser=browser)
        await account_names.learn(done.account)
        return done
    async with oauth_trace.recording(CONNECT, began.upstream_id, began.user_id) as trace:
        trace.attempt = began.attempt
        trace.returned(request.path, request.GET.dict())
        done = await oauth_flow.complete(answer, user, browser=browser)
        await account_names.learn(done.account)
        return done


def _say_done(request: HttpRequest, done: Connected) -> None:
    name = f" as {done.account.account_label}" if done.account.account_label else ""
    messages.success(request, f"{done.upstream.title} is connected{name}.")
    if done.missing:
        messages.warning(
            request,
            f"{done.upstream.title} did not grant everything that was asked for: "
            f"{' '.join(done.missing)[:300]}. Some tools may not work.",
        )


async def _refused(request: HttpRequest, error: ConnectRefused) -> HttpResponse:
    logger.warning("a connect answer was refused: %s %s", error.reason, error.detail)
    context: dict[str, object] = {
        "reason": error.reason,
        "message": error.message,
        "code": error.code_given,
        "passing": error.code_given in _PASSING,
        "upstream_key": error.upstream_key,
        "return_to": error.return_to,
    }
    return await _page(request, "connect_refused.html", context, status=400)
