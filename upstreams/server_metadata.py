"""What an authorization server says about itself, checked before anything is sent to it.

Pure: takes the document and the rules, returns facts or refuses. RFC 8414 3.2 and 3.3,
protocol.md e3, e4, e16, security.md #139, #140, #146.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from upstreams.egress_guard import EgressRules, check_url_by
from upstreams.errors import EgressRefused, SetupFailed

STEP: Final = "authorization_server_metadata"
# Nothing that a browser, a shell or a log line could take for something else.
_PLAIN_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/?\[\]@!&()*+,;=%-]+\Z")
MAX_ENDPOINT: Final = 2000
MAX_SCOPES: Final = 100
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}\Z")


@dataclass(frozen=True, slots=True)
class MetadataPolicy:
    """What the administrator allows beyond the defaults."""

    allowed_hosts: tuple[str, ...] = ()
    allow_missing_pkce: bool = False


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """The members of RFC 8414 that the gateway uses; "" and () where absent."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    userinfo_endpoint: str = ""
    scopes_supported: tuple[str, ...] = ()
    auth_methods: tuple[str, ...] = ()
    signing_algorithms: tuple[str, ...] = ()
    pkce: bool = False
    iss_in_answer: bool = False
    client_documents: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return a form for the database; ``from_json`` reads it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name in self.__slots__
            for value in (getattr(self, name),)
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ServerMetadata":
        """Read what ``as_json`` wrote."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.items()
            if name in cls.__slots__
        }
        return cls(**known)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, with the default port left out."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != default else "")


def host_listed(url: str, allowed_hosts: Sequence[str]) -> bool:
    """Return whether the administrator listed this URL's host, with or without its port."""
    parts = urlsplit(url)
    names = {(parts.hostname or "").lower(), parts.netloc.lower()}
    return any(str(host).strip().lower() in names for host in allowed_hosts if host)


def failed(message: str, detail: str = "") -> SetupFailed:
    """Return the refusal of this step."""
    return SetupFailed(STEP, message, detail=detail)


def _checked_endpoint(
    document: dict[str, Any], name: str, issuer: str, rules: EgressRules, policy: MetadataPolicy
) -> str:
    url = document.get(name, "")
    if url in ("", None):
        return ""
    if not isinstance(url, str) or len(url) > MAX_ENDPOINT or not _PLAIN_URL.match(url):
        raise failed(
            f"The authorization server's {name} is not a usable web address.",
            f"{name}: {str(url)[:200]!r}",
        )
    try:
        check_url_by(url, rules)
    except EgressRefused as error:
        raise failed(
            f"The authorization server's {name} is not an address the gateway may use.",
            f"{name} {url!r}: {error.detail}",
        ) from error
    elsewhere = origin_of(url) != origin_of(issuer)
    if elsewhere and url.startswith("http:") and not _names_loopback(url):
        # The issuer's own address was looked up and checked; this name never was.
        raise failed(
            f"The authorization server's {name} must begin with https://.", f"{name} {url!r}"
        )
    if elsewhere and not host_listed(url, policy.allowed_hosts):
        host = urlsplit(url).netloc
        raise failed(
            f"The authorization server keeps its {name} on another host. An administrator can "
            "allow that host on the upstream's page.",
            f"{name} is on {host!r}, the issuer is {issuer!r}. If that is right, add {host!r} to "
            "the further hosts of the authorization server.",
        )
    return url


def _names_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "127.0.0.1", "::1")


def _words(document: dict[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name)
    if not isinstance(value, list):
        return ()
    return tuple(
        word for word in value[:MAX_SCOPES] if isinstance(word, str) and _SCOPE.match(word)
    )


def check_metadata(
    document: dict[str, Any], issuer: str, rules: EgressRules, policy: MetadataPolicy
) -> ServerMetadata:
    """Check a metadata document that was fetched for ``issuer``.

    Raises:
        SetupFailed: another issuer, an endpoint that is not allowed, no S256, no code flow.
    """
    if document.get("issuer") != issuer:
        raise failed(
            "The authorization server's document names another issuer than the one asked for.",
            f"expected {issuer!r}, found {str(document.get('issuer'))[:300]!r}",
        )
    endpoints = {
        name: _checked_endpoint(document, name, issuer, rules, policy)
        for name in ("authorization_endpoint", "token_endpoint", "registration_endpoint")
    }
    if not endpoints["authorization_endpoint"] or not endpoints["token_endpoint"]:
        raise failed("The authorization server's document names no authorization or token address.")
    # Revoking and knowing whose account it is are no reasons not to connect.
    for name in ("revocation_endpoint", "userinfo_endpoint"):
        try:
            endpoints[name] = _checked_endpoint(document, name, issuer, rules, policy)
        except SetupFailed:
            endpoints[name] = ""
    response_types = document.get("response_types_supported")
    if isinstance(response_types, list) and "code" not in response_types:
        raise failed("The authorization server does not offer the authorization code flow.")
    methods = document.get("code_challenge_methods_supported")
    pkce = isinstance(methods, list) and "S256" in methods
    if not pkce and not policy.allow_missing_pkce:
        raise failed(
            "The authorization server does not say that it protects sign-ins with PKCE (S256). "
            "An administrator can allow this on the upstream's page.",
            f"code_challenge_methods_supported is {methods!r}"[:300],
        )
    return ServerMetadata(
        issuer=issuer,
        **endpoints,
        scopes_supported=_words(document, "scopes_supported"),
        auth_methods=_words(document, "token_endpoint_auth_methods_supported"),
        signing_algorithms=_words(document, "token_endpoint_auth_signing_alg_values_supported"),
        pkce=pkce,
        iss_in_answer=document.get("authorization_response_iss_parameter_supported") is True,
        client_documents=document.get("client_id_metadata_document_supported") is True,
    )


def default_metadata(origin: str) -> ServerMetadata:
    """Return the endpoints a server of 2025-03-26 has when it publishes no document (e17)."""
    return ServerMetadata(
        issuer=origin,
        authorization_endpoint=f"{origin}/authorize",
        token_endpoint=f"{origin}/token",
        registration_endpoint=f"{origin}/register",
        pkce=True,
    )


def scope_words(text: str) -> tuple[str, ...]:
    """Split a scope string, dropping repetitions and what RFC 6749 3.3 does not allow."""
    words = (word for word in text.split()[:MAX_SCOPES] if _SCOPE.match(word))
    return tuple(dict.fromkeys(words))
