"""The OpenID Connect exchange: where to send the browser, and what to believe on its return."""

from typing import Any
from urllib.parse import quote, urlencode

import requests
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialApp, SocialToken
from allauth.socialaccount.providers.oauth2.client import OAuth2Client
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from gateway_site.identity import discovery, outbound, stranger_limits
from gateway_site.identity.errors import ProviderFault, TokenRefused
from gateway_site.identity.id_tokens import Expected
from gateway_site.identity.provider_facts import facts_of


class TokenClient(OAuth2Client):  # type: ignore[misc]
    """The request to the token endpoint; what it answers wrongly reaches no page and no log."""

    def get_redirect_url(
        self, authorization_url: str, scope: list[str], extra_params: dict[str, str]
    ) -> str:
        """Compose the authorization request; scopes keep their order."""
        parameters = {
            "client_id": self.consumer_key,
            "redirect_uri": self.callback_url,
            "response_type": "code",
            "scope": " ".join(dict.fromkeys(scope)),
            "state": self.state,
            **extra_params,
        }
        joint = "&" if "?" in authorization_url else "?"
        return f"{authorization_url}{joint}{urlencode(parameters)}"

    def get_access_token(
        self, code: str, pkce_code_verifier: str | None = None, extra_data: Any = None
    ) -> dict[str, Any]:
        """Exchange the code.

        Raises:
            ProviderFault: names the provider's error code, never its text.
        """
        data = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.callback_url,
            "code_verifier": pkce_code_verifier or "",
        }
        auth: Any = None
        if self.basic_auth:
            auth = requests.auth.HTTPBasicAuth(
                quote(self.consumer_key, safe=""),
                quote(self.consumer_secret, safe=""),
            )
        else:
            data |= {"client_id": self.consumer_key, "client_secret": self.consumer_secret}
        data = {name: value for name, value in data.items() if value}
        with get_adapter().get_requests_session() as session:
            answer = session.post(
                self.access_token_url,
                data=data,
                auth=auth,
                allow_redirects=False,
                headers={"Accept": "application/json"},
            )
        try:
            said = answer.json()
        except ValueError:
            said = None
        if answer.status_code != 200 or not isinstance(said, dict) or "access_token" not in said:
            error = said.get("error") if isinstance(said, dict) else None
            plain = isinstance(error, str) and error.replace("_", "").isalpha()
            named = str(error) if plain else "no code"
            raise ProviderFault(
                f"The token endpoint answered {answer.status_code} ({named[:60]}). "
                "Check client ID, client secret and the registered redirect URI."
            )
        return said


class OpenIdAdapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """One exchange with one provider."""

    client_class = TokenClient

    @property
    def openid_config(self) -> dict[str, Any]:
        """Return the provider's metadata, checked.

        Raises:
            ProviderFault: it can't be had, or is another issuer's.
        """
        app = self.get_provider().app
        overrides = app.settings.get("openid_configuration_overrides", {})
        return {**discovery.metadata_of(facts_of(app).issuer), **overrides}

    @property
    def basic_auth(self) -> bool:
        """Prefer the secret in the body, as most providers document; Basic if only that works."""
        method = self.get_provider().app.settings.get("token_auth_method")
        methods = self.openid_config.get("token_endpoint_auth_methods_supported")
        if method:
            return bool(method == "client_secret_basic")
        # The default of a document that says nothing is client_secret_basic (Discovery 3).
        return "client_secret_post" not in (methods or ["client_secret_basic"])

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        """Return the callback below ``PUBLIC_URL``, whatever host the request named."""
        path = reverse("openid_connect_callback", kwargs={"provider_id": self.provider_id})
        return f"{settings.PUBLIC_URL}{path}"

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: SocialToken, **kwargs: Any
    ) -> Any:
        """Return who signed in.

        Raises:
            ProviderFault: the ID token is missing or not valid, or UserInfo is of another person.
        """
        metadata, facts = self.openid_config, facts_of(app)
        self._check_answer(request, metadata)
        raw = kwargs["response"].get("id_token")
        if not isinstance(raw, str):
            raise TokenRefused("The provider sent no ID token. Is openid among the scopes?")
        nonce = str(self.state.get("nonce") or "")
        if not nonce:
            raise TokenRefused("This sign-in was not started here.")
        expected = Expected(metadata["issuer"], app.client_id, nonce, token.token)
        claims = discovery.verified_claims(
            metadata, raw, expected, may_hurry=lambda: stranger_limits.may_hurry(request)
        )
        data = {"id_token": claims}
        address = metadata.get("userinfo_endpoint")
        if facts.fetch_userinfo and address:
            data["userinfo"] = self._userinfo(address, token.token, data["id_token"]["sub"])
        login = self.get_provider().sociallogin_from_response(request, data)
        # For signing out there; the adapter seals it into the session.
        login.raw_id_token = raw
        return login

    # The callback view sets it before it asks for the login.
    state: dict[str, Any] = {}

    @staticmethod
    def _check_answer(request: HttpRequest, metadata: dict[str, Any]) -> None:
        """Refuse an answer of another issuer (RFC 9207 2.4)."""
        said = request.GET.get("iss")
        promised = metadata.get("authorization_response_iss_parameter_supported") is True
        if (said is not None and said != metadata["issuer"]) or (promised and said is None):
            raise TokenRefused("The answer does not come from the provider that was asked.")

    @staticmethod
    def _userinfo(address: str, access_token: str, subject: str) -> dict[str, Any]:
        said = outbound.fetch_json(address, what="UserInfo", token=access_token)
        if said.get("sub") != subject:
            # OpenID Connect Core 5.3.2.
            raise TokenRefused("UserInfo is about another person than the ID token.")
        return said
