"""The key with which the gateway signs what it sends to a SAML provider, one for each provider.

Made when it is first needed and kept sealed, with its certificate, among the provider's settings.
The certificate is in the metadata and signed by itself: providers compare the key (SAML Metadata
interoperability profile, 2.6.1), so its end is far away.
"""

from datetime import UTC, datetime, timedelta

from allauth.socialaccount.models import SocialApp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from django.conf import settings
from django.db import transaction

from upstreams import token_vault

SEALED_KEY = "sealed_saml_key"
_CERTIFICATE = "saml_certificate"
_YEARS = 20


def owner(provider_id: str) -> str:
    """Name the owner that a sealed key is bound to."""
    return f"identity-provider:{provider_id}:saml-key"


def key_of(provider_id: str) -> tuple[str, str]:
    """Return a provider's private key and certificate, as PEM; made at the first call.

    Raises:
        SocialApp.DoesNotExist: there is no such provider.
        VaultError: the key does not open.
    """
    app = SocialApp.objects.get(provider="saml", provider_id=provider_id)
    if not app.settings.get(SEALED_KEY):
        app = _with_key(provider_id)
    opened = token_vault.open_sealed(app.settings[SEALED_KEY], owner(provider_id))
    return opened.decode(), str(app.settings[_CERTIFICATE])


@transaction.atomic
def _with_key(provider_id: str) -> SocialApp:
    app = SocialApp.objects.select_for_update().get(provider="saml", provider_id=provider_id)
    if not app.settings.get(SEALED_KEY):
        private, certificate = _new_pair()
        sealed = token_vault.seal(private, owner(provider_id))
        app.settings = {**app.settings, SEALED_KEY: sealed, _CERTIFICATE: certificate}
        app.save(update_fields=["settings"])
    return app


def _new_pair() -> tuple[bytes, str]:
    key = rsa.generate_private_key(65537, 3072)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, settings.PUBLIC_HOST[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(pem).decode()
