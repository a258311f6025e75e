"""Logout messages of a SAML provider: only what it signed, whole, for this address and now.

SAML Core 3.7; HTTP Redirect and HTTP POST (Bindings 3.4, 3.5); both have to be signed (Profiles
4.4.4). What the library leaves open is closed here: a signature is required, covers the document's
root and is made by an algorithm that counts; a message is good for minutes.
"""

import base64
import time
import zlib
from dataclasses import dataclass
from typing import Any, Final

from allauth.socialaccount.providers.saml.utils import build_saml_config, prepare_django_request
from django.http import HttpRequest
from onelogin.saml2.auth import OneLogin_Saml2_Auth
from onelogin.saml2.constants import OneLogin_Saml2_Constants as Names
from onelogin.saml2.logout_request import OneLogin_Saml2_Logout_Request
from onelogin.saml2.logout_response import OneLogin_Saml2_Logout_Response
from onelogin.saml2.utils import OneLogin_Saml2_Utils
from onelogin.saml2.xml_utils import OneLogin_Saml2_XML

from gateway_site.identity.errors import ProviderFault

LIFETIME: Final = 300.0
_LEEWAY: Final = 60.0
_MOST_BYTES: Final = 64 * 1024
_ALGORITHMS: Final = {Names.RSA_SHA256, Names.RSA_SHA384, Names.RSA_SHA512}
_DIGESTS: Final = {Names.SHA256, Names.SHA384, Names.SHA512}
_ROOTS: Final = {"SAMLRequest": "LogoutRequest", "SAMLResponse": "LogoutResponse"}
_PARAMETERS: Final = ("SAMLRequest", "SAMLResponse", "RelayState", "SigAlg", "Signature")


@dataclass(frozen=True, slots=True)
class LogoutRequest:
    """The provider asks to end sessions: those named, or all of the person's."""

    id: str
    name_id: str
    session_indexes: tuple[str, ...]
    relay_state: str | None


@dataclass(frozen=True, slots=True)
class LogoutResponse:
    """The provider says how a sign-out went that the gateway asked for."""

    in_response_to: str
    succeeded: bool


def conversation(request: HttpRequest, provider: Any, *, by_redirect: bool = True) -> Any:
    """Return the library's side of one exchange, signing with the provider's key."""
    config = build_saml_config(request, provider.app.settings, provider.app.client_id)
    config["security"] |= {
        "logoutRequestSigned": True,
        "logoutResponseSigned": True,
        "wantMessagesSigned": by_redirect,
    }
    return OneLogin_Saml2_Auth(_as_sent(request), config)


def _as_sent(request: HttpRequest) -> dict[str, Any]:
    return {
        **prepare_django_request(request),
        "query_string": request.META.get("QUERY_STRING", ""),
        # Providers write escapes in their own way; what was signed is what was sent.
        "validate_signature_from_qs": True,
    }


def read(request: HttpRequest, provider: Any) -> LogoutRequest | LogoutResponse:
    """Return the message in a request.

    Raises:
        ProviderFault: it is none, or not to be believed; says why.
    """
    try:
        return _read(request, provider)
    except ProviderFault:
        raise
    except Exception as failure:
        # Whatever a parser chokes on. Its text may quote what was sent, so its name has to do.
        raise ProviderFault(f"This is no SAML message ({type(failure).__name__}).") from None


def _read(request: HttpRequest, provider: Any) -> LogoutRequest | LogoutResponse:
    by_redirect = request.method == "GET"
    form = request.GET if by_redirect else request.POST
    if any(len(form.getlist(name)) > 1 for name in _PARAMETERS):
        raise ProviderFault("The message comes twice.")
    if ("SAMLRequest" in form) == ("SAMLResponse" in form):
        raise ProviderFault("There is no SAML message here.")
    kind = "SAMLRequest" if "SAMLRequest" in form else "SAMLResponse"
    raw = base64.b64decode("".join(form[kind].split()), validate=True)
    talk = conversation(request, provider, by_redirect=by_redirect)
    if by_redirect:
        raw = _inflated(raw)
        _check_query_signature(talk, form, kind)
    root = OneLogin_Saml2_XML.to_etree(raw)
    if root.tag != f"{{{Names.NS_SAMLP}}}{_ROOTS[kind]}":
        raise ProviderFault("The message is not about signing out.")
    if not by_redirect:
        _check_enveloped_signature(talk.get_settings(), raw, root)
    _check_time(root)
    if not root.get("ID") or root.findtext(f"{{{Names.NS_SAML}}}Issuer") is None:
        raise ProviderFault("The message does not say who sent it.")
    # The library reads the very bytes that were checked.
    encoded = OneLogin_Saml2_Utils.deflate_and_base64_encode(raw)
    sent = _as_sent(request)
    if kind == "SAMLRequest":
        return _request(talk, encoded, sent, form.get("RelayState"))
    return _response(talk, encoded, sent)


