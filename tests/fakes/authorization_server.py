"""An OAuth authorization server on a socket, strict where real ones are, with switchable faults.

    with FakeAuthorizationServer().serve() as server:
        with ProtectedUpstream(server).serve() as upstream:      # see protected_upstream.py
            Upstream.objects.create(key="fake", title="Fake", url=upstream.url,
                                    credential_kind="user_oauth")

Knobs of the server (set before or while it runs):

    issuer_path        "" or "/tenant": where its issuer lives below the origin
    metadata           "oauth" | "oidc" | "oidc_append" | "none": where its document is found
    changes            members that replace those of the document (None removes one)
    registration       dynamic registration offered (default True)
    registered_method  what a registration answers as token_endpoint_auth_method
    secret_seconds     life of a registered client's secret, 0 = for ever
    documents          takes https client ids (client ID metadata documents)
    iss                "send" (default) | "omit" | any other text is sent as iss
    decision           "approve" | "deny"
    expires_in         life it announces for access tokens (anything JSON)
    rotate             refresh tokens are used once; a second use ends the family (default True)
    granted_scope      scope of the answer, None = as asked
    account            e-mail in the ID token, "" = no ID token
    delay              seconds the token endpoint thinks
    answer_delay       seconds between having renewed a grant and answering
    resource           "take" | "refuse": what it does with the resource parameter (RFC 8707)
    auth_methods       how clients may authenticate; () = every way
    refresh_tokens_on  whether it gives refresh tokens at all
    token_faults       list of Fault: each answers one token request
    reply_changes      members that replace those of a token answer (None removes one)
    jwks               JWKS that private_key_jwt clients are checked with

What it saw:

    requests           Seen(method, path, headers, form) of every request, in order
    calls("/token")    those of one path;  refreshes  how many refresh requests it took
    tokens             access tokens that work;  revoked  tokens it was asked to forget
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode

from tests.fakes.asgi_server import serve


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; ``form`` is its form or JSON body, or its query for GET."""

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, Any]
    query: dict[str, str]


