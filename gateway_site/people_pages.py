"""The page on which people see where they are signed in, and sign out there."""

from allauth.account.adapter import get_adapter
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from consent import decisions
from gateway_site import audit_trail, people_actions, people_sessions
from gateway_site.identity import arrival


@require_http_methods(["GET", "POST"])
@login_required
@never_cache
def sessions(request: HttpRequest) -> HttpResponse:
    """List the browser sessions (GET); end one, the others, or all of them (POST)."""
    user, key = request.user, request.session.session_key
    assert isinstance(user, User)
    if request.method == "POST":
        return _end(request, user, key or "")
    context = {
        "sessions": people_sessions.sessions_of(user, key),
        "assistants": decisions.clients_let_in(user),
        "page": "sessions",
    }
    return render(request, "gateway/sessions.html", context)


def _end(request: HttpRequest, user: User, key: str) -> HttpResponse:
    what = request.POST.get("end", "")
    if what == "everything":
        going_to = arrival.sign_out_address(request) or reverse("account_login")
        people_actions.end_access(user, actor=user)
        get_adapter(request).logout(request)
        messages.success(
            request,
            "You are signed out in every browser, and every assistant has to be let in again. "
            "The accounts that you connected stay connected.",
        )
        return HttpResponseRedirect(going_to)
    if what == "others":
        count = people_sessions.end_all(user, keep=key)
        audit_trail.record("person.session_ended", user=user, details={"sessions": count})
        messages.success(request, "You are signed out in all other browsers.")
    elif what.isdecimal() and people_sessions.end_one(user, int(what)):
        audit_trail.record("person.session_ended", user=user, details={"sessions": 1})
        messages.success(request, "That browser is signed out.")
    else:
        messages.info(request, "That session was already over.")
    return HttpResponseRedirect(reverse("people_sessions"))
