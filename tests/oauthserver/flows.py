"""The steps of an authorization as a client and a browser take them."""

import base64
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.test import Client

BASE = "http://localhost:8000"
RESOURCE = f"{BASE}/v1/mcp/tools"
OTHER_RESOURCE = f"{BASE}/v1/mcp/other"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Pkce:
    """A verifier and its S256 challenge."""

    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        digest = sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def request_of(client_id: str, redirect_uri: str, pkce: Pkce, /, **more: str | None) -> str:
    """Return the query of a good authorization request; None removes a parameter."""
    parameters: dict[str, str | None] = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": "st-1",
        "code_challenge": pkce.challenge,
        "code_challenge_method": "S256",
        "resource": RESOURCE,
        **more,
    }
    return urlencode({name: value for name, value in parameters.items() if value is not None})


def open_page(browser: Client, query: str) -> Any:
    """Fetch the authorize page."""
    return browser.get(f"/oauth/authorize?{query}")


def press(browser: Client, page: Any, **fields: str) -> Any:
    """Press a button of the page; ``allow`` unless fields say otherwise."""
    body = {"transaction": page.context["transaction"], "allow": "yes", **fields}
    return browser.post(
        page.context["form_action"], {name: value for name, value in body.items() if value}
    )


def answer_of(response: Any) -> dict[str, str]:
    """Return the parameters of a redirect, each of which must be there once."""
    assert response.status_code in (302, 303), response.content[:500]
    found = parse_qs(urlsplit(response["Location"]).query, keep_blank_values=True)
    assert all(len(values) == 1 for values in found.values()), found
    return {name: values[0] for name, values in found.items()}


def code_for(browser: Client, client_id: str, redirect_uri: str, pkce: Pkce, /, **more: Any) -> str:
    """Go through the page and return the code."""
    page = open_page(browser, request_of(client_id, redirect_uri, pkce, **more))
    return answer_of(press(browser, page))["code"]


def token_request(api: Client, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """Post to the token endpoint; a list as value repeats the parameter."""
    return form_request(api, "/oauth/token", headers, **fields)


def form_request(
    api: Client, path: str, headers: dict[str, str] | None = None, **fields: Any
) -> Any:
    """Post a form."""
    body = {name: value for name, value in fields.items() if value is not None}
    return api.post(path, urlencode(body, doseq=True), content_type=FORM, headers=headers or {})


def redeem(
    api: Client, client_id: str, redirect_uri: str, code: str, pkce: Pkce, /, **more: Any
) -> Any:
    """Redeem a code as a public client."""
    fields: dict[str, Any] = {
        "grant_type": "authorization_code",
        "client_id": client_id,
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": pkce.verifier,
        "resource": RESOURCE,
    }
    return token_request(api, **{**fields, **more})


def refresh(api: Client, client_id: str, token: str, /, **more: Any) -> Any:
    """Use a refresh token as a public client."""
    fields = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token}
    return token_request(api, **{**fields, **more})