def _request(talk: Any, encoded: str, sent: Any, relay_state: str | None) -> LogoutRequest:
    message = OneLogin_Saml2_Logout_Request(talk.get_settings(), encoded)
    if not message.is_valid(sent):
        raise ProviderFault(f"The sign-out request is not valid: {message.get_error()}")
    xml, key = message.get_xml(), talk.get_settings().get_sp_key()
    try:
        name = OneLogin_Saml2_Logout_Request.get_nameid_data(xml, key)["Value"]
    except Exception as failure:
        raise ProviderFault("The sign-out request names nobody.") from failure
    if not name:
        raise ProviderFault("The sign-out request names nobody.")
    indexes = OneLogin_Saml2_Logout_Request.get_session_indexes(xml)
    return LogoutRequest(message.id, name, tuple(filter(None, indexes)), relay_state)


def _response(talk: Any, encoded: str, sent: Any) -> LogoutResponse:
    message = OneLogin_Saml2_Logout_Response(talk.get_settings(), encoded)
    if not message.is_valid(sent):
        raise ProviderFault(f"The answer to the sign-out is not valid: {message.get_error()}")
    succeeded = message.get_status() == Names.STATUS_SUCCESS
    return LogoutResponse(message.get_in_response_to() or "", succeeded)


def _inflated(raw: bytes) -> bytes:
    unpacking = zlib.decompressobj(-15)
    text = unpacking.decompress(raw, _MOST_BYTES)
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ProviderFault("The message is too long, or incomplete.")
    return text


def _check_query_signature(talk: Any, form: Any, kind: str) -> None:
    if not form.get("Signature") or form.get("SigAlg") not in _ALGORITHMS:
        raise ProviderFault("The message is not signed with RSA-SHA-256 or better.")
    check = {
        "SAMLRequest": talk.validate_request_signature,
        "SAMLResponse": talk.validate_response_signature,
    }[kind]
    if not check(form):
        raise ProviderFault("The signature is not that of a certificate in the metadata.")


def _check_enveloped_signature(settings: Any, raw: bytes, root: Any) -> None:
    """Check a signature inside of the message: one, of the root, with nothing else of its ID."""
    if len(raw) > _MOST_BYTES:
        raise ProviderFault("The message is too long.")
    find = OneLogin_Saml2_XML.query
    signatures = find(root, "//ds:Signature")
    if len(signatures) != 1 or signatures[0].getparent() is not root:
        raise ProviderFault("The message is not signed as a whole.")
    references = find(signatures[0], "./ds:SignedInfo/ds:Reference")
    identifier = root.get("ID")
    alone = len([node for node in root.iter() if node.get("ID") == identifier]) == 1
    if not alone or [node.get("URI") for node in references] != [f"#{identifier}"]:
        raise ProviderFault("The signature is not that of this message.")
    method = find(signatures[0], "./ds:SignedInfo/ds:SignatureMethod")[0].get("Algorithm")
    digest = find(references[0], "./ds:DigestMethod")[0].get("Algorithm")
    if method not in _ALGORITHMS or digest not in _DIGESTS:
        raise ProviderFault("The message is not signed with RSA-SHA-256 or better.")
    idp = settings.get_idp_data()
    several = idp.get("x509certMulti", {}).get("signing")
    place = f"/samlp:{root.tag.rpartition('}')[2]}/ds:Signature"
    if not OneLogin_Saml2_Utils.validate_sign(
        raw, cert=settings.get_idp_cert(), xpath=place, multicerts=several
    ):
        raise ProviderFault("The signature is not that of a certificate in the metadata.")


def _check_time(root: Any) -> None:
    issued = OneLogin_Saml2_Utils.parse_SAML_to_time(root.get("IssueInstant", ""))
    if not -LIFETIME - _LEEWAY <= issued - time.time() <= _LEEWAY:
        raise ProviderFault("The message is too old, or of the future. Check both clocks.")
