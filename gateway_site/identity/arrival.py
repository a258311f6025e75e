"""What happens when somebody comes back from a provider: admission, groups, signing out there."""

import time
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from allauth.core.exceptions import ImmediateHttpResponse
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import HttpRequest
from django.shortcuts import render
from django.urls import reverse

from gateway_site import audit_trail
from gateway_site.fresh_sign_in import PROVED_AT
from gateway_site.identity import discovery, provider_sessions, provider_trial, roles
from gateway_site.identity.admission import (
    AGAIN_SINCE,
    Refusal,
    mapped,
    refusal_of,
    refusal_of_leftover,
    signed_in_there,
)
from gateway_site.identity.claims import GroupClaim, groups_in
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.group_sync import set_groups
from gateway_site.identity.presets import STANDARD_SIGN_OUT
from gateway_site.identity.provider import OpenIdProvider, together
from gateway_site.identity.provider_facts import ProviderFacts, facts_of
from gateway_site.models import GroupMapping
from oauthserver import issuer_subjects
from upstreams import token_vault

# In the session: until when the sign-in counts, where the provider's administrator set an age.
SIGN_IN_UNTIL = "identity.sign_in_until"
SIGN_OUT_KEY = "identity.sign_out"
# In the session of nobody, after a sign-out: what a provider was asked, to know its answer by.
SIGN_OUT_ASKED = "identity.sign_out_asked"
_VAULT_OWNER = "identity-sign-out"
_UNASKED_SECONDS = 60


def group_claim(facts: ProviderFacts, data: dict[str, Any]) -> GroupClaim:
    """Return the groups in the claims of one sign-in."""
    return groups_in(data.get("id_token", {}), data.get("userinfo", {}), facts.groups_claim)


def _claims_of(sociallogin: Any) -> dict[str, Any]:
    """Return what the provider said, as claims; SAML's attributes stand for those of a token."""
    data: dict[str, Any] = sociallogin.account.extra_data
    if isinstance(sociallogin.provider, OpenIdProvider):
        return data
    at = sociallogin.state.get("asserted", {}).get("at")
    return {"id_token": {**data, "sub": sociallogin.account.uid, "auth_time": at}}


def check(request: HttpRequest, sociallogin: Any) -> None:
    """Let somebody in, or not; called before anything is stored or anybody is signed in.

    Raises:
        ImmediateHttpResponse: the page that says why not, or the report of a test.
    """
    provider = sociallogin.provider
    facts, data = facts_of(provider.app), _claims_of(sociallogin)
    groups = group_claim(facts, data)
    refusal = refusal_of(facts, together(data), groups)
    if sociallogin.state.get("process") == provider_trial.PROCESS:
        names = mapped(facts, groups, mapping_of(provider.app))
        raise ImmediateHttpResponse(
            provider_trial.report(request, provider.app, data, groups, names, refusal)
        )
    if refusal is not None and sociallogin.account.pk:
        _end_access(sociallogin.user)
    since = sociallogin.state.get(AGAIN_SINCE)
    if refusal is None and since is not None:
        refusal = refusal_of_leftover(data.get("id_token", {}), since)
    if refusal is not None:
        refuse(request, facts, refusal, str(sociallogin.account.uid))
    if sociallogin.is_existing and not sociallogin.user.is_active:
        _note_refusal(facts.id, "inactive", sociallogin.user.get_username())


def _end_access(person: User) -> None:
    """End what somebody still has whom their provider's word no longer lets in."""
    from gateway_site import people_actions

    people_actions.end_access(person, actor=None)


def refuse(request: HttpRequest, facts: ProviderFacts, refusal: Refusal, subject: str) -> None:
    """Show why somebody may not come in, and write it down.

    Raises:
        ImmediateHttpResponse: always.
    """
    _note_refusal(facts.id, refusal.reason, subject)
    context = {"provider_name": facts.name, "words": refusal.words}
    page = render(request, "socialaccount/not_admitted.html", context, status=403)
    raise ImmediateHttpResponse(page)


def _note_refusal(provider: str, reason: str, subject: str) -> None:
    audit_trail.record(
        "person.sign_in_refused",
        target=provider,
        details={"reason": reason, "subject": subject[:200]},
    )


def mapping_of(app: Any) -> list[tuple[str, str]]:
    """Return the provider's group names with the gateway's."""
    rows = GroupMapping.objects.filter(provider=app)
    return list(rows.values_list("claim_value", "group__name"))


def signed_in(
    sender: Any, request: HttpRequest, user: User, sociallogin: Any = None, **_: Any
) -> None:
    """Give the person exactly the groups that their provider names now."""
    if sociallogin is None:
        return
    app = sociallogin.provider.app
    facts, data = facts_of(app), _claims_of(sociallogin)
    groups = group_claim(facts, data)
    request.session[PROVED_AT] = signed_in_there(data.get("id_token", {})) or 0
    follow(user, app, data)
    issuer_subjects.learn(sociallogin.account)
    if facts.sign_in_days:
        request.session[SIGN_IN_UNTIL] = time.time() + facts.sign_in_days * 86_400
    if not groups.complete:
        _note_overage(request, facts, user)
    asserted = sociallogin.state.get("asserted")
    subject, sid = _named_session(data["id_token"], asserted)
    provider_sessions.remember(request, facts.id, subject, sid)
    if facts.sign_out_there:
        raw = getattr(sociallogin, "raw_id_token", "")
        sealed = token_vault.seal(raw.encode(), _VAULT_OWNER) if raw else ""
        kept = {"provider": facts.id, "sealed": sealed, "asserted": asserted}
        request.session[SIGN_OUT_KEY] = kept


