"""Reading an authorization request: pure checks, in the order that decides where an error goes.

Whatever concerns the client or its redirect URI is a ``LocalRefusal`` (our own page); after
those two are known to be good, everything else is a ``RedirectRefusal`` (RFC 6749 4.1.2.1).
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from django.conf import settings

from oauthserver.errors import LocalRefusal, RedirectRefusal
from oauthserver.models import OAuthClient

MAX_QUERY = 8 * 1024
MAX_STATE = 4000
MAX_NONCE = 255
# An S256 challenge is base64url of 32 bytes without padding (RFC 7636 4.2).
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_AGAIN = "Remove the connection in your client and add it again."
_ALLOWED_TWICE = frozenset({"resource"})


@dataclass(frozen=True)
class AuthorizationRequest:
    """The parameters of one request, each at most once; absent ones are ""."""

    client_id: str
    redirect_uri: str
    response_type: str
    response_mode: str
    scopes: tuple[str, ...]
    state: str
    code_challenge: str
    code_challenge_method: str
    nonce: str
    prompt: frozenset[str]
    max_age: str
    login_hint: str
    id_token_hint: str
    resources: tuple[str, ...]
    names: frozenset[str]


def read_request(query: str) -> AuthorizationRequest:
    """Parse the query string of an authorization request.

    Raises:
        LocalRefusal: too long, not well formed, a parameter twice (RFC 6749 3.1), or a state
            that is too long to send back.
    """
    if len(query) > MAX_QUERY:
        raise LocalRefusal("invalid_request", f"The request is too long. {_AGAIN}", status=414)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise LocalRefusal("invalid_request", f"The request is not well formed. {_AGAIN}") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values and name not in _ALLOWED_TWICE:
            message = f"The parameter {name[:40]!r} is there twice. {_AGAIN}"
            raise LocalRefusal("invalid_request", message)
        values[name] = value
    if len(values.get("state", "")) > MAX_STATE:
        raise LocalRefusal("invalid_request", f"The parameter 'state' is too long. {_AGAIN}")
    return AuthorizationRequest(
        client_id=values.get("client_id", ""),
        redirect_uri=values.get("redirect_uri", ""),
        response_type=values.get("response_type", ""),
        response_mode=values.get("response_mode", ""),
        scopes=tuple(values.get("scope", "").split()),
        state=values.get("state", ""),
        code_challenge=values.get("code_challenge", ""),
        code_challenge_method=values.get("code_challenge_method", ""),
        nonce=values.get("nonce", ""),
        prompt=frozenset(values.get("prompt", "").split()),
        max_age=values.get("max_age", ""),
        login_hint=values.get("login_hint", ""),
        id_token_hint=values.get("id_token_hint", ""),
        resources=tuple(value for name, value in pairs if name == "resource"),
        names=frozenset(values),
    )


def checked_redirect_uri(asked: AuthorizationRequest, client: OAuthClient) -> str:
    """Return where the answer goes: the URI asked for, or the only one registered.

    Raises:
        LocalRefusal: it is not one of the client's.
    """
    if asked.redirect_uri:
        if client.redirect_uri_allowed(asked.redirect_uri):
            return asked.redirect_uri
        raise LocalRefusal(
            "invalid_request",
            f"The address to return to is not one that this client registered. {_AGAIN}",
        )
    known: list[str] = client.redirect_uris.split()
    if len(known) == 1:
        return known[0]
    message = f"The request does not say where to return to. {_AGAIN}"
    raise LocalRefusal("invalid_request", message)


def check_parameters(asked: AuthorizationRequest) -> None:
    """Check what does not depend on the client or the person.

    Raises:
        RedirectRefusal: with the error code of RFC 6749 4.1.2.1, RFC 9101 or RFC 8707.
    """
    if "request" in asked.names:
        raise RedirectRefusal("request_not_supported", "Send the parameters in the URL.")
    if "request_uri" in asked.names:
        raise RedirectRefusal("request_uri_not_supported", "Send the parameters in the URL.")
    if not asked.response_type:
        raise RedirectRefusal("invalid_request", "The parameter 'response_type' is missing.")
    if asked.response_type != "code":
        raise RedirectRefusal("unsupported_response_type", "Only 'code' is supported.")
    if asked.response_mode not in ("", "query"):
        raise RedirectRefusal("invalid_request", "Only the response mode 'query' is supported.")
    if not asked.code_challenge:
        raise RedirectRefusal("invalid_request", "PKCE is required: 'code_challenge' is missing.")
    if asked.code_challenge_method != "S256":
        raise RedirectRefusal("invalid_request", "'code_challenge_method' must be 'S256'.")
    if not _CHALLENGE.fullmatch(asked.code_challenge):
        raise RedirectRefusal("invalid_request", "'code_challenge' is not an S256 challenge.")
    if len(asked.nonce) > MAX_NONCE:
        raise RedirectRefusal("invalid_request", "The parameter 'nonce' is too long.")
    if len(asked.resources) > 1:
        raise RedirectRefusal("invalid_target", "Ask for one resource at a time.")
    if asked.max_age and not _SECONDS.fullmatch(asked.max_age):
        raise RedirectRefusal("invalid_request", "'max_age' must be a number of seconds.")
    if "none" in asked.prompt and len(asked.prompt) > 1:
        raise RedirectRefusal("invalid_request", "'prompt=none' stands alone.")


def answer_uri(redirect_uri: str, state: str, parameters: dict[str, str]) -> str:
    """Compose the redirect: the answer, the state as it came, and ``iss`` (RFC 9207 2)."""
    answer = dict(parameters)
    if state:
        answer["state"] = state
    answer["iss"] = settings.PUBLIC_URL
    separator = "" if redirect_uri.endswith("?") else "&" if "?" in redirect_uri else "?"
    return f"{redirect_uri}{separator}{urlencode(answer)}"
