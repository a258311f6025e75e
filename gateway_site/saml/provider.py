"""The SAML 2.0 provider that the sign-in library finds in the place of its own (same id).

What is fixed here, whatever is stored: signed assertions only, strict checks, no deprecated
algorithms, no sign-in that was not started in this browser (which is also what keeps an assertion
from being used twice). Metadata is fetched as everything else is and kept for an hour.
"""

import time
from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.providers.base.constants import AuthProcess
from allauth.socialaccount.providers.saml.provider import SAMLProvider
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from gateway_site.identity import outbound, provider_sessions
from gateway_site.identity.admission import AGAIN_SINCE
from gateway_site.identity.claims import keeps_its_letters
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.provider_facts import ProviderFacts, facts_of
from gateway_site.saml import signing_key
from oauthserver.sign_in_demands import demanded_prompt
from upstreams import token_vault

METADATA_SECONDS = 3600
ADVANCED = {
    "strict": True,
    "want_assertion_signed": True,
    "want_name_id": True,
    "reject_deprecated_algorithm": True,
    "reject_idp_initiated_sso": True,
    "allow_single_label_domains": True,
}
ATTRIBUTES = {
    "uid": ["urn:oasis:names:tc:SAML:attribute:subject-id"],
    "email": [
        "email",
        "mail",
        "urn:oid:0.9.2342.19200300.100.1.3",
        "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
    ],
    "first_name": [
        "firstName",
        "givenName",
        "urn:oid:2.5.4.42",
        "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/givenname",
    ],
    "last_name": [
        "lastName",
        "sn",
        "urn:oid:2.5.4.4",
        "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/surname",
    ],
    "username": ["username", "uid", "urn:oid:0.9.2342.19200300.100.1.1"],
}


class SamlProvider(SAMLProvider):  # type: ignore[misc]
    """A SAML identity provider as an administrator configured it."""

    def __init__(self, request: HttpRequest | None, app: Any = None) -> None:
        super().__init__(request, app=app)
        self.name = app.name
        stored = app.settings or {}
        address = stored.get("server_url", "")
        app.settings = {
            **stored,
            "idp": {"metadata_url": address, "entity_id": None},
            "advanced": ADVANCED,
            "attribute_mapping": ATTRIBUTES,
        }
        self._asserted: dict[str, Any] = {}

    @property
    def facts(self) -> ProviderFacts:
        """Return the settings as values."""
        return facts_of(self.app)

    def get_login_url(self, request: HttpRequest, **kwargs: Any) -> str:
        """Return where signing in starts."""
        return str(super().get_login_url(request, **kwargs))

    def metadata(self) -> dict[str, Any]:
        """Return the provider's metadata, and give the library the key to sign with.

        Raises:
            ProviderFault: it can't be had, or the key does not open.
        """
        known = load_metadata(self.app.settings["server_url"])
        try:
            private, certificate = signing_key.key_of(self.app.provider_id)
        except token_vault.VaultError as failure:
            raise ProviderFault(
                "The gateway's key for this provider does not open: its encryption key is missing. "
                "Put that back, or delete the provider and set it up again."
            ) from failure
        self.app.settings["advanced"] = {
            **ADVANCED,
            "private_key": private,
            "x509cert": certificate,
            "authn_request_signed": known.get("security", {}).get("authnRequestsSigned", False),
        }
        return known

    def redirect(
        self,
        request: HttpRequest,
        process: str,
        next_url: Any = None,
        data: Any = None,
        **more: Any,
    ) -> HttpResponse:
        """Send the browser to the provider.

        Who is signed in already, and whose client wants a new sign-in, is to be asked again
        (``ForceAuthn``); of the former the time from which an answer counts is kept.

        Raises:
            ProviderFault: its metadata can't be had.
        """
        from allauth.socialaccount.providers.saml.utils import build_auth

        self.metadata()
        more.pop("auth_params", None)
        again = bool(request.user.is_authenticated and process == AuthProcess.LOGIN)
        if again:
            more[AGAIN_SINCE] = int(time.time())
        auth = build_auth(request, self)
        forced = again or demanded_prompt(request, next_url) != ""
        address = auth.login(return_to="", force_authn=forced)
        provider_sessions.begin(request)
        self.stash_redirect_state(
            request, process, next_url, data, state_id=auth.get_last_request_id(), **more
        )
        return HttpResponseRedirect(address)

    def sociallogin_from_response(self, request: HttpRequest, data: Any) -> Any:
        """Return who signed in, if the signed assertion itself names the request it answers.

        The library compares ``InResponseTo`` there only where it is present, and the response
        around the assertion, which also names it, is not signed.

        Raises:
            ProviderFault: the assertion names none, or another one (SAML Profiles 4.1.4.3).
        """
        confirmations = _in_assertion(data, "Subject/SubjectConfirmation/SubjectConfirmationData")
        requests = {node.get("InResponseTo", "") for node in confirmations}
        if requests != {data.get_last_response_in_response_to()}:
            raise ProviderFault(
                "The signed assertion does not name the sign-in that it answers "
                "(InResponseTo of SubjectConfirmationData)."
            )
        self._asserted = {
            "at": _signed_in_at(data),
            "name_id": data.get_nameid(),
            "format": data.get_nameid_format(),
            "name_qualifier": data.get_nameid_nq(),
            "sp_name_qualifier": data.get_nameid_spnq(),
            "session_index": data.get_session_index(),
        }
        return super().sociallogin_from_response(request, data)

    def unstash_redirect_state(self, request: HttpRequest, state_id: str) -> dict[str, Any]:
        """Return what was kept of the sign-in, with when and as whom it was, by the assertion."""
        kept: dict[str, Any] = super().unstash_redirect_state(request, state_id)
        return {**kept, "asserted": self._asserted}

    def extract_email_addresses(self, data: Any) -> list[EmailAddress]:
        """Return the address; it counts as verified only if the provider is trusted with that."""
        address = self._extract(data).get("email")
        if not address or not keeps_its_letters(address):
            return []
        return [EmailAddress(email=address, verified=False, primary=True)]

    def extract_extra_data(self, data: Any) -> dict[str, Any]:
        """Keep the attributes, and the address where only the name says it."""
        attributes = dict(data.get_attributes())
        address = self._extract(data).get("email")
        return attributes | ({"email": address} if address else {})


