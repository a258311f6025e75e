"""The SAML 2.0 provider that the sign-in library finds in the place of its own (same id).

What is fixed here, whatever is stored: signed assertions only, strict checks, no deprecated
algorithms, no sign-in that was not started in this browser (which is also what keeps an assertion
from being used twice). Metadata is fetched as everything else is and kept for an hour.
"""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.providers.saml.provider import SAMLProvider
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from gateway_site.identity import outbound
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.provider_facts import ProviderFacts, facts_of

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

    @property
    def facts(self) -> ProviderFacts:
        """Return the settings as values."""
        return facts_of(self.app)

    def get_login_url(self, request: HttpRequest, **kwargs: Any) -> str:
        """Return where signing in starts."""
        return str(super().get_login_url(request, **kwargs))

    def redirect(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Send the browser to the provider.

        Raises:
            ProviderFault: its metadata can't be had.
        """
        load_metadata(self.app.settings["server_url"])
        kwargs.pop("auth_params", None)
        answer: HttpResponse = super().redirect(request, *args, **kwargs)
        return answer

    def sociallogin_from_response(self, request: HttpRequest, data: Any) -> Any:
        """Return who signed in, if the signed assertion itself names the request it answers.

        The library compares ``InResponseTo`` there only where it is present, and the response
        around the assertion, which also names it, is not signed.

        Raises:
            ProviderFault: the assertion names none, or another one (SAML Profiles 4.1.4.3).
        """
        if _requests_in(data) != {data.get_last_response_in_response_to()}:
            raise ProviderFault(
                "The signed assertion does not name the sign-in that it answers "
                "(InResponseTo of SubjectConfirmationData)."
            )
        return super().sociallogin_from_response(request, data)

    def extract_email_addresses(self, data: Any) -> list[EmailAddress]:
        """Return the address; it counts as verified only if the provider is trusted with that."""
        address = self._extract(data).get("email")
        return [EmailAddress(email=address, verified=False, primary=True)] if address else []

    def extract_extra_data(self, data: Any) -> dict[str, Any]:
        """Keep the attributes, and the address where only the name says it."""
        attributes = dict(data.get_attributes())
        address = self._extract(data).get("email")
        return attributes | ({"email": address} if address else {})


def _requests_in(answer: Any) -> set[str]:
    """Return what the confirmations in the assertion that was checked answer, "" for nothing."""
    from onelogin.saml2.constants import OneLogin_Saml2_Constants
    from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

    found = OneLogin_Saml2_XML.to_etree(answer.get_last_response_xml()).xpath(
        "/samlp:Response/saml:Assertion[@ID=$id]/saml:Subject/saml:SubjectConfirmation"
        "/saml:SubjectConfirmationData",
        id=answer.get_last_assertion_id(),
        namespaces=OneLogin_Saml2_Constants.NSMAP,
    )
    return {node.get("InResponseTo", "") for node in found}


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
        cache.set(key, known, METADATA_SECONDS)
    return known


def addresses(slug: str) -> dict[str, str]:
    """Return what the provider's administrator needs: entity ID and reply address."""
    from django.conf import settings

    return {
        "entity_id": settings.PUBLIC_URL + reverse("saml_metadata", args=[slug]),
        "reply": settings.PUBLIC_URL + reverse("saml_acs", args=[slug]),
    }


provider_classes = [SamlProvider]
