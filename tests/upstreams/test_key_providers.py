"""The vault's keys from a key management service: unwrapped once, failing closed."""

import base64
import shlex
import sys
from pathlib import Path

import pytest
from django.core.checks import run_checks

from upstreams import token_vault
from upstreams.key_providers import CommandKeyRing
from upstreams.token_vault import SettingsKeyRing, VaultError

PLAIN = base64.urlsafe_b64encode(b"0123456789abcdef0123456789abcdeX").decode()


@pytest.fixture
def service(settings, tmp_path: Path):
    """A command that unwraps by reversing, and counts how often it is asked."""
    script = tmp_path / "unwrap.py"
    script.write_text(
        "import pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'asked')!r}).open('a').write('x')\n"
        "text = sys.stdin.read()\n"
        "sys.exit(3) if text == 'unknown' else print(text[::-1])\n"
    )
    settings.GATEWAY_KEY_PROVIDER = "upstreams.key_providers.CommandKeyRing"
    settings.GATEWAY_KEY_COMMAND = shlex.join([sys.executable, str(script)])
    settings.GATEWAY_ENCRYPTION_KEYS = [PLAIN[::-1]]
    token_vault.use_key_ring(CommandKeyRing())
    yield tmp_path / "asked"
    token_vault.use_key_ring(SettingsKeyRing())


def test_a_command_unwraps_each_key_once(service, settings) -> None:
    sealed = token_vault.seal(b"secret", "a")
    for _ in range(5):
        assert token_vault.open_sealed(sealed, "a") == b"secret"
    assert service.read_text() == "x"
    assert not [found for found in run_checks() if found.id.startswith("upstreams.E")]
    token_vault.use_key_ring(SettingsKeyRing())
    settings.GATEWAY_ENCRYPTION_KEYS = [PLAIN]
    assert token_vault.open_sealed(sealed, "a") == b"secret"


@pytest.mark.parametrize("wrapped", ["unknown", "no key", ""])
def test_without_a_key_nothing_is_sealed_and_the_check_fails(service, settings, wrapped) -> None:
    settings.GATEWAY_ENCRYPTION_KEYS = [wrapped]
    for _ in range(3):
        with pytest.raises(VaultError) as error:
            token_vault.seal(b"canary", "a")
        assert "canary" not in str(error.value)
    assert service.read_text() == "x"  # the service is left alone for a while
    assert "upstreams.E005" in [found.id for found in run_checks()]


def test_a_command_that_is_not_there_fails_closed(service, settings) -> None:
    settings.GATEWAY_KEY_COMMAND = "/nowhere/unwrap"
    with pytest.raises(VaultError):
        token_vault.seal(b"x", "a")
