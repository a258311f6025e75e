"""Log lines carry what is needed to find a fault, and no credential."""

import json
import logging
import sys

import pytest

from gateway_site.logging_setup import JsonFormatter, PlainFormatter, redact, remember_secrets
from gateway_site.request_facts import RequestFacts, current

CANARY = "c4nary-0123456789abcdef"
FORMS = [
    f"Authorization: Bearer {CANARY}",
    f"authorization: basic {CANARY}==",
    f"Proxy-Authorization: Basic {CANARY}",
    f"GET /oauth/authorize?code={CANARY}&x=1",
    f"POST state={CANARY}",
    f"refresh_token={CANARY}&grant_type=refresh_token",
    f"client_secret={CANARY}",
    f"code_verifier={CANARY}",
    f'{{"access_token": "{CANARY}", "token_type": "Bearer"}}',
    f"{{'password': '{CANARY}'}}",
    f"headers=[(b'authorization', b'Bearer {CANARY}')]",
    f"Cookie: gateway-session={CANARY}; other=1",
    f"set-cookie: __Host-gateway-session={CANARY}; Path=/",
    f"gateway-csrf={CANARY}",
    f"csrfmiddlewaretoken={CANARY}",
    f'"client_assertion": "{CANARY}"',
    f"eyJhbGciOi{'J' * 10}.{CANARY}xyz.sig",
    f"gAAAAAB{CANARY}{'A' * 40}",
    f"api_key={CANARY}",
    f"requestState={CANARY}",
    f"Validating refresh token mcpgw_rt_{CANARY} for client",
]


def line(text: str, formatter: logging.Formatter, **extra: object) -> str:
    record = logging.LogRecord("test", logging.INFO, __file__, 1, text, (), None)
    record.__dict__.update(extra)
    return formatter.format(record)


@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize("formatter", [PlainFormatter(), JsonFormatter()])
def test_no_credential_reaches_a_line(text, formatter):
    assert CANARY not in line(text, formatter)


@pytest.mark.parametrize("formatter", [PlainFormatter(), JsonFormatter()])
def test_no_credential_reaches_a_traceback(formatter):
    try:
        raise ValueError(f"refused: Bearer {CANARY}")
    except ValueError:
        text = line("failed", formatter, exc_info=sys.exc_info())
    assert "ValueError" in text
    assert CANARY not in text


def test_configured_secrets_are_recognised_anywhere():
    remember_secrets(["a-configured-secret-value"])
    assert redact("x a-configured-secret-value y") == "x [redacted] y"


def test_ordinary_words_stay():
    text = "upstream board answered 503 in 120 ms, code path A, state machine idle"
    assert redact(text) == text


@pytest.mark.parametrize("formatter", [PlainFormatter(), JsonFormatter()])
def test_nobody_writes_a_line_of_their_own(formatter):
    text = line("slug=a\r\nERROR forged\x1b[2J\u2028", formatter)
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_a_json_line_names_the_request():
    token = current.set(RequestFacts("req-12345678", "192.0.2.7"))
    try:
        found = json.loads(line("hello", JsonFormatter()))
    finally:
        current.reset(token)
    assert (found["request_id"], found["address"]) == ("req-12345678", "192.0.2.7")
    assert (found["level"], found["message"]) == ("info", "hello")
