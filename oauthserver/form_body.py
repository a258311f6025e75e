"""Reading a form body strictly: one content type, one value per name, nothing from the URL."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from django.http import HttpRequest

from oauthserver.errors import ProtocolError

MAX_BODY = 32 * 1024
_CONTENT_TYPE = "application/x-www-form-urlencoded"
_ALLOWED_TWICE = frozenset({"resource"})


@dataclass(frozen=True)
class FormBody:
    """The parameters of a form; empty ones count as absent (RFC 6749 3.2)."""

    values: dict[str, str]
    resources: list[str]

    def get(self, name: str) -> str:
        """Return a parameter, or ""."""
        return self.values.get(name, "")


def read_body(request: HttpRequest, limit: int) -> bytes:
    """Return the body of a request.

    Raises:
        ProtocolError: 413, longer than ``limit`` bytes.
    """
    too_large = ProtocolError("invalid_request", f"Send at most {limit} bytes.", status=413)
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or int(length) > limit:
        raise too_large
    body = request.read(limit + 1)
    if len(body) > limit:
        raise too_large
    return bytes(body)


def read_form(request: HttpRequest) -> FormBody:
    """Parse a form (RFC 6749 3.2, security.md #101).

    Raises:
        ProtocolError: 415 another content type, 413 too long, 400 malformed or a parameter
            twice (only ``resource`` may be, and is refused where one is meant).
    """
    content_type = (request.content_type or "").lower()
    if content_type != _CONTENT_TYPE:
        raise ProtocolError("invalid_request", f"Send the body as {_CONTENT_TYPE}.", status=415)
    try:
        text = read_body(request, MAX_BODY).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise ProtocolError("invalid_request", "The body is not a well-formed form.") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values and name not in _ALLOWED_TWICE:
            raise ProtocolError("invalid_request", "A parameter is there twice.")
        if "\x00" in value:
            raise ProtocolError("invalid_request", "A parameter holds a NUL.")
        values[name] = value
    kept = {name: value for name, value in values.items() if value}
    return FormBody(kept, [value for name, value in pairs if name == "resource" and value])