def _in_assertion(answer: Any, place: str) -> list[Any]:
    """Return the elements at a place of the assertion whose signature was checked."""
    from onelogin.saml2.constants import OneLogin_Saml2_Constants
    from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

    found: list[Any] = OneLogin_Saml2_XML.to_etree(answer.get_last_response_xml()).xpath(
        "/samlp:Response/saml:Assertion[@ID=$id]"
        + "".join(f"/saml:{step}" for step in place.split("/")),
        id=answer.get_last_assertion_id(),
        namespaces=OneLogin_Saml2_Constants.NSMAP,
    )
    return found


def _signed_in_at(answer: Any) -> int | None:
    """Return when the person signed in there (``AuthnInstant``, SAML Core 2.7.2)."""
    from onelogin.saml2.utils import OneLogin_Saml2_Utils

    instants = [node.get("AuthnInstant", "") for node in _in_assertion(answer, "AuthnStatement")]
    return max(map(OneLogin_Saml2_Utils.parse_SAML_to_time, filter(None, instants)), default=None)


def under_public_address(request: HttpRequest) -> None:
    """Have every address the library composes or compares begin with ``PUBLIC_URL``."""
    request.META["HTTP_HOST"] = settings.PUBLIC_HOST
    request.META["wsgi.url_scheme"] = "https" if settings.SERVED_OVER_TLS else "http"


def load_metadata(address: str, *, fresh: bool = False) -> dict[str, Any]:
    """Read a provider's metadata, and leave it where the library looks for it.

    Raises:
        ProviderFault: it can't be had, or is no metadata of an identity provider.
    """
    from onelogin.saml2.idp_metadata_parser import OneLogin_Saml2_IdPMetadataParser

    key = f"saml.metadata.{address}.None"
    known: dict[str, Any] | None = None if fresh else cache.get(key)
    if known is None:
        text = outbound.fetch_bytes(address, what="The metadata", accept="application/xml")
        try:
            known = OneLogin_Saml2_IdPMetadataParser.parse(text)
        except Exception as failure:
            raise ProviderFault(f"The metadata at {address} is not SAML metadata.") from failure
        idp = known.get("idp") or {}
        certificates = idp.get("x509certMulti", {}).get("signing") or idp.get("x509cert")
        if not (idp.get("entityId") and idp.get("singleSignOnService") and certificates):
            raise ProviderFault(
                f"The metadata at {address} lacks an entity ID, a sign-on address by redirect or "
                "a signing certificate."
            )
        _add_logout_reply_address(text, idp)
        cache.set(key, known, METADATA_SECONDS)
    return known


def _add_logout_reply_address(text: bytes, idp: dict[str, Any]) -> None:
    """Note where answers to a logout go if not to where requests do (SAML Metadata 2.2.2)."""
    from onelogin.saml2.constants import OneLogin_Saml2_Constants
    from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

    found = OneLogin_Saml2_XML.query(
        OneLogin_Saml2_XML.to_etree(text),
        "//md:IDPSSODescriptor/md:SingleLogoutService"
        f"[@Binding='{OneLogin_Saml2_Constants.BINDING_HTTP_REDIRECT}']/@ResponseLocation",
    )
    if found and idp.get("singleLogoutService"):
        idp["singleLogoutService"]["responseUrl"] = str(found[0])


provider_classes = [SamlProvider]
