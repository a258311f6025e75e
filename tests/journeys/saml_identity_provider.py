"""Runs a SAML identity provider by ``samlify`` (npm), which reads the gateway's own metadata.

It is somebody else's implementation of SAML: it checks the gateway's signed requests and answers
in its own XML, so that gateway and fake cannot agree on the same mistake.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.fakes.saml_provider import key_pair
from tests.journeys.identity_provider import IdentityProvider, running


class SamlIdentityProvider(IdentityProvider):
    """The running provider; its metadata is at ``url`` + ``/metadata``."""

    def know_gateway(self, url: str, name: str = "company") -> None:
        """Read the gateway's metadata, as an administrator has it read."""
        assert self.do("gateway", metadata=f"{url}/accounts/saml/{name}/metadata/") == {}

    def person(self, login: str, *groups: str, disabled: bool = False) -> None:
        """Add or change somebody."""
        assert not disabled, "a SAML provider does not send them back"
        attributes = {
            "email": [f"{login}@contoso.example"],
            "givenName": [login.capitalize()],
            "groups": list(groups),
        }
        assert self.do("person", login=login, attributes=attributes) == {}

    def sign_out_link(self, login: str) -> str:
        """Return where the provider sends a browser to sign somebody out of the gateway."""
        return str(self.do("logout", login=login)["url"])

    def seen(self) -> dict[str, Any]:
        """Return what it believed and what went wrong since the last time."""
        return self.do("seen")


@contextmanager
def saml_identity_provider() -> Iterator[SamlIdentityProvider]:
    """Run the provider until the block ends."""
    with running("saml_provider.mjs", SamlIdentityProvider) as provider:
        private, certificate = key_pair("idp")
        assert provider.do("keys", privateKey=private, signingCert=certificate) == {}
        yield provider
