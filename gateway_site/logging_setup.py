"""Logs for people (plain lines) or for collectors (one JSON object a line), without secrets.

Whatever reaches a log line passes ``redact`` after formatting, tracebacks and foreign
libraries included, and control characters are escaped, so that nobody can write a line of
their own into the log (security.md 230, 239).
"""

import json
import logging
import logging.config
import re
import time
from typing import Any

from gateway_site.request_facts import current

REDACTED = "[redacted]"
_NAMES = (
    "access_token|refresh_token|id_token|client_secret|client_assertion|code_verifier|"
    "registration_access_token|password|passwd|secret|api_?key|token|code|state|sessionid|"
    "csrfmiddlewaretoken|requestState|assertion|device_code"
)
_RULES = (
    # Authorization headers and tokens quoted anywhere.
    (re.compile(r"(?i)\b(bearer|basic|dpop)\s+[A-Za-z0-9._~+/=:-]{6,}"), rf"\1 {REDACTED}"),
    # Cookies, whole.
    (
        re.compile(r"(?im)\b(set-cookie|cookie)(['\"]?\s*[:=,]\s*b?['\"]?)[^\r\n'\"]+"),
        rf"\1\2{REDACTED}",
    ),
    (re.compile(r"(?i)\b((?:__Host-)?gateway-(?:session|csrf)=)[^;\s'\"]+"), rf"\1{REDACTED}"),
    # name=value in queries and forms.
    (re.compile(rf"(?i)(?<![A-Za-z0-9_])({_NAMES})=([^&\s'\"<>,;)}}\]]+)"), rf"\1={REDACTED}"),
    # "name": "value" in JSON and in Python's reprs.
    (
        re.compile(rf"(?i)(['\"](?:{_NAMES})['\"]\s*[:,]\s*b?)(['\"])(?:\\.|(?!\2).)*\2"),
        rf"\1\2{REDACTED}\2",
    ),
    # What this gateway issues, by its prefixes; a client's identifier is no secret.
    (re.compile(r"\bmcpgw_(?!client_)[a-z]+_[A-Za-z0-9_-]{20,}"), REDACTED),
    # Three-part tokens (JWT) and Fernet tokens without any name before them.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"), REDACTED),
    (re.compile(r"\bgAAAAA[A-Za-z0-9_=-]{40,}"), REDACTED),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_known_secrets: set[str] = set()


def redact(text: str) -> str:
    """Return ``text`` without credentials."""
    for secret in _known_secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def escape_controls(text: str) -> str:
    """Make line breaks, terminal sequences and other control characters visible."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class PlainFormatter(logging.Formatter):
    """``time level logger message [request id]``; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{at}Z {record.levelname:7} {record.name} {escape_controls(record.getMessage())}"
        request_id = current.get().request_id
        if request_id:
            line += f" [{request_id}]"
        if record.exc_info and record.exc_info[0] is not None:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {escape_controls(part)}" for part in trace.splitlines())
        return redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, its texts redacted."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "at": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(escape_controls(record.getMessage())),
        }
        facts = current.get()
        if facts.request_id:
            line["request_id"] = facts.request_id
        if facts.address:
            line["address"] = facts.address
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def remember_secrets(values: list[str]) -> None:
    """Have these exact texts redacted wherever they turn up; short ones are left alone."""
    _known_secrets.update(value for value in values if len(value) >= 8)


def configure(wanted: dict[str, Any]) -> None:
    """Set up logging; Django calls this with ``settings.LOGGING`` (``format``, ``level``)."""
    formatter = JsonFormatter if wanted.get("format") == "json" else PlainFormatter
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": formatter}},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
            },
            "root": {"handlers": ["stderr"], "level": wanted.get("level", "INFO")},
            "loggers": {
                # One line a request is the reverse proxy's job; refused hosts are noise.
                "django.request": {"level": "ERROR"},
                "django.security.DisallowedHost": {"level": "CRITICAL"},
                "django.channels.server": {"level": "WARNING"},
                "daphne": {"level": "WARNING"},
                # uvicorn's own handlers would bypass the redaction.
                "uvicorn": {"level": "WARNING", "handlers": [], "propagate": True},
                "uvicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
                "uvicorn.error": {"level": "WARNING", "handlers": [], "propagate": True},
                # It logs addresses with their query at INFO.
                "httpx": {"level": "WARNING"},
                "asyncio": {"level": "WARNING"},
            },
        }
    )
