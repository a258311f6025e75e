"""What upstreams say, without what nobody else may read."""

import pytest

from virtualmcp.secret_redaction import REDACTED, clean_json, clean_text


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer abcdefgh12345678",
        "bearer   abcdefgh12345678",
        "Basic dXNlcjpwYXNzd29yZA==",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "ghp_abcdefghijklmnopqrst",
        "xoxb-123456789012-abcdef",
        "access_token=abcdef123",
        '"client_secret": "abcdef123"',
        "http://10.1.2.3:8080/internal",
        "http://192.168.0.1/x",
        "https://user:pw@localhost:8000/x",
        "http://169.254.169.254/latest/meta-data",
        "http://db.internal/x",
        "http://[::1]:80/x",
    ],
)
def test_what_looks_secret_or_internal_goes(secret):
    cleaned = clean_text(f"It failed with {secret} today")
    assert REDACTED in cleaned
    for part in secret.replace('"', " ").replace("=", " ").split():
        if len(part) > 8 and part not in ("access_token", "client_secret:", "client_secret"):
            assert part not in cleaned
    assert cleaned.startswith("It failed with")


@pytest.mark.parametrize(
    "text",
    ["Issue #7 was not found.", "See https://docs.example.com/errors", "10.5 of 10 tokens used"],
)
def test_ordinary_messages_stay_as_they_are(text):
    assert clean_text(text) == text


def test_stack_traces_and_control_characters_go_and_length_is_bounded():
    trace = 'Boom\nTraceback (most recent call last):\n  File "/srv/app.py", line 1\nKeyError'
    assert clean_text(trace) == "Boom"
    assert clean_text("Boom\n    at handler (/srv/app.js:10:5)\n    at x (y)") == "Boom"
    assert clean_text("a\x1b[31mb\x00c") == "a[31mbc"
    assert len(clean_text("x" * 100_000)) < 2_100


def test_the_credential_in_use_goes_wherever_it_stands():
    raw = b'{"content":[{"type":"text","text":"your key-of-ada-0000000!"}]}'
    assert b"key-of-ada" not in clean_json(raw, ("key-of-ada-0000000",))
    assert clean_json(raw, ("another-key-000000",)) is raw
    assert "key-of-ada" not in clean_text("key-of-ada-0000000", ("key-of-ada-0000000",))
