"""An administrator's test of a provider: its steps, and a sign-in that signs nobody in."""

from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from gateway_site import rights
from gateway_site.identity import discovery, outbound
from gateway_site.identity.admission import Refusal
from gateway_site.identity.claims import (
    GroupClaim,
    address_in,
    address_is_denied,
    address_is_verified,
)
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.id_tokens import ALGORITHMS
from gateway_site.identity.provider_facts import ProviderFacts, facts_of
from gateway_site.identity.vouched_people import said_at_sign_in
from oauthserver import issuer_subjects
from oauthserver.models import TrustedIssuer

PROCESS = "gateway-test"
TEMPLATE = "admin/gateway_site/provider_test.html"
_SHOWN = ("iss", "sub", "aud", "email", "email_verified", "preferred_username", "name", "hd", "tid")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``state`` is ok, failed, warn or skipped."""

    title: str
    state: str
    text: str


def discovery_steps(facts: ProviderFacts) -> list[Step]:
    """Try everything that can be tried without a person (blocking)."""
    if facts.preset.key == "saml":
        return _saml_steps(facts)
    steps: list[Step] = []
    try:
        address = facts.issuer + discovery.WELL_KNOWN
        document = outbound.fetch_json(address, what="The discovery document")
        steps.append(Step("Discovery document", "ok", f"Read from {address}."))
        discovery.check_metadata(document, facts.issuer)
        steps.append(Step("Issuer and endpoints", "ok", f"The issuer is {document['issuer']}."))
        keys = discovery.keys_of(document, fresh=True, may_hurry=lambda: True)
        steps.append(_keys_step(keys))
    except ProviderFault as fault:
        titles = ["Discovery document", "Issuer and endpoints", "Keys"]
        steps.append(Step(titles[len(steps)], "failed", str(fault)))
        steps += [
            Step(title, "skipped", "Not tried.") for title in [*titles, "Settings"][len(steps) :]
        ]
        return steps
    steps += _settings_steps(facts, document)
    return steps


def _saml_steps(facts: ProviderFacts) -> list[Step]:
    from gateway_site.saml.provider import load_metadata

    try:
        known = load_metadata(facts.issuer, fresh=True)["idp"]
    except ProviderFault as fault:
        return [Step("Metadata", "failed", str(fault))]
    count = len(known.get("x509certMulti", {}).get("signing", ())) or 1
    steps = [
        Step("Metadata", "ok", f"Of {known['entityId']}."),
        Step("Sign-on address", "ok", str(known["singleSignOnService"]["url"])),
        Step("Signing certificates", "ok", f"{count} published."),
    ]
    logout = known.get("singleLogoutService", {}).get("url")
    if logout:
        steps.append(Step("Signing out", "ok", str(logout)))
    elif facts.sign_out_there:
        text = "The metadata names no logout address by redirect, so people stay signed in there."
        steps.append(Step("Signing out", "warn", text))
    return steps


def _keys_step(keys: list[dict[str, Any]]) -> Step:
    kinds = {kind for kind, _ in ALGORITHMS.values()}
    usable = [key for key in keys if key.get("kty") in kinds and key.get("use", "sig") == "sig"]
    if not usable:
        return Step("Keys", "failed", "None of the published keys can sign ID tokens.")
    return Step("Keys", "ok", f"{len(usable)} usable.")


def _settings_steps(facts: ProviderFacts, document: dict[str, Any]) -> list[Step]:
    steps = []
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        steps.append(Step("PKCE", "warn", "The provider does not announce S256. Sign-in uses it."))
    algorithms = document.get("id_token_signing_alg_values_supported")
    if isinstance(algorithms, list) and not set(algorithms) & set(ALGORITHMS):
        text = "The provider signs ID tokens in no way that is accepted. Choose RS256 or ES256."
        steps.append(Step("Signatures", "failed", text))
    scopes = document.get("scopes_supported")
    missing = sorted(set(facts.scopes) - set(scopes)) if isinstance(scopes, list) else []
    if missing:
        text = f"The provider does not announce {', '.join(missing)}. It may refuse to sign in."
        steps.append(Step("Scopes", "warn", text))
    if facts.sign_out_there and not document.get("end_session_endpoint"):
        text = "The provider has no address for signing out, so people stay signed in there."
        steps.append(Step("Signing out", "warn", text))
    if not steps:
        steps.append(Step("Settings", "ok", "Scopes, PKCE and signatures fit."))
    return [*steps, _logout_step(document)]


def _logout_step(document: dict[str, Any]) -> Step:
    if document.get("backchannel_logout_supported") is not True:
        text = "The provider does not announce that it says who signed out there."
        return Step("Back-channel logout", "skipped", text)
    if document.get("backchannel_logout_session_supported") is not True:
        text = (
            "Announced, without sessions: signing out there ends all of a person's browsers here."
        )
        return Step("Back-channel logout", "ok", text)
    return Step("Back-channel logout", "ok", "Announced: enter the address of this page there.")


def show_steps(request: HttpRequest, app: Any, further: list[Step]) -> HttpResponse:
    """Show the steps of a provider, with what else is known of it.

    Raises:
        PermissionDenied: not for this person.
    """
    return _page(request, app, {"steps": [*discovery_steps(facts_of(app)), *further]})


def report(
    request: HttpRequest,
    app: Any,
    data: dict[str, Any],
    groups: GroupClaim,
    names: set[str],
    refusal: Refusal | None,
) -> HttpResponse:
    """Show what a test sign-in brought; nobody is signed in by it.

    Raises:
        PermissionDenied: not for this person.
    """
    from django.contrib.auth.models import Group

    facts = facts_of(app)
    said = {**data.get("id_token", {}), **data.get("userinfo", {})}
    address = address_in(said, facts.preset.email_claims)
    trusted = facts.trust_addresses and not address_is_denied(said)
    verified = trusted or address_is_verified(said)
    known = sorted(Group.objects.filter(name__in=names).values_list("name", flat=True))
    steps = [
        Step("Sign-in", "ok", "The provider answered, and its word is valid."),
        Step(
            "Address",
            "ok" if address and verified else "warn",
            f"{address or 'None was sent'}"
            + ("." if verified else ": not verified, so it finds no existing account."),
        ),
        _groups_step(facts, groups),
        Step(
            "Groups here",
            "ok" if known else "warn",
            ", ".join(known) or "None of the provider's groups is mapped to one of the gateway.",
        ),
        *_vouching_steps(facts, data),
        Step(
            "Admission",
            "failed" if refusal else "ok",
            refusal.words if refusal else "This person would be let in.",
        ),
    ]
    shown = [(name, said[name]) for name in _SHOWN if name in said]
    further = sorted(set(said) - set(_SHOWN))
    return _page(request, app, {"steps": steps, "claims": shown, "further": further})


def _vouching_steps(facts: ProviderFacts, data: dict[str, Any]) -> list[Step]:
    """Say what each trusted issuer's assertions would have to call this person."""
    token = data.get("id_token", {})
    stored = token if facts.preset.key == "saml" else data
    said = said_at_sign_in(facts, str(token.get("sub", "")), stored)
    steps = []
    for issuer in TrustedIssuer.objects.filter(provider=facts.id).order_by("issuer"):
        called = issuer_subjects.called_at_sign_in(issuer, said)
        title = f"Assertions of {issuer.issuer}"
        if called is None:
            text = (
                "This sign-in does not say what the trusted issuer's page names "
                f"({issuer.sign_in_claim or issuer.person_claim}), so none is about this person."
            )
            steps.append(Step(title, "warn", text))
        else:
            of = f", {issuer.tenant_claim} {called[0]}" if called[0] else ""
            text = f"About this person with {issuer.person_claim} {called[1]}{of}."
            steps.append(Step(title, "ok", text))
    return steps


def _groups_step(facts: ProviderFacts, groups: GroupClaim) -> Step:
    if not facts.groups_claim:
        return Step("Groups there", "skipped", "No claim is set up for groups.")
    if not groups.complete:
        return Step("Groups there", "failed", "Too many to be sent; see the notes of the provider.")
    if not groups.present:
        return Step("Groups there", "warn", f"There was no claim {facts.groups_claim}.")
    listed = ", ".join(sorted(groups.values)[:50]) or "The claim is empty"
    return Step("Groups there", "ok", listed)


def failure(request: HttpRequest, app: Any, said: str) -> HttpResponse:
    """Show why a test sign-in failed.

    Raises:
        PermissionDenied: not for this person.
    """
    return _page(request, app, {"steps": [Step("Sign-in", "failed", said)]})


def _page(request: HttpRequest, app: Any, context: dict[str, Any]) -> HttpResponse:
    if not admin.site.has_permission(request) or not rights.has_all(request.user):
        raise PermissionDenied("Only a full administrator can test an identity provider.")
    shared = admin.site.each_context(request)
    title = f"Test of {app.name}"
    return render(request, TEMPLATE, {**shared, "title": title, "app_row": app, **context})
