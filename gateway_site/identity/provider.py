"""The OpenID provider that the sign-in library finds in the place of its own (same id).

What differs: a nonce, PKCE always, the issuer compared with what was configured, ID tokens
required and their signature checked, UserInfo only of the same subject, no parameters taken
from whoever wrote the link, addresses below ``PUBLIC_URL``.
"""

import secrets
import time
from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.providers.base.constants import AuthProcess
from allauth.socialaccount.providers.oauth2.provider import OAuth2Provider
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from django.http import HttpRequest, HttpResponse

from gateway_site.identity import claims, discovery, provider_sessions
from gateway_site.identity.admission import AGAIN_SINCE
from gateway_site.identity.openid_adapter import OpenIdAdapter
from gateway_site.identity.provider_facts import ProviderFacts, facts_of
from oauthserver.sign_in_demands import demanded_prompt


class OpenIdProvider(OpenIDConnectProvider):  # type: ignore[misc]
    """An identity provider as an administrator configured it."""

    oauth2_adapter_class = OpenIdAdapter
    pkce_enabled_default = True

    @property
    def facts(self) -> ProviderFacts:
        """Return the settings as values."""
        return facts_of(self.app)

    def get_scope(self) -> list[str]:
        """Return the scopes to ask for, in their order.

        Where the provider is to be asked again later, what makes it give a refresh token too,
        unless it announces its scopes without that one.

        Raises:
            ProviderFault: its metadata can't be had.
        """
        facts = self.facts
        scopes, offline = list(facts.scopes), facts.preset.offline_scope
        if facts.recheck_minutes and offline and offline not in scopes:
            announced = discovery.metadata_of(facts.issuer).get("scopes_supported")
            if not isinstance(announced, list) or offline in announced:
                scopes.append(offline)
        return scopes

    def get_scope_from_request(self, request: HttpRequest) -> list[str]:
        """A link does not add scopes."""
        return self.get_scope()

    def get_auth_params_from_request(self, request: HttpRequest, action: str) -> dict[str, str]:
        """Pass on who is to sign in (``login_hint``), and nothing else from a link."""
        parameters: dict[str, str] = self.get_auth_params()
        hint = request.POST.get("login_hint", "")
        if hint and len(hint) <= 254:
            parameters["login_hint"] = hint
        return parameters

    def redirect(
        self,
        request: HttpRequest,
        process: str,
        next_url: Any = None,
        data: Any = None,
        **more: Any,
    ) -> HttpResponse:
        """Send the browser to the provider, with a nonce kept in this browser's session.

        Who is signed in already has come to prove again who they are: the provider is to ask,
        and the time from which its answer counts is kept (OpenID Connect Core 3.1.2.1). What a
        client demands of the sign-in (``prompt``, ``max_age``) is passed on.
        """
        nonce = secrets.token_urlsafe(24)
        parameters = {
            **self.get_auth_params(),
            **(more.pop("auth_params", None) or {}),
            "nonce": nonce,
        }
        if request.user.is_authenticated and process == AuthProcess.LOGIN:
            parameters |= {"prompt": "login", "max_age": "0"}
            more[AGAIN_SINCE] = int(time.time())
        elif prompt := demanded_prompt(request, next_url):
            parameters |= {"prompt": prompt}
        if parameters.get("prompt") == "login" and not self.facts.preset.knows_prompt_login:
            parameters["prompt"] = "select_account"
        self._ask_for_refresh_token(parameters)
        answer: HttpResponse = super().redirect(
            request, process, next_url, data, auth_params=parameters, nonce=nonce, **more
        )
        return answer

    def _ask_for_refresh_token(self, parameters: dict[str, str]) -> None:
        """Add what makes the provider give a refresh token, where it is to be asked later."""
        prompt = parameters.get("prompt", "")
        if not self.facts.recheck_minutes or prompt == "none":
            return
        parameters.update(self.facts.preset.offline_parameters)
        if prompt and prompt not in parameters["prompt"].split():
            parameters["prompt"] = f"{prompt} {parameters['prompt']}"

    def stash_redirect_state(self, request: HttpRequest, *args: Any, **kwargs: Any) -> str:
        """Keep the state under a name long enough not to be guessed (RFC 6749 10.10)."""
        kwargs.setdefault("state_id", secrets.token_urlsafe(24))
        provider_sessions.begin(request)
        return str(OAuth2Provider.stash_redirect_state(self, request, *args, **kwargs))

    def extract_uid(self, data: dict[str, Any]) -> str:
        """Return the subject, which never changes."""
        return str(data["id_token"]["sub"])

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return name and address as the library calls them."""
        said = together(data)
        return {
            "email": claims.address_in(said, self.facts.preset.email_claims),
            "username": said.get("preferred_username") or said.get("upn"),
            "name": said.get("name"),
            "first_name": said.get("given_name"),
            "last_name": said.get("family_name"),
        }

    def sociallogin_from_response(self, request: HttpRequest, response: dict[str, Any]) -> Any:
        """Return who signed in; what the provider denies is not verified, however trusted."""
        login = super().sociallogin_from_response(request, response)
        if claims.address_is_denied(together(response)):
            for address in login.email_addresses:
                address.verified = False
        return login

    def extract_email_addresses(self, data: dict[str, Any]) -> list[EmailAddress]:
        """Return the address; it is verified only if the provider says so."""
        said = together(data)
        address = claims.address_in(said, self.facts.preset.email_claims)
        if not address:
            return []
        verified = claims.address_is_verified(said)
        return [EmailAddress(email=address, verified=verified, primary=True)]


def together(data: dict[str, Any]) -> dict[str, Any]:
    """Return all claims about the person; UserInfo is newer where both speak."""
    return {**data.get("id_token", {}), **data.get("userinfo", {})}


provider_classes = [OpenIdProvider]
