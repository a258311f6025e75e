"""A wrong configuration is found at start, with what to do about it."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from gateway_site import configuration_checks, public_address


@pytest.fixture
def sound(settings, tmp_path):
    settings.PUBLIC_URL = "https://mcp.example.com"
    settings.SERVED_OVER_TLS = True
    settings.TRUSTED_PROXY = ["10.0.0.0/8"]
    settings.DATA_DIR = tmp_path
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
    settings.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA = False
    settings.GATEWAY_EXTRA_CA_BUNDLE = ""
    settings.REDIS_URL = ""
    return settings


def ids() -> set[str]:
    return {str(message.id) for message in configuration_checks.check_configuration()}


def test_several_nodes_need_redis(sound, monkeypatch):
    monkeypatch.setitem(sound.DATABASES["default"], "ENGINE", "django.db.backends.postgresql")
    sound.REDIS_URL = ""
    assert ids() == {"gateway.W004"}


def test_a_sound_configuration_has_no_complaints(sound, monkeypatch):
    monkeypatch.setitem(sound.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    assert ids() == set()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("PUBLIC_URL", "mcp.example.com", "gateway.E001"),
        ("PUBLIC_URL", "http://mcp.example.com", "gateway.E001"),
        ("PUBLIC_URL", "https://mcp.example.com/base", "gateway.E001"),
        ("PUBLIC_URL", "https://MCP.example.com", "gateway.E001"),
        ("PUBLIC_URL", "https://mcp.example.com:443", "gateway.E001"),
        ("PUBLIC_URL", "https://user@mcp.example.com", "gateway.E001"),
        ("PUBLIC_URL", "https://mcp.example.com:port", "gateway.E001"),
        ("SECRET_KEY", "", "gateway.E002"),
        ("SECRET_KEY", "short", "gateway.E002"),
        ("SECRET_KEY", "a" * 60, "gateway.E002"),
        ("GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA", True, "gateway.E004"),
        ("DEBUG", True, "gateway.E005"),
        ("DATA_DIR", "/nonexistent/folder", "gateway.E006"),
        ("TRUSTED_PROXY", ["not a network"], "gateway.E007"),
        ("TRUSTED_PROXY", ["0.0.0.0/0"], "gateway.E008"),
        ("TRUSTED_PROXY", [], "gateway.W002"),
        ("REDIS_URL", "redis://localhost", "gateway.W003"),
        ("GATEWAY_EXTRA_CA_BUNDLE", "/nonexistent.pem", "gateway.E009"),
        ("GATEWAY_ALLOWED_ORIGINS", ["app.example.com"], "gateway.E010"),
        ("LOG_FORMAT", "xml", "gateway.E011"),
        ("METRICS_TOKEN", "short", "gateway.E012"),
        ("GATEWAY_MAX_BODY_BYTES", 10, "gateway.E013"),
    ],
)
def test_each_mistake_is_named_with_a_hint(sound, monkeypatch, name, value, complaint):
    setattr(sound, name, value)
    monkeypatch.setitem(sound.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    found = {str(message.id): message for message in configuration_checks.check_configuration()}
    assert complaint in found
    assert found[complaint].hint


def test_the_same_key_for_two_purposes_is_refused(sound):
    sound.GATEWAY_ENCRYPTION_KEYS = [sound.SECRET_KEY]
    assert "gateway.E003" in ids()


def test_keys_that_others_can_read_are_pointed_out(sound, tmp_path, monkeypatch):
    monkeypatch.setitem(sound.DATABASES["default"], "ENGINE", "django.db.backends.sqlite3")
    (tmp_path / "gateway.env").write_text("SECRET_KEY=x")
    (tmp_path / "gateway.env").chmod(0o644)
    assert "gateway.W001" in ids()
    (tmp_path / "gateway.env").chmod(0o600)
    assert ids() == set()


def test_development_switches_keep_a_public_gateway_from_starting(sound):
    sound.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = True
    sound.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA = True
    with pytest.raises(ImproperlyConfigured) as refused:
        configuration_checks.require_sound_configuration()
    assert "GATEWAY_ALLOW_LOOPBACK_UPSTREAMS" in str(refused.value)
    assert "GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "https://a.example:8443",
    ],
)
def test_usual_addresses_are_accepted(url):
    assert public_address.problem_with(url) == ""


@pytest.mark.parametrize("url", ["http://localhost.example.com", "http://127.0.0.1.nip.io"])
def test_names_that_only_look_local_are_not_loopback(url):
    assert not public_address.is_loopback(url)
