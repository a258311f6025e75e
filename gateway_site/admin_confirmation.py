"""Actions on lists that end somebody's access are asked about once more before they happen."""

from typing import Any, Final

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest, ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

SHOWN: Final = 20
# Name of the list's page and of the action: what it does, in words for who presses it.
ASKED: Final = {
    ("auth_user", "sign_out_everywhere"): "End every browser session of these people, and the "
    "access of every assistant that they have let in. Accounts that they connected stay.",
    ("consent_consentrecord", "revoke_selected"): "Take back what these people agreed to: the "
    "clients' tokens stop working at once, and people are asked again.",
    ("oauthserver_vouchedaccess", "end_selected"): "End the access that the company gave these "
    "clients: their tokens stop working at once. An identity provider may let them in again.",
    ("upstreams_upstream", "switch_off"): "Switch these upstreams off: their tools fail for "
    "everybody until they are switched on again. Connected accounts stay.",
    ("upstreams_upstream", "disconnect_everybody"): "Disconnect every person's account at these "
    "upstreams. Each of them has to connect again.",
    ("oauthserver_oauthclient", "refuse"): "Keep these clients out and end all their tokens. "
    "They cannot register again.",
    ("oauthserver_oauthclient", "switch_off"): "Switch these clients off and end all their "
    "tokens: whoever uses them is asked to connect again once they are on.",
    ("oauthserver_oauthclient", "revoke_all"): "End all tokens of these clients: whoever uses "
    "them has to connect again.",
    ("oauthserver_oauthclient", "renew_secret"): "Give the client a new secret. The old one stops "
    "working at once.",
}


def question(request: HttpRequest, model_admin: Any) -> HttpResponse | None:
    """Return the page that asks, None where nothing is to be asked or the answer is here.

    Nothing is to be asked of who may not see the list or take the action: its own page refuses.

    Raises:
        BadRequest: a chosen row can't be one.
    """
    match = request.resolver_match
    page, _, kind = ((match.url_name if match else "") or "").rpartition("_")
    action = request.POST.get("action", "")
    words = ASKED.get((page, action))
    chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
    if request.method != "POST" or kind != "changelist" or not chosen:
        return None
    _check_rows(model_admin.model, chosen)
    if words is None or "confirmed" in request.POST or not _may(request, model_admin, action):
        return None
    everything = request.POST.get("select_across") == "1"
    if everything:
        rows = model_admin.get_changelist_instance(request).get_queryset(request)
    else:
        rows = model_admin.get_queryset(request).filter(pk__in=chosen)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Are you sure?",
        "opts": model_admin.model._meta,
        "words": words,
        "rows": [str(row) for row in rows[:SHOWN]],
        "count": rows.count(),
        "sent": [
            (name, value)
            for name, values in request.POST.lists()
            for value in values
            if name != "csrfmiddlewaretoken"
        ],
    }
    return TemplateResponse(request, "admin/gateway_site/confirm_action.html", context)


def _check_rows(model: Any, chosen: list[str]) -> None:
    """Check what every action on a list is about to look for, confirmed or not."""
    key = model._meta.pk
    try:
        for one in chosen:
            key.run_validators(key.to_python(one))
    except ValidationError:
        raise BadRequest("The list names a row that cannot be. Open it again and choose.") from None


def _may(request: HttpRequest, model_admin: Any, action: str) -> bool:
    sees = model_admin.has_view_or_change_permission(request)
    return bool(sees and action in model_admin.get_actions(request))
