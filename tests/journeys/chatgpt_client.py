"""A client that does what ChatGPT does, and refuses what ChatGPT refuses.

The numbers in the comments are the rows of the reference on ChatGPT's authorization
(clients.md 1.3). Its client metadata document and keys are served over HTTPS by
``chatgpt_documents``; the redirect is ChatGPT's own and is never opened.
"""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jwcrypto import jwk, jwt

from tests.fakes.asgi_server import serve
from tests.journeys.wire_client import Tokens, WireClient

STABLE_REDIRECT = "https://chatgpt.com/connector_platform_oauth_redirect"
REDIRECT_OF_ONE_CALLBACK = "https://chatgpt.com/connector/oauth/{callback}"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
USER_AGENT = "openai-mcp/1.0.0"


class ChatGptDocuments:
    """The client metadata document and the keys it points to, as an ASGI application."""

    def __init__(self) -> None:
        self.key = jwk.JWK.generate(kty="RSA", size=2048, kid=uuid.uuid4().hex, use="sig")
        self.base_url = ""
        self.fetched: list[str] = []
        self.changes: dict[str, Any] = {}

    @property
    def client_id(self) -> str:
        """The document's address, which is the client's id."""
        return f"{self.base_url}/oauth/client.json"

    def document(self) -> dict[str, Any]:
        """Return the document in the form that was seen in the wild (clients.md 1.4)."""
        return {
            "client_id": self.client_id,
            "client_uri": "https://chatgpt.com/",
            "client_name": "ChatGPT",
            "redirect_uris": [STABLE_REDIRECT],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "token_endpoint_auth_signing_alg": "RS256",
            "jwks_uri": f"{self.base_url}/oauth/jwks.json",
            "logo_uri": "https://persistent.oaistatic.com/logo.png",
            **self.changes,
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.fetched.append(path)
        documents = {
            "/oauth/client.json": self.document,
            "/oauth/jwks.json": lambda: {"keys": [json.loads(self.key.export_public())]},
        }
        found = path in documents
        body = json.dumps(documents[path]()).encode() if found else b"{}"
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"max-age=60")]
        status = 200 if found else 404
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def chatgpt_documents() -> Iterator[ChatGptDocuments]:
    """Serve the documents on https://localhost until the block ends."""
    documents = ChatGptDocuments()
    with serve(documents, tls=True) as base:
        documents.base_url = base.replace("127.0.0.1", "localhost")
        yield documents


class Unsupported(AssertionError):
    """ChatGPT would not connect to this server; the message names the row."""


def _insist(holds: bool, row: int, why: Any) -> None:
    if not holds:
        raise Unsupported(f"row {row}: {why}")


