"""What of a request and its answer an OAuth trace shows: only what is named here (pure).

A list of secrets to remove would be as good as its last gap. So everything is left out but
the names below; what is left out is said with its length. Free text (``error_description``)
is shown without words that could be a token.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

MOST_TEXT: Final = 300
MOST_ENTRIES: Final = 30

PARAMETERS: Final = frozenset(
    [
        "access_type",
        "audience",
        "client_assertion_type",
        "client_id",
        "code_challenge_method",
        "grant_type",
        "iss",
        "prompt",
        "redirect_uri",
        "requested_token_type",
        "resource",
        "response_mode",
        "response_type",
        "scope",
        "subject_token_type",
        "token_type_hint",
    ]
)
REQUEST_HEADERS: Final = frozenset(
    ("accept", "content-type", "mcp-method", "mcp-protocol-version", "user-agent")
)
ANSWER_HEADERS: Final = frozenset(
    ("cache-control", "content-type", "date", "retry-after", "server")
)
CHALLENGE_PARAMETERS: Final = frozenset(("error", "realm", "resource_metadata", "scope"))
MEMBERS: Final = frozenset(
    [
        "application_type",
        "authorization_endpoint",
        "authorization_response_iss_parameter_supported",
        "authorization_servers",
        "bearer_methods_supported",
        "client_id",
        "client_id_issued_at",
        "client_id_metadata_document_supported",
        "client_name",
        "client_secret_expires_at",
        "client_uri",
        "code_challenge_methods_supported",
        "error",
        "expires_in",
        "grant_types",
        "grant_types_supported",
        "introspection_endpoint",
        "issued_token_type",
        "issuer",
        "jsonrpc",
        "jwks_uri",
        "method",
        "redirect_uris",
        "refresh_token_expires_in",
        "registration_endpoint",
        "resource",
        "resource_documentation",
        "resource_name",
        "response_modes_supported",
        "response_types",
        "response_types_supported",
        "revocation_endpoint",
        "scope",
        "scopes_supported",
        "subject_types_supported",
        "token_endpoint",
        "token_endpoint_auth_method",
        "token_endpoint_auth_methods_supported",
        "token_endpoint_auth_signing_alg_values_supported",
        "token_type",
        "userinfo_endpoint",
    ]
)
_FREE_TEXT: Final = frozenset(("error_description", "error_uri"))
# Long enough for a token, a code or a key; ordinary words of an error text are not.
_TOKEN_LIKE: Final = re.compile(r"[A-Za-z0-9+/=_.~%-]{16,}")
_CHALLENGE_PARAMETER: Final = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')


def left_out(value: str | bytes) -> str:
    """Return what stands in the place of something that is not shown."""
    return f"(not shown, {len(value)} characters)"


def shown_text(value: Any) -> Any:
    """Return a value in a bounded form."""
    if isinstance(value, str):
        return value if len(value) <= MOST_TEXT else f"{value[:MOST_TEXT]}…"
    if isinstance(value, list):
        return [shown_text(one) for one in value[:MOST_ENTRIES] if isinstance(one, str | int)]
    return value if isinstance(value, bool | int | float | None) else left_out(str(value))


def free_text(value: str) -> str:
    """Return somebody else's words without whatever could be a secret."""
    return _TOKEN_LIKE.sub("(removed)", value[: 2 * MOST_TEXT])[:MOST_TEXT]


def address(url: str) -> str:
    """Return an address with its query reduced to what may be seen."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return left_out(url)
    host = parts.netloc.rpartition("@")[2]
    base = f"{parts.scheme}://{host}{parts.path}"[: 2 * MOST_TEXT]
    return f"{base}?…" if parts.query else base


def parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return parameters of a query or a form."""
    found: dict[str, Any] = {}
    for name, value in list(pairs)[:MOST_ENTRIES]:
        if name in _FREE_TEXT:
            found[name] = free_text(value)
        elif name in PARAMETERS or name == "error":
            found[name] = shown_text(value)
        else:
            found[name[:60]] = left_out(value)
    return found


def query_of(url: str) -> dict[str, Any]:
    """Return the parameters of an address."""
    try:
        return parameters(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    except ValueError:
        return {}


def request_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request; of a credential only its scheme."""
    found = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in REQUEST_HEADERS:
            found[lower] = str(shown_text(value))
        elif lower == "authorization":
            scheme, _, rest = value.partition(" ")
            found[lower] = f"{scheme[:12]} {left_out(rest)}" if rest else left_out(value)
        else:
            found[lower[:60]] = left_out(value)
    return found


def answer_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of an answer that say something; challenges by their parameters."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in ANSWER_HEADERS:
            found[name] = str(shown_text(value))
        elif name == "www-authenticate":
            found[name] = challenge(value)
    return found


def challenge(value: str) -> str:
    """Return a ``WWW-Authenticate`` value with the parameters that discovery needs."""
    scheme = value.strip().partition(" ")[0][:20]
    named = [
        f'{name.lower()}="{shown_text(quoted or plain)}"'
        for name, quoted, plain in _CHALLENGE_PARAMETER.findall(value[:4000])
        if name.lower() in CHALLENGE_PARAMETERS
    ]
    return f"{scheme} {', '.join(named)}".strip()


def body(content: bytes, content_type: str) -> dict[str, Any]:
    """Return a body by its members or parameters; of anything else only kind and length."""
    if not content:
        return {}
    if "form-urlencoded" in content_type:
        return parameters(parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        kind = content_type.partition(";")[0][:60] or "no content type"
        return {f"({kind})": f"{len(content)} bytes, not shown"}
    found: dict[str, Any] = {}
    for name, value in list(document.items())[: 2 * MOST_ENTRIES]:
        if name in MEMBERS:
            found[name] = shown_text(value)
        elif name in _FREE_TEXT and isinstance(value, str):
            found[name] = free_text(value)
        else:
            found[str(name)[:60]] = left_out(value if isinstance(value, str) else json.dumps(value))
    return found