@dataclass(frozen=True)
class Fault:
    """An answer that is given in the place of the right one."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    drip_seconds: float = 0.0


@dataclass
class _Grant:
    client_id: str
    redirect_uri: str
    challenge: str
    scope: str
    resource: str
    used: bool = False


@dataclass
class FakeAuthorizationServer:
    """See the module's text."""

    issuer_path: str = ""
    metadata: str = "oauth"
    changes: dict[str, Any] = field(default_factory=dict)
    registration: bool = True
    registered_method: str = ""
    secret_seconds: int = 0
    documents: bool = False
    iss: str = "send"
    decision: str = "approve"
    expires_in: Any = 3600
    rotate: bool = True
    granted_scope: str | None = None
    account: str = ""
    userinfo: dict[str, Any] | None = None
    delay: float = 0.0
    answer_delay: float = 0.0
    resource: str = "take"
    auth_methods: tuple[str, ...] = ()
    refresh_tokens_on: bool = True
    token_faults: list[Fault] = field(default_factory=list)
    metadata_fault: Fault | None = None
    registration_fault: Fault | None = None
    reply_changes: dict[str, Any] = field(default_factory=dict)
    jwks: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.origin = ""
        self.requests: list[Seen] = []
        self.clients: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, _Grant] = {}
        self.refresh_tokens: dict[str, tuple[str, _Grant]] = {}
        self.spent: dict[str, str] = {}
        self.dead_families: set[str] = set()
        self.tokens: set[str] = set()
        self.revoked: list[str] = []
        # Takes an assertion of a company's provider, returns whom it names; see there.
        self.assertions: Callable[[str], str] | None = None
        self.refreshes = 0
        self.refreshes_begun = 0
        self._lock = threading.Lock()

    @property
    def issuer(self) -> str:
        """The issuer as the document names it."""
        return self.origin + self.issuer_path

    @contextlib.contextmanager
    def serve(self, *, tls: bool = False) -> Iterator["FakeAuthorizationServer"]:
        """Run until the block ends."""
        with serve(self, tls=tls) as origin:
            self.origin = origin
            yield self

    def calls(self, path: str) -> list[Seen]:
        """The requests for one path."""
        return [request for request in self.requests if request.path == path]

    def register(self, client_id: str, **members: Any) -> None:
        """Have a client as an administrator would register it."""
        self.clients[client_id] = {"client_id": client_id, **members}

    def document(self) -> dict[str, Any]:
        """The metadata document, as changed."""
        found: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "revocation_endpoint": f"{self.origin}/revoke",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": list(
                self.auth_methods
                or ("client_secret_basic", "client_secret_post", "none", "private_key_jwt")
            ),
            "authorization_response_iss_parameter_supported": self.iss != "omit",
        }
        if self.registration:
            found["registration_endpoint"] = f"{self.origin}/register"
        if self.documents:
            found["client_id_metadata_document_supported"] = True
        found.update(self.changes)
        return {name: value for name, value in found.items() if value is not None}

    def _document_path(self) -> str:
        path = self.issuer_path
        return {
            "oauth": f"/.well-known/oauth-authorization-server{path}",
            "oidc": f"/.well-known/openid-configuration{path}",
            "oidc_append": f"{path}/.well-known/openid-configuration",
            "none": "",
        }[self.metadata]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode()))
        form = json.loads(body) if "json" in headers.get("content-type", "") and body else {}
        form = form or dict(parse_qsl(body.decode("latin-1"))) or query
        seen = Seen(scope["method"], scope["path"], headers, form, query)
        self.requests.append(seen)
        renewing = seen.path == "/token" and form.get("grant_type") == "refresh_token"
        self.refreshes_begun += renewing
        if seen.path == "/token" and self.delay:
            await asyncio.sleep(self.delay)
        answer = self._answer(seen)
        if renewing and self.answer_delay:
            await asyncio.sleep(self.answer_delay)
        await reply(send, answer)

    def _answer(self, seen: Seen) -> Fault:
        if seen.path == self._document_path():
            return self.metadata_fault or as_json(self.document())
        if seen.path == "/register" and self.registration and seen.method == "POST":
            return self.registration_fault or self._register(seen)
        if seen.path == "/authorize":
            return self._authorize(seen)
        if seen.path == "/token" and seen.method == "POST":
            with self._lock:
                return self._token(seen)
        if seen.path == "/userinfo" and self.userinfo is not None:
            given = seen.headers.get("authorization", "").removeprefix("Bearer ")
            return as_json(self.userinfo) if given in self.tokens else Fault(401)
        if seen.path == "/revoke":
            self.revoked.append(seen.form.get("token", ""))
            self.tokens.discard(seen.form.get("token", ""))
            return as_json({})
        return as_json({"error": "not_found"}, 404)

    def _register(self, seen: Seen) -> Fault:
        client_id = f"client-{secrets.token_hex(6)}"
        method = self.registered_method or seen.form.get(
            "token_endpoint_auth_method", "client_secret_basic"
        )
        found = {**seen.form, "client_id": client_id, "token_endpoint_auth_method": method}
        if method.startswith("client_secret"):
            found["client_secret"] = secrets.token_urlsafe(24)
            found["client_secret_expires_at"] = (
                int(time.time()) + self.secret_seconds if self.secret_seconds else 0
            )
        self.clients[client_id] = found
        return as_json(found, 201)

    def _knows(self, client_id: str) -> bool:
        return client_id in self.clients or (self.documents and client_id.startswith("https://"))

    def _authorize(self, seen: Seen) -> Fault:
        query = seen.query
        client = self.clients.get(query.get("client_id", ""))
        if not self._knows(query.get("client_id", "")):
            return as_json({"error": "unknown client"}, 400)
        if client and query.get("redirect_uri") not in client.get(
            "redirect_uris", [query.get("redirect_uri")]
        ):
            return as_json({"error": "redirect_uri is not registered"}, 400)
        answer = {"state": query.get("state", "")}
        if self.iss != "omit":
            answer["iss"] = self.issuer if self.iss == "send" else self.iss
        if self.resource == "refuse" and "resource" in query:
            # As Microsoft Entra ID does (AADSTS9010010).
            answer |= {"error": "invalid_target", "error_description": "AADSTS9010010"}
        elif self.decision == "deny":
            answer |= {"error": "access_denied", "error_description": "<b>no</b>"}
        else:
            code = secrets.token_urlsafe(24)
            answer["code"] = code
            self.codes[code] = _Grant(
                query["client_id"],
                query["redirect_uri"],
                query.get("code_challenge", ""),
                query.get("scope", ""),
                query.get("resource", ""),
            )
        location = f"{query['redirect_uri']}?{urlencode(answer)}"
        return Fault(302, headers=(("location", location),))

    def _client_of(self, seen: Seen) -> str | None:
        """Return who asks, None if the proof is missing or wrong."""
        form, authorization = seen.form, seen.headers.get("authorization", "")
        if self.auth_methods and _method_of(form, authorization) not in self.auth_methods:
            return None
        if authorization.startswith("Basic "):
            pair = base64.b64decode(authorization[6:]).decode()
            client_id, secret = (unquote_plus(part) for part in pair.split(":", 1))
            right = self.clients.get(client_id, {}).get("client_secret") == secret
            return client_id if right else None
        client_id = form.get("client_id", "")
        client = self.clients.get(client_id, {})
        if form.get("client_assertion"):
            return client_id if self._assertion_holds(form, client_id) else None
        if client.get("client_secret"):
            return client_id if form.get("client_secret") == client["client_secret"] else None
        return client_id if self._knows(client_id) else None

    def _assertion_holds(self, form: dict[str, Any], client_id: str) -> bool:
        from jwcrypto import jwk, jwt

        keys = jwk.JWKSet.from_json(json.dumps(self.jwks or {"keys": []}))
        try:
            token = jwt.JWT(jwt=form["client_assertion"], key=keys, algs=["ES256"])
        except Exception:
            return False
        claims = json.loads(token.claims)
        return claims["iss"] == claims["sub"] == client_id and claims["aud"] == self.issuer

    def _token(self, seen: Seen) -> Fault:
        if seen.form.get("grant_type") == "refresh_token":
            self.refreshes += 1
        if self.token_faults:
            return self.token_faults.pop(0)
        if self.resource == "refuse" and "resource" in seen.form:
            return as_json({"error": "invalid_target"}, 400)
        client_id = self._client_of(seen)
        if client_id is None or not self._knows(client_id):
            return as_json({"error": "invalid_client"}, 401)
        if seen.form.get("grant_type") == "refresh_token":
            return self._refresh(seen, client_id)
        if seen.form.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            person = self.assertions(seen.form.get("assertion", "")) if self.assertions else ""
            if not person:
                return as_json({"error": "invalid_grant"}, 400)
            made = _Grant(client_id, "", "", seen.form.get("scope", ""), "")
            return self._issue(made, secrets.token_hex(6))
        grant = self.codes.get(seen.form.get("code", ""))
        if grant is None or grant.used or grant.client_id != client_id:
            return as_json({"error": "invalid_grant"}, 400)
        hashed = hashlib.sha256(seen.form.get("code_verifier", "").encode()).digest()
        proof = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
        if proof != grant.challenge or seen.form.get("redirect_uri") != grant.redirect_uri:
            return as_json({"error": "invalid_grant"}, 400)
        grant.used = True
        return self._issue(grant, secrets.token_hex(6))

    def _refresh(self, seen: Seen, client_id: str) -> Fault:
        token = seen.form.get("refresh_token", "")
        if token in self.spent:
            self.dead_families.add(self.spent[token])
        family, grant = self.refresh_tokens.get(token, ("", None))
        if grant is None or family in self.dead_families or grant.client_id != client_id:
            return as_json({"error": "invalid_grant"}, 400)
        if self.rotate:
            del self.refresh_tokens[token]
            self.spent[token] = family
        return self._issue(grant, family, keep="" if self.rotate else token)

    def _issue(self, grant: _Grant, family: str, keep: str = "") -> Fault:
        access, refresh = (
            f"at-{secrets.token_urlsafe(24)}",
            keep or f"rt-{secrets.token_urlsafe(24)}",
        )
        self.tokens.add(access)
        if self.refresh_tokens_on:
            self.refresh_tokens[refresh] = (family, grant)
        scope = grant.scope if self.granted_scope is None else self.granted_scope
        found: dict[str, Any] = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "refresh_token": refresh if self.refresh_tokens_on else None,
            "scope": scope,
        }
        if self.account:
            claims = base64.urlsafe_b64encode(json.dumps({"email": self.account}).encode())
            found["id_token"] = f"e30.{claims.rstrip(b'=').decode()}.x"
        found.update(self.reply_changes)
        return as_json({name: value for name, value in found.items() if value is not None})


def _method_of(form: dict[str, Any], authorization: str) -> str:
    if authorization.startswith("Basic "):
        return "client_secret_basic"
    if "client_assertion" in form:
        return "private_key_jwt"
    return "client_secret_post" if "client_secret" in form else "none"


def as_json(document: Any, status: int = 200) -> Fault:
    """A JSON answer."""
    return Fault(status, json.dumps(document).encode())


async def reply(send: Any, answer: Fault) -> None:
    """Send an answer, dripping it where that is asked for."""
    headers = [(b"content-type", answer.content_type.encode())]
    headers += [(key.encode(), value.encode("latin-1")) for key, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.drip_seconds:
        for byte in answer.body:
            await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
            await asyncio.sleep(answer.drip_seconds)
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.body", "body": answer.body})