def follow(user: User, app: Any, data: dict[str, Any]) -> None:
    """Give a person exactly what their provider's word gives now; no word changes nothing."""
    if not data:
        return
    facts = facts_of(app)
    groups = group_claim(facts, data)
    source = f"oidc:{facts.id}"
    set_groups(user, mapped(facts, groups, mapping_of(app)), source=source)
    roles.set_roles(user, roles.roles_for(facts, groups), source=source)


def _named_session(said: dict[str, Any], asserted: dict[str, Any] | None) -> tuple[str, str]:
    """Return what the provider calls the person and its session when it signs them out."""
    if asserted:
        return asserted["name_id"], asserted["session_index"] or ""
    sid = said.get("sid")
    return str(said.get("sub", "")), sid if isinstance(sid, str) else ""


def _note_overage(request: HttpRequest, facts: ProviderFacts, user: User) -> None:
    audit_trail.record(
        "person.groups_unknown",
        user=user,
        target=user.get_username(),
        details={"provider": facts.id, "reason": "too many groups"},
    )
    messages.warning(
        request,
        f"{facts.name} did not name your groups, because you are in too many. What is open to "
        "groups only is closed to you until your administrator changes that.",
    )


def sign_out_address(request: HttpRequest) -> str:
    """Return where to send the browser to end its session at the provider, "" for nowhere.

    OpenID Connect RP-Initiated Logout 1.0, or SAML's single logout; called while the gateway's
    session still exists.
    """
    kept = request.session.get(SIGN_OUT_KEY)
    if not isinstance(kept, dict):
        return ""
    from allauth.socialaccount.models import SocialApp

    app = SocialApp.objects.filter(provider_id=kept.get("provider")).first()
    if app is None or not facts_of(app).sign_out_there:
        return ""
    try:
        if app.provider == "saml":
            return _saml_sign_out_address(request, app, kept.get("asserted"))
        return _openid_sign_out_address(app, kept.get("sealed"))
    except token_vault.VaultError:
        return _cannot_go_there(request, app, ProviderFault("What the sign-in left does not open."))
    except ProviderFault as fault:
        return _cannot_go_there(request, app, fault)


def _cannot_go_there(request: HttpRequest, app: Any, fault: ProviderFault) -> str:
    """Tell the person, whose session here ends all the same."""
    note_failed_sign_out(app, fault)
    messages.warning(
        request,
        f"You are signed out here. {app.name} could not be asked to sign you out there: if others "
        "use this browser, sign out there too, or close it.",
    )
    return ""


def note_failed_sign_out(app: Any, fault: ProviderFault) -> None:
    """Write down why signing out at a provider failed, or why its message was not believed."""
    details = {"reason": str(fault)[:500], "while": "signing out"}
    audit_trail.record("person.provider_failed", target=app.provider_id, details=details)


def _openid_sign_out_address(app: Any, sealed: str | None) -> str:
    endpoint = discovery.metadata_of(facts_of(app).issuer).get("end_session_endpoint")
    hint = token_vault.open_sealed(sealed, _VAULT_OWNER) if sealed else b""
    if not endpoint:
        return ""
    parameter = facts_of(app).preset.sign_out_parameter
    parameters = {
        "client_id": app.client_id,
        parameter: settings.PUBLIC_URL + reverse("account_login"),
    }
    if hint and parameter == STANDARD_SIGN_OUT:
        parameters["id_token_hint"] = hint.decode()
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"


def _saml_sign_out_address(request: HttpRequest, app: Any, asserted: Any) -> str:
    from gateway_site import saml_library

    if not saml_library.is_there() or not asserted:
        return ""
    from gateway_site.saml import single_logout

    return single_logout.address_to_sign_out(request, app.get_provider(request), asserted)


def failed(request: HttpRequest, provider: Any, exception: Any, context: dict[str, Any]) -> None:
    """Write down why coming back from a provider failed; show it to who is testing.

    Raises:
        ImmediateHttpResponse: the report, in a test.
    """
    said = str(exception) if isinstance(exception, ProviderFault) else type(exception).__name__
    app = getattr(provider, "app", None)
    state = context.get("state") or {}
    if exception is None:
        said = str(request.GET.get("error", ""))[:60] or "the sign-in was not started here"
    target = getattr(app, "provider_id", "") or str(provider)[:60]
    # Of what no sign-in of this browser waits for, which anybody can send, one of a kind a minute.
    kind = said if exception is not None else "not started here"
    known = sha256(f"{target} {kind}".encode()).hexdigest()
    if state or cache.add(f"identity.failed.{known}", 1, _UNASKED_SECONDS):
        audit_trail.record("person.provider_failed", target=target, details={"reason": said[:500]})
    if app is not None and state.get("process") == provider_trial.PROCESS:
        raise ImmediateHttpResponse(provider_trial.failure(request, app, said))
