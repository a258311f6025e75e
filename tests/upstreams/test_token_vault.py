"""Secrets at rest."""

import base64
import os

import pytest
from django.core.checks import run_checks

from upstreams import token_vault
from upstreams.token_vault import VaultError

pytestmark = pytest.mark.usefixtures("settings")


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def test_a_secret_opens_for_its_owner() -> None:
    sealed = token_vault.seal(b"secret", "user:7/upstream:3")
    assert token_vault.open_sealed(sealed, "user:7/upstream:3") == b"secret"
    assert "secret" not in sealed


@pytest.mark.parametrize(
    "owner", ["user:8/upstream:3", "user:7/upstream:33", "", "user:7/upstream:"]
)
def test_a_secret_copied_to_another_row_does_not_open(owner: str) -> None:
    sealed = token_vault.seal(b"secret", "user:7/upstream:3")
    with pytest.raises(VaultError):
        token_vault.open_sealed(sealed, owner)


def test_an_altered_value_and_plain_text_do_not_open() -> None:
    sealed = token_vault.seal(b"secret", "a")
    for wrong in (sealed[:-2] + "AA", "secret", "", "v1..", sealed.replace("v1", "v2"), "v1.x.é"):
        with pytest.raises(VaultError) as error:
            token_vault.open_sealed(wrong, "a")
        assert "secret'" not in str(error.value)


def test_the_owner_cannot_be_stretched_into_the_secret() -> None:
    sealed = token_vault.seal(b"bc", "a")
    with pytest.raises(VaultError):
        token_vault.open_sealed(sealed, "ab")


def test_old_keys_open_and_the_first_key_seals(settings) -> None:
    old, new = new_key(), new_key()
    settings.GATEWAY_ENCRYPTION_KEYS = [old]
    sealed = token_vault.seal(b"secret", "a")
    settings.GATEWAY_ENCRYPTION_KEYS = [new, old]
    assert token_vault.open_sealed(sealed, "a") == b"secret"
    assert not token_vault.is_current(sealed)
    resealed = token_vault.reseal(sealed)
    assert token_vault.is_current(resealed)
    settings.GATEWAY_ENCRYPTION_KEYS = [new]
    assert token_vault.open_sealed(resealed, "a") == b"secret"
    with pytest.raises(VaultError):
        token_vault.open_sealed(sealed, "a")


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [""],
        ["short"],
        [base64.urlsafe_b64encode(b"x" * 31).decode()],
        ["é" * 44],
        [base64.urlsafe_b64encode(b"\0" * 32).decode()],
        [base64.b64encode(os.urandom(64)).decode()],
    ],
)
def test_without_a_usable_key_nothing_is_sealed_and_the_check_fails(settings, keys) -> None:
    settings.GATEWAY_ENCRYPTION_KEYS = keys
    with pytest.raises(VaultError):
        token_vault.seal(b"secret", "a")
    found = [message.id for message in run_checks()]
    assert "upstreams.E001" in found or "upstreams.E002" in found


def test_keys_of_two_purposes_and_of_two_ring_keys_differ(settings) -> None:
    settings.GATEWAY_ENCRYPTION_KEYS = [new_key(), new_key()]
    one, two = token_vault.derive_key("sessions"), token_vault.derive_key("cursors")
    assert len({*one, *two}) == 4
    assert all(len(key) == 32 for key in (*one, *two))
    assert token_vault.derive_key("sessions") == one


def test_another_key_ring_can_be_given(settings) -> None:
    class Ring:
        def load(self):
            return [b"0123456789abcdef0123456789abcdef"]

    settings.GATEWAY_ENCRYPTION_KEYS = []
    token_vault.use_key_ring(Ring())
    try:
        assert token_vault.open_sealed(token_vault.seal(b"x", "a"), "a") == b"x"
    finally:
        token_vault.use_key_ring(token_vault.SettingsKeyRing())
