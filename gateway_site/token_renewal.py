"""Renews a sign-in at its OpenID provider with the refresh token that it left (RFC 6749 6)."""

import json
import logging
import time
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Final

import requests
from allauth.socialaccount.models import SocialApp
from django.conf import settings
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError

from gateway_site.identity import discovery, outbound
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.provider_facts import facts_of
from gateway_site.sign_in import SEALED_SECRET, secret_owner
from upstreams import token_vault

logger = logging.getLogger(__name__)

# A request is over before the lease of the grant that it renews.
REQUEST_SECONDS: Final = 25.0
MAX_ANSWER: Final = 256 * 1024
# Entra ID's suberrors of invalid_grant: the sign-in is good, but the person has to do something,
# such as a second factor that Conditional Access began to ask for.
_PERSON_HAS_TO_ACT: Final = ("basic_action", "additional_action", "message_only")


@dataclass(frozen=True, slots=True)
class RenewalRequest:
    """A request for a renewal, ready to be sent."""

    url: str
    form: dict[str, str] = field(repr=False)
    auth: tuple[str, str] | None = field(repr=False)
    # Where to ask whose the answer is if it holds no ID token, "" for nowhere.
    userinfo: str = ""


class Outcome(Enum):
    """What came of a request for a renewal."""

    RENEWED = auto()
    # This sign-in is over (``invalid_grant``).
    REFUSED = auto()
    # The person has to come to the provider; whether they still may is not said.
    SIGN_IN = auto()
    # The provider may have used up the refresh token, but its answer did not arrive.
    LOST = auto()
    # It was not reached, so it has used up nothing.
    NOT_REACHED = auto()
    # It refused the gateway and not the person.
    NOT_ASKED = auto()


@dataclass(frozen=True, slots=True)
class Renewal:
    """The outcome, with the token answer where it is ``RENEWED``."""

    outcome: Outcome
    answer: dict[str, Any] | None = field(default=None, repr=False)
    userinfo: dict[str, Any] | None = field(default=None, repr=False)


def request_for(provider: str, refresh_token: str) -> RenewalRequest | None:
    """Make the request, with all that has to be fetched for it; None where nothing renews."""
    app = SocialApp.objects.filter(provider_id=provider).first()
    if app is None or not refresh_token:
        return None
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": app.client_id,
    }
    sealed, auth = app.settings.get(SEALED_SECRET), None
    facts = facts_of(app)
    try:
        metadata = discovery.metadata_of(facts.issuer)
        if sealed:
            secret = token_vault.open_sealed(sealed, secret_owner(app.provider_id)).decode()
            methods = metadata.get("token_endpoint_auth_methods_supported") or [
                "client_secret_basic"
            ]
            if "client_secret_post" in methods:
                form["client_secret"] = secret
            else:
                auth = (app.client_id, secret)
    except (ProviderFault, token_vault.VaultError) as failure:
        logger.warning("a sign-in could not be renewed: %s", type(failure).__name__)
        return None
    userinfo = metadata.get("userinfo_endpoint") if facts.fetch_userinfo else None
    return RenewalRequest(metadata["token_endpoint"], form, auth, userinfo or "")


def ask(request: RenewalRequest) -> Renewal:
    """Ask the provider's token endpoint, for ``REQUEST_SECONDS`` at most (blocking)."""
    session, began = outbound.prepare(requests.Session()), time.monotonic()
    body = b""
    try:
        with session.post(
            request.url,
            data=request.form,
            auth=request.auth,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=settings.SOCIALACCOUNT_REQUESTS_TIMEOUT,
            allow_redirects=False,
            stream=True,
        ) as response:
            # As it arrives, so that an answer in drops does not outlast the lease.
            while chunk := response.raw.read1(MAX_ANSWER, decode_content=False):
                body += chunk
                if len(body) > MAX_ANSWER or time.monotonic() - began > REQUEST_SECONDS:
                    return Renewal(Outcome.LOST)
            return _read(response.status_code, json.loads(body))
    except (requests.RequestException, HTTPError, OSError) as failure:
        logger.warning("a sign-in could not be renewed: %s", type(failure).__name__)
        if _was_not_sent(failure):
            return Renewal(Outcome.NOT_REACHED)
    except (ValueError, RecursionError):
        logger.warning("a sign-in could not be renewed: the answer is not JSON")
    finally:
        session.close()
    return Renewal(Outcome.LOST)


def with_userinfo(request: RenewalRequest, renewal: Renewal) -> Renewal:
    """Add what UserInfo says to a renewal that brought no ID token (blocking).

    A renewal may have used up the refresh token, so that UserInfo which cannot be had now must not
    cost what came: the renewal is returned as it is.
    """
    answer = renewal.answer
    access = str(answer.get("access_token") or "") if answer else ""
    if answer is None or answer.get("id_token") or not (request.userinfo and access):
        return renewal
    try:
        said = outbound.fetch_json(request.userinfo, what="UserInfo", token=access)
    except ProviderFault as fault:
        logger.warning("whose a renewed sign-in is could not be asked: %s", fault)
        return renewal
    return replace(renewal, userinfo=said)


def _was_not_sent(failure: Exception) -> bool:
    if isinstance(failure, requests.exceptions.ConnectTimeout | requests.exceptions.SSLError):
        return True
    cause = failure.args[0] if failure.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def _read(status: int, said: Any) -> Renewal:
    if status >= 500 or not isinstance(said, dict):
        # What stands before the provider answers so too, when it lost the provider's answer.
        return Renewal(Outcome.LOST)
    if status == 200:
        return Renewal(Outcome.RENEWED, said)
    if status in (400, 401) and said.get("error") == "invalid_grant":
        acts = said.get("suberror") in _PERSON_HAS_TO_ACT
        return Renewal(Outcome.SIGN_IN if acts else Outcome.REFUSED)
    return Renewal(Outcome.NOT_ASKED)