class ChatGptClient(WireClient):
    """The client.

    Args:
        endpoint: what the person pasted.
        documents: its client metadata document; None makes it register dynamically.
        era: "modern", or "legacy" for the flow it falls back to.
    """

    def __init__(
        self, endpoint: str, documents: ChatGptDocuments | None, *, era: str = "modern"
    ) -> None:
        super().__init__(endpoint, era=era)
        self.documents = documents
        self.redirect_uri = STABLE_REDIRECT
        self.audience_of_assertions = "token_endpoint"
        self.http.headers["User-Agent"] = USER_AGENT

    # Before the person is asked anything ------------------------------------------
    def prepare(self, callback: str = "") -> None:
        """Discover, check what is published, and become a client.

        Raises:
            Unsupported: a row of the reference is not kept.
        """
        challenge = self.discover()
        self._check_resource(challenge)
        self._check_authorization_server()
        if self.documents is not None:
            self.client_id = self.documents.client_id
            return
        if callback:
            self.redirect_uri = REDIRECT_OF_ONE_CALLBACK.format(callback=callback)
        registered = self.register(client_name="ChatGPT", redirect_uris=[self.redirect_uri])
        _insist(registered["redirect_uris"] == [self.redirect_uri], 10, registered)
        _insist(registered.get("token_endpoint_auth_method") == "none", 6, registered)

    def _check_resource(self, challenge: dict[str, str]) -> None:
        path = urlsplit(self.endpoint).path
        origin = self.endpoint.removesuffix(path)
        well_known = f"{origin}/.well-known/oauth-protected-resource{path}"
        _insist(challenge.get("resource_metadata") == well_known, 2, challenge)
        _insist(challenge.get("scope") == "mcp:tools", 2, challenge)
        _insist("error" not in challenge, 2, "a missing token is no error (RFC 6750 3.1)")
        published = self.resource_metadata
        _insist(published["resource"] == self.endpoint, 1, published)
        _insist(published["authorization_servers"] == [origin], 5, published)
        _insist("offline_access" not in published.get("scopes_supported", []), 13, published)

    def _check_authorization_server(self) -> None:
        issuer = self.resource_metadata["authorization_servers"][0]
        path = urlsplit(self.endpoint).path
        for name in ("oauth-authorization-server", "openid-configuration"):
            for suffix in ("", path):
                answer = self.http.get(f"{issuer}/.well-known/{name}{suffix}")
                _insist(answer.status_code == 200, 3, (name, suffix, answer.status_code))
                _insist(answer.json()["issuer"] == issuer, 5, answer.json())
        known = self.server_metadata
        _insist("S256" in known["code_challenge_methods_supported"], 4, known)
        methods = known["token_endpoint_auth_methods_supported"]
        _insist({"none", "private_key_jwt"} <= set(methods), 6, methods)
        _insist(known["client_id_metadata_document_supported"] is True, 7, known)
        _insist(known["registration_endpoint"].startswith(issuer), 8, known)
        _insist(known["authorization_response_iss_parameter_supported"] is True, 9, known)

    def scopes(self) -> str:
        """Return what it asks for: everything advertised, in the order seen (row 13)."""
        advertised = self.server_metadata.get("scopes_supported", [])
        usual = ["openid", "email", "offline_access", "profile"]
        return " ".join([*usual, *(scope for scope in advertised if scope not in usual)])

    def authorize_url(self, **changes: str) -> str:
        """Return the address to open, without a ``prompt`` (row 13)."""
        return super().authorize_url(**{"scope": self.scopes(), **changes})

    def refused_redirect(self, url: str) -> str:
        """Check an error redirect, which must carry ``iss`` too (row 9); returns the error."""
        answer = dict(parse_qsl(urlsplit(url).query))
        _insist(answer.get("iss") == self.server_metadata["issuer"], 9, url)
        _insist(answer.get("state") == self._state, 9, url)
        return answer["error"]

    # Tokens ------------------------------------------------------------------------
    def authenticate(self, form: dict[str, str]) -> dict[str, str]:
        """Sign an assertion where the document prefers it (row 6); public otherwise."""
        if self.documents is None:
            return form
        preferred = self.documents.document()["token_endpoint_auth_method"]
        if preferred == "none":
            return form
        now = int(time.time())
        audience = self.server_metadata[self.audience_of_assertions]
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audience,
            "iat": now,
            "exp": now + 60,
            "jti": uuid.uuid4().hex,
        }
        key = self.documents.key
        assertion = jwt.JWT(header={"alg": "RS256", "kid": key["kid"]}, claims=claims)
        assertion.make_signed_token(key)
        signed = assertion.serialize()
        return {**form, "client_assertion_type": ASSERTION, "client_assertion": signed}

    def exchange(self, redirect: str) -> Tokens:
        """Redeem the code; without a refresh token people would sign in every hour."""
        _insist(redirect.startswith(f"{self.redirect_uri}?"), 10, redirect)
        tokens = super().exchange(redirect)
        _insist(bool(tokens.refresh_token), 13, "no refresh token")
        return tokens

    def workspace_admits(self, *domains: str) -> bool:
        """Tell whether a workspace that is restricted to domains lets this person connect (row 16).

        It finds out by OpenID Connect, with the token of the connector.

        Raises:
            Unsupported: the server cannot be used with such a restriction at all.
        """
        issuer = self.resource_metadata["authorization_servers"][0]
        known = self.http.get(f"{issuer}/.well-known/openid-configuration").json()
        _insist({"openid", "email"} <= set(known["scopes_supported"]), 16, known)
        _insist("userinfo_endpoint" in known, 16, known)
        assert self.tokens is not None
        _insist({"openid", "email"} <= set(self.tokens.scope.split()), 16, self.tokens.scope)
        token = {"Authorization": f"Bearer {self.tokens.access_token}"}
        answer = self.http.get(known["userinfo_endpoint"], headers=token)
        _insist(answer.status_code == 200, 16, (answer.status_code, answer.text))
        person = answer.json()
        _insist(bool(person.get("sub")), 16, person)
        domain = str(person.get("email", "")).rpartition("@")[2].lower()
        return person.get("email_verified") is True and domain in domains

    # Tools -------------------------------------------------------------------------
    def open(self) -> list[str]:
        """Open the conversation as its era does; returns the names of the tools."""
        if self.era == "modern":
            found = self.rpc("server/discover").result
            assert "2026-07-28" in found["supportedVersions"], found
            assert found["resultType"] == "complete", found
        else:
            assert self.initialize()["protocolVersion"] == "2025-11-25"
        return self.names()
