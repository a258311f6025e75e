"""A SAML identity provider on a socket: metadata, and signed answers to sign-in requests."""

import base64
import contextlib
import datetime
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html import escape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from tests.fakes.asgi_server import serve

SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
SHA1 = "http://www.w3.org/2000/09/xmldsig#rsa-sha1"
DIGESTS = {SHA256: "http://www.w3.org/2001/04/xmlenc#sha256"}
DIGESTS[SHA1] = "http://www.w3.org/2000/09/xmldsig#sha1"


@cache
def key_pair(name: str) -> tuple[str, str]:
    """Make a key and its certificate, as PEM."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(pem).decode()


@dataclass
class SamlProvider:
    """Who is signed in there, and how honest it is."""

    attributes: dict[str, list[str]] = field(default_factory=dict)
    name_id: str = "ada-1"
    signs: str = "assertion"
    key: str = "idp"
    algorithm: str = SHA256
    audience: str = ""
    issuer: str = ""
    minutes: float = 0
    in_response_to: str = ""
    asserts_request: bool = True
    destination: str = ""
    comment: str = ""
    session: str = "session-1"
    asked: list[str] = field(default_factory=list)
    signed_in_before: float = 0
    offers_logout: bool = True
    logout_address: str = ""
    wants_signed_requests: bool = False
    url: str = ""

    @contextlib.contextmanager
    def serve(self) -> Iterator["SamlProvider"]:
        """Publish the metadata for as long as the block runs."""
        with serve(self) as url:
            self.url = url
            yield self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Sign a browser in that comes with a request; answer anything else with the metadata."""
        kind, body = "application/samlmetadata+xml", self._metadata()
        if scope["path"] == "/sso":
            kind, body = "text/html; charset=utf-8", self._page(scope["query_string"].decode())
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})

    def _page(self, query: str) -> str:
        """Return the page that posts itself back to the gateway (SAML bindings 3.5.4)."""
        form = self.answer_to(f"{self.url}/sso?{query}")
        reply = etree.fromstring(self.asked[-1].encode()).get("AssertionConsumerServiceURL")
        state = parse_qs(query).get("RelayState", [])
        fields = form | ({"RelayState": state[0]} if state else {})
        inputs = "".join(
            f'<input type="hidden" name="{name}" value="{escape(value)}">'
            for name, value in fields.items()
        )
        return (
            "<!doctype html><title>Company sign-in</title>"
            f'<body onload="document.forms[0].submit()"><form method="post" action="{reply}">'
            f"{inputs}</form></body>"
        )

    def _metadata(self) -> str:
        certificate = "".join(key_pair("idp")[1].splitlines()[1:-1])
        wants = 'WantAuthnRequestsSigned="true"' if self.wants_signed_requests else ""
        place = self.logout_address or f"{self.url}/slo"
        logout = (
            f"""<SingleLogoutService
 Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="{place}"
 ResponseLocation="{self.url}/slo-done"/>"""
            if self.offers_logout
            else ""
        )
        return f"""<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata"
 entityID="{self.url}/idp"><IDPSSODescriptor {wants}
 protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><KeyDescriptor use="signing">
<KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>{certificate}
</X509Certificate></X509Data></KeyInfo></KeyDescriptor>{logout}<SingleSignOnService
 Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="{self.url}/sso"/>
</IDPSSODescriptor></EntityDescriptor>"""

    def answer_to(self, address: str) -> dict[str, str]:
        """Return the form that the browser posts back to the gateway."""
        query = parse_qs(urlsplit(address).query)
        raw = zlib.decompress(base64.b64decode(query["SAMLRequest"][0]), -15)
        request = etree.fromstring(raw)
        self.asked.append(raw.decode())
        reply = request.get("AssertionConsumerServiceURL")
        entity = request.findtext("{urn:oasis:names:tc:SAML:2.0:assertion}Issuer")
        return {"SAMLResponse": self._response(request.get("ID"), reply, entity)}

    def _response(self, request_id: str, reply: str, entity: str) -> str:
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=self.minutes)

        def at(minutes: float) -> str:
            return (now + datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")

        asked = self.in_response_to or request_id
        confirmed = f'InResponseTo="{asked}"' if self.asserts_request else ""
        issuer = self.issuer or f"{self.url}/idp"
        attributes = "".join(
            f'<saml:Attribute Name="{name}">'
            + "".join(f"<saml:AttributeValue>{value}</saml:AttributeValue>" for value in values)
            + "</saml:Attribute>"
            for name, values in self.attributes.items()
        )
        assertion = f"""<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"
 ID="_{secrets.token_hex(8)}" Version="2.0" IssueInstant="{at(0)}">
<saml:Issuer>{issuer}</saml:Issuer>
<saml:Subject><saml:NameID>{self.name_id}{self.comment}</saml:NameID><saml:SubjectConfirmation
 Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData
 {confirmed} NotOnOrAfter="{at(5)}" Recipient="{self.destination or reply}"/>
</saml:SubjectConfirmation></saml:Subject><saml:Conditions NotBefore="{at(-1)}"
 NotOnOrAfter="{at(5)}"><saml:AudienceRestriction><saml:Audience>{self.audience or entity}
</saml:Audience></saml:AudienceRestriction></saml:Conditions><saml:AuthnStatement
 AuthnInstant="{at(-self.signed_in_before)}" SessionIndex="{self.session}">
<saml:AuthnContext><saml:AuthnContextClassRef>
urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef></saml:AuthnContext>
</saml:AuthnStatement><saml:AttributeStatement>{attributes}</saml:AttributeStatement>
</saml:Assertion>""".replace(f"{self.audience or entity}\n", self.audience or entity)
        if self.signs == "assertion":
            assertion = self._signed(assertion)
        response = f"""<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"
 xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="_{secrets.token_hex(8)}" Version="2.0"
 IssueInstant="{at(0)}" Destination="{self.destination or reply}" InResponseTo="{asked}">
<saml:Issuer>{issuer}</saml:Issuer><samlp:Status><samlp:StatusCode
 Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>{assertion}</samlp:Response>"""
        if self.signs == "response":
            response = self._signed(response)
        return base64.b64encode(response.encode()).decode()

    def _signed(self, xml: str) -> str:
        private, certificate = key_pair(self.key)
        signed = OneLogin_Saml2_Utils.add_sign(
            xml,
            private,
            certificate,
            sign_algorithm=self.algorithm,
            digest_algorithm=DIGESTS[self.algorithm],
        )
        return signed.decode()
