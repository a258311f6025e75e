"""The ticket board's own OAuth 2.1 authorization server.

Discovery (RFC 9728, RFC 8414), dynamic registration (RFC 7591), PKCE with S256, ``resource``
(RFC 8707), ``iss`` (RFC 9207), rotating refresh tokens and revocation (RFC 7009).
"""

import base64
import hashlib
import hmac
import json
import secrets
from html import escape
from urllib.parse import urlencode, urlsplit

from gateway_site.demo.board_store import BoardStore, Client, Tokens
from gateway_site.demo.mcp_wire import Receive, Scope, Send
from gateway_site.demo.running import (
    answer,
    header,
    json_answer,
    read_body,
    read_form,
    read_query,
    text_answer,
)

SCOPE = "tickets"
FORM_COOKIE = "board-form"
PASSED = (
    "client_id",
    "redirect_uri",
    "state",
    "code_challenge",
    "code_challenge_method",
    "resource",
)
STYLE = (
    ":root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}"
    "body{max-width:26rem;margin:12vh auto;padding:0 1rem}"
    "input,button{font:inherit;padding:.5rem .75rem;border-radius:.4rem;border:1px solid gray}"
    "input{width:100%;box-sizing:border-box;margin:.25rem 0 1rem}"
    "button{margin-right:.5rem;cursor:pointer}button.yes{background:#274690;color:#fff}"
)


