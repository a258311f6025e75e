"""Logout messages as a SAML provider sends them, signed or not, and reading the gateway's."""

import base64
import datetime
import secrets
import zlib
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from lxml import etree
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from tests.fakes.saml_provider import DIGESTS, SHA1, SHA256, SamlProvider, key_pair

PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
RESPONDER = "urn:oasis:names:tc:SAML:2.0:status:Responder"
HASHES = {SHA256: hashes.SHA256, SHA1: hashes.SHA1}


def request(
    provider: SamlProvider,
    destination: str,
    *,
    name_id: str = "ada-1",
    sessions: tuple[str, ...] = (),
    minutes: float = 0,
    issuer: str = "",
    expired: bool = False,
) -> str:
    """Ask to end somebody's sessions."""
    named = "".join(f"<samlp:SessionIndex>{one}</samlp:SessionIndex>" for one in sessions)
    until = f'NotOnOrAfter="{_at(-1)}"' if expired else ""
    return f"""<samlp:LogoutRequest xmlns:samlp="{PROTOCOL}" xmlns:saml="{ASSERTION}"
 ID="_{secrets.token_hex(8)}" Version="2.0" IssueInstant="{_at(minutes)}" {until}
 Destination="{destination}"><saml:Issuer>{issuer or f"{provider.url}/idp"}</saml:Issuer>
<saml:NameID>{name_id}</saml:NameID>{named}</samlp:LogoutRequest>"""


def response(provider: SamlProvider, destination: str, asked: str, status: str = SUCCESS) -> str:
    """Say how the gateway's request went."""
    return f"""<samlp:LogoutResponse xmlns:samlp="{PROTOCOL}" xmlns:saml="{ASSERTION}"
 ID="_{secrets.token_hex(8)}" Version="2.0" IssueInstant="{_at(0)}" InResponseTo="{asked}"
 Destination="{destination}"><saml:Issuer>{provider.url}/idp</saml:Issuer><samlp:Status>
<samlp:StatusCode Value="{status}"/></samlp:Status></samlp:LogoutResponse>"""


def _at(minutes: float) -> str:
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def by_redirect(
    xml: str, *, relay_state: str | None = None, key: str | None = "idp", algorithm: str = SHA256
) -> str:
    """Return the query of a message by redirect (Bindings 3.4.4.1), in the lower case of ADFS."""
    deflated = zlib.compress(xml.encode())[2:-4]
    parts = [(_kind(xml), base64.b64encode(deflated).decode())]
    if relay_state is not None:
        parts.append(("RelayState", relay_state))
    if key is None:
        return _joined(parts)
    parts.append(("SigAlg", algorithm))
    private = serialization.load_pem_private_key(key_pair(key)[0].encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    made = private.sign(_joined(parts).encode(), padding.PKCS1v15(), HASHES[algorithm]())
    return f"{_joined(parts)}&Signature={_escaped(base64.b64encode(made).decode())}"


def by_form(xml: str, *, key: str | None = "idp", algorithm: str = SHA256) -> dict[str, str]:
    """Return the form of a message by POST (Bindings 3.5.4)."""
    signed = xml
    if key is not None:
        private, certificate = key_pair(key)
        signed = OneLogin_Saml2_Utils.add_sign(
            xml,
            private,
            certificate,
            sign_algorithm=algorithm,
            digest_algorithm=DIGESTS[algorithm],
        ).decode()
    return {_kind(xml): base64.b64encode(signed.encode()).decode()}


def _kind(xml: str) -> str:
    return "SAMLRequest" if xml.startswith("<samlp:LogoutRequest") else "SAMLResponse"


def _joined(parts: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={_escaped(value)}" for name, value in parts)


def _escaped(value: str) -> str:
    escaped = quote(value, safe="")
    return "".join(
        piece.lower() if escaped[max(0, at - 1)] == "%" or escaped[max(0, at - 2)] == "%" else piece
        for at, piece in enumerate(escaped)
    )


def read(address: str, certificate: str) -> Any:
    """Check the signature of what the gateway sent by redirect; return the message.

    Raises:
        InvalidSignature: it was not made with this key.
    """
    query = urlsplit(address).query
    values = parse_qs(query, keep_blank_values=True)
    assert values["SigAlg"] == [SHA256]
    # What the signature covers comes in this order, whatever the order of the query.
    named = dict(part.split("=", 1) for part in query.split("&"))
    order = ("SAMLRequest", "SAMLResponse", "RelayState", "SigAlg")
    covered = "&".join(f"{name}={named[name]}" for name in order if name in named)
    public = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    made = base64.b64decode(values["Signature"][0])
    public.verify(made, covered.encode(), padding.PKCS1v15(), hashes.SHA256())
    kind = "SAMLRequest" if "SAMLRequest" in values else "SAMLResponse"
    return etree.fromstring(zlib.decompress(base64.b64decode(values[kind][0]), -15))
