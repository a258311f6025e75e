"""A real OpenID provider on a socket: discovery, PKCE, codes, signed ID tokens, UserInfo, keys.

It signs ``person`` in without asking. Knobs make it do what a provider must not do; every answer
is otherwise that of OpenID Connect Core.
"""

import base64
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from tests.fakes.asgi_server import serve


@dataclass
class OpenIdProvider:
    """Who is signed in there, and how honest it is.

    Attributes:
        claims: what ID token and UserInfo say of the person beside ``sub``.
        userinfo: what UserInfo says in place of that, None for the same.
        token_claims: laid over the ID token's claims; None takes a claim out.
        refuses: an error the authorization endpoint answers with.
        gives_refresh_tokens: whether a sign-in leaves one; each is used once.
        renews_id_tokens: whether a renewal brings an ID token (Core 12.2 leaves that open).
        loses_answers: renewals happen, and the answer is that of a proxy in front.
        suberror: what is added to a refusal of a refresh token, as Entra ID does.
    """

    client_id: str = "gw"
    client_secret: str = "sso-s3cret"
    algorithm: str = "RS256"
    subject: str = "s-1"
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] | None = None
    token_claims: dict[str, Any] = field(default_factory=dict)
    metadata_changes: dict[str, Any] = field(default_factory=dict)
    published: list[JWK] = field(default_factory=list)
    refuses: str = ""
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    token_requests: list[dict[str, str]] = field(default_factory=list)
    gives_refresh_tokens: bool = False
    renews_id_tokens: bool = True
    loses_answers: bool = False
    suberror: str = ""
    refresh_tokens: set[str] = field(default_factory=set)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.signing_key = self.new_key()
        self.published.append(self.signing_key)

    def new_key(self) -> JWK:
        """Make a signing key with an id of its own."""
        kid = secrets.token_hex(4)
        if self.algorithm.startswith("ES"):
            curve = {"ES256": "P-256", "ES384": "P-384"}[self.algorithm]
            return JWK.generate(kty="EC", crv=curve, kid=kid, use="sig", alg=self.algorithm)
        return JWK.generate(kty="RSA", size=2048, kid=kid, use="sig", alg="RS256")

    def rotate(self, *, publish: bool = True) -> None:
        """Sign with a new key from now on."""
        self.signing_key = self.new_key()
        if publish:
            self.published[:] = [self.signing_key]

    @contextlib.contextmanager
    def serve(self) -> Iterator["OpenIdProvider"]:
        """Listen for as long as the block runs."""
        with serve(self) as url:
            self.url = url
            yield self

    def metadata(self) -> dict[str, Any]:
        """Return the discovery document."""
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
            "end_session_endpoint": f"{self.url}/logout",
            "scopes_supported": ["openid", "profile", "email", "groups", "roles"],
            "code_challenge_methods_supported": ["S256"],
            "id_token_signing_alg_values_supported": [self.algorithm],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "authorization_response_iss_parameter_supported": True,
        }
        document.update(self.metadata_changes)
        return {name: value for name, value in document.items() if value is not None}

    def answer_to(self, authorization_url: str) -> dict[str, str]:
        """Visit the authorization endpoint as the browser; return what it sends back."""
        asked = {name: v[0] for name, v in parse_qs(urlsplit(authorization_url).query).items()}
        self.asked.append(asked)
        back = {"state": asked["state"], "iss": self.url}
        if self.refuses:
            return back | {"error": self.refuses, "error_description": "<b>secret words</b>"}
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return back | {"code": code}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        path = scope["path"]
        self.seen.append(path)
        body = (await receive()).get("body", b"").decode()
        status, said, headers = 200, None, [(b"content-type", b"application/json")]
        if path == "/.well-known/openid-configuration":
            said = self.metadata()
        elif path == "/jwks":
            said = {"keys": [key.export_public(as_dict=True) for key in self.published]}
        elif path == "/authorize":
            query = scope["query_string"].decode()
            answer = self.answer_to(f"?{query}")
            target = f"{self.asked[-1]['redirect_uri']}?{urlencode(answer)}"
            status, headers = 302, [(b"location", target.encode())]
        elif path == "/token":
            status, said = self._token(body, dict(scope["headers"]))
        elif path == "/userinfo":
            said = {"sub": self.subject, **self.claims}
            if self.userinfo is not None:
                said = self.userinfo
        else:
            status = 404
        await send({"type": "http.response.start", "status": status, "headers": headers})
        content = json.dumps(said).encode() if said is not None else b""
        await send({"type": "http.response.body", "body": content})

    def _token(self, body: str, headers: dict[bytes, bytes]) -> tuple[int, dict[str, Any]]:
        form = {name: values[0] for name, values in parse_qs(body).items()}
        if b"authorization" in headers:
            basic = base64.b64decode(headers[b"authorization"].split()[1]).decode()
            form["client_id"], _, form["client_secret"] = basic.partition(":")
            form["by"] = "basic"
        self.token_requests.append(form)
        asked = self._codes.pop(form.get("code", ""), None)
        if (form["client_id"], form["client_secret"]) != (self.client_id, self.client_secret):
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") == "refresh_token":
            return self._refresh(form.get("refresh_token", ""))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        if asked["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        access = secrets.token_urlsafe(16)
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
        answer["id_token"] = self.id_token(asked.get("nonce", ""), access)
        return 200, answer | self._another_refresh_token()

    def _another_refresh_token(self) -> dict[str, str]:
        if not self.gives_refresh_tokens:
            return {}
        made = secrets.token_urlsafe(16)
        self.refresh_tokens.add(made)
        return {"refresh_token": made}

    def _refresh(self, token: str) -> tuple[int, dict[str, Any]]:
        if token not in self.refresh_tokens:
            return 400, {"error": "invalid_grant"} | (
                {"suberror": self.suberror} if self.suberror else {}
            )
        self.refresh_tokens.remove(token)
        access = secrets.token_urlsafe(16)
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
        if self.renews_id_tokens:
            answer["id_token"] = self.id_token("", access)
        answer |= self._another_refresh_token()
        return (502, {}) if self.loses_answers else (200, answer)

    def id_token(self, nonce: str, access_token: str) -> str:
        """Sign an ID token."""
        now = int(time.time())
        bits = int(self.algorithm[2:])
        digest = hashlib.new(f"sha{bits}", access_token.encode()).digest()
        said = {
            "iss": self.url,
            "aud": self.client_id,
            "sub": self.subject,
            "iat": now,
            "auth_time": now,
            "exp": now + 300,
            "nonce": nonce,
            "at_hash": base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode(),
            **self.claims,
            **self.token_claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        token = JWT(header={"alg": self.algorithm, "kid": self.signing_key.kid}, claims=said)
        token.make_signed_token(self.signing_key)
        return str(token.serialize())