class BoardAuthorization:
    """The endpoints beside ``/mcp``."""

    def __init__(self, store: BoardStore, origin: str) -> None:
        self._store = store
        self.origin = origin
        self.resource = f"{origin}/mcp"
        self.routes = {
            ("GET", "/.well-known/oauth-protected-resource/mcp"): self.protected_resource,
            ("GET", "/.well-known/oauth-protected-resource"): self.protected_resource,
            ("GET", "/.well-known/oauth-authorization-server"): self.metadata,
            ("POST", "/register"): self.register,
            ("GET", "/authorize"): self.show_consent,
            ("POST", "/authorize"): self.take_consent,
            ("POST", "/token"): self.token,
            ("POST", "/revoke"): self.revoke,
        }

    def challenge(self, error: str) -> str:
        """Return ``WWW-Authenticate`` for a request without a good token (RFC 9728 5.1)."""
        where = f"{self.origin}/.well-known/oauth-protected-resource/mcp"
        parts = [f'resource_metadata="{where}"', f'scope="{SCOPE}"']
        if error:
            parts.insert(0, f'error="{error}"')
        return "Bearer " + ", ".join(parts)

    async def protected_resource(self, scope: Scope, receive: Receive, send: Send) -> None:
        """RFC 9728."""
        document = {
            "resource": self.resource,
            "resource_name": "Ticket board",
            "authorization_servers": [self.origin],
            "scopes_supported": [SCOPE],
            "bearer_methods_supported": ["header"],
        }
        await json_answer(send, 200, document)

    async def metadata(self, scope: Scope, receive: Receive, send: Send) -> None:
        """RFC 8414."""
        document = {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "registration_endpoint": f"{self.origin}/register",
            "revocation_endpoint": f"{self.origin}/revoke",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": [SCOPE],
            "authorization_response_iss_parameter_supported": True,
        }
        await json_answer(send, 200, document)

    async def register(self, scope: Scope, receive: Receive, send: Send) -> None:
        """RFC 7591, public clients only."""
        try:
            asked = json.loads(await read_body(receive))
            redirect_uris = [str(uri) for uri in asked["redirect_uris"]]
            name = str(asked.get("client_name", "An application"))[:100]
        except (ValueError, KeyError, TypeError, AttributeError):
            error = {"error": "invalid_client_metadata", "error_description": "No redirect_uris"}
            await json_answer(send, 400, error)
            return
        if not redirect_uris or not all(acceptable_redirect(uri) for uri in redirect_uris):
            await json_answer(send, 400, {"error": "invalid_redirect_uri"})
            return
        client = self._store.register(name, redirect_uris)
        document = {
            "client_id": client.id,
            "client_name": name,
            "redirect_uris": redirect_uris,
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        }
        await json_answer(send, 201, document)

    def _asked(self, asked: dict[str, str]) -> tuple[Client | None, str]:
        """Return the client (None: do not redirect at all) and the error code, if any."""
        client = self._store.client(asked.get("client_id", ""))
        if client is None or asked.get("redirect_uri") not in client.redirect_uris:
            return None, "invalid_request"
        if asked.get("response_type", "code") != "code":
            return client, "unsupported_response_type"
        if (
            asked.get("code_challenge_method") != "S256"
            or len(asked.get("code_challenge", "")) != 43
        ):
            return client, "invalid_request"
        if asked.get("resource", self.resource) != self.resource:
            return client, "invalid_target"
        return client, ""

    async def show_consent(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page on which a person says who they are and agrees."""
        asked = read_query(scope)
        client, error = self._asked(asked)
        if client is None:
            await text_answer(send, 400, "Unknown client or redirect address.\n")
        elif error:
            await self._redirect(send, asked, {"error": error})
        else:
            form_id = secrets.token_urlsafe(16)
            fields = "".join(
                f'<input type="hidden" name="{name}" value="{escape(asked[name])}">'
                for name in PASSED
                if name in asked
            )
            page = consent_page(client.name, fields, form_id)
            cookie = f"{FORM_COOKIE}={form_id}; Path=/authorize; HttpOnly; SameSite=Strict"
            style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
            policy = f"default-src 'none'; style-src 'sha256-{style}'; frame-ancestors 'none'"
            headers = {"set-cookie": cookie, "content-security-policy": policy}
            await answer(send, 200, page.encode(), "text/html; charset=utf-8", headers)

    async def take_consent(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Issue a code, or tell the client that the person declined."""
        given = await read_form(receive)
        client, error = self._asked(given)
        form_id = given.get("form", "")
        same_form = f"{FORM_COOKIE}={form_id}" in header(scope, "cookie").split("; ")
        person = " ".join(given.get("person", "").split())[:40].lower()
        if client is None or not form_id or not same_form:
            await text_answer(send, 400, "This form is no longer valid. Go back and start again.\n")
        elif error:
            await self._redirect(send, given, {"error": error})
        elif given.get("decision") != "allow" or not person:
            await self._redirect(send, given, {"error": "access_denied"})
        else:
            code = self._store.issue_code(
                client.id, given["redirect_uri"], given["code_challenge"], person
            )
            await self._redirect(send, given, {"code": code})

    async def _redirect(self, send: Send, asked: dict[str, str], outcome: dict[str, str]) -> None:
        outcome["iss"] = self.origin
        if "state" in asked:
            outcome["state"] = asked["state"]
        target = asked["redirect_uri"]
        location = f"{target}{'&' if urlsplit(target).query else '?'}{urlencode(outcome)}"
        await answer(send, 302, b"", "text/plain", {"location": location})

    async def token(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Exchange a code or a refresh token."""
        form = await read_form(receive)
        if form.get("resource", self.resource) != self.resource:
            await json_answer(send, 400, {"error": "invalid_target"})
            return
        if form.get("grant_type") == "authorization_code":
            tokens = self._by_code(form)
        elif form.get("grant_type") == "refresh_token":
            tokens = self._store.rotate(form.get("refresh_token", ""), form.get("client_id", ""))
        else:
            await json_answer(send, 400, {"error": "unsupported_grant_type"})
            return
        if tokens is None:
            await json_answer(send, 400, {"error": "invalid_grant"})
            return
        document = {
            "access_token": tokens.access,
            "token_type": "Bearer",
            "expires_in": tokens.expires_in,
            "refresh_token": tokens.refresh,
            "scope": SCOPE,
        }
        await json_answer(send, 200, document)

    def _by_code(self, form: dict[str, str]) -> Tokens | None:
        record = self._store.take_code(form.get("code", ""))
        if record is None or record.client != form.get("client_id"):
            return None
        if record.redirect_uri != form.get("redirect_uri"):
            return None
        hashed = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
        if not hmac.compare_digest(challenge, record.challenge):
            return None
        return self._store.issue_tokens(record.client, record.person, record.family)

    async def revoke(self, scope: Scope, receive: Receive, send: Send) -> None:
        """RFC 7009: always 200."""
        self._store.revoke((await read_form(receive)).get("token", ""))
        await answer(send, 200, b"", "application/json")


def acceptable_redirect(uri: str) -> bool:
    """Whether an address may be registered: https, or http on this machine; no fragment."""
    parts = urlsplit(uri)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return (
        bool(parts.hostname)
        and not parts.fragment
        and (parts.scheme == "https" or (parts.scheme == "http" and local))
    )


def consent_page(client_name: str, fields: str, form_id: str) -> str:
    """Return the page; ``fields`` is escaped HTML."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Ticket board</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}</style></head><body>
<h1>Ticket board</h1>
<p><strong>{escape(client_name)}</strong> wants to read, add and close your tickets.</p>
<form method="post" action="/authorize">
{fields}<input type="hidden" name="form" value="{escape(form_id)}">
<label for="person">Your name on the board</label>
<input id="person" name="person" value="Robin" maxlength="40" autocomplete="off" required>
<button class="yes" name="decision" value="allow">Allow</button>
<button name="decision" value="deny" formnovalidate>Deny</button>
</form>
<p><small>This board belongs to the demo: any name is an account, without a password.</small></p>
</body></html>
"""
