"""Sealed state opens only for whom and what it was sealed, while it lasts."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualmcp.routing import sealed_state
from virtualmcp.routing.sealed_state import LARGEST_CONTENT, SealBroken, seal, unseal

FIRST = base64.urlsafe_b64encode(bytes(range(32))).decode()
SECOND = base64.urlsafe_b64encode(bytes(range(1, 33))).decode()


def sealed(payload: bytes = b"hello", lifetime: int = 60) -> str:
    return seal("cursor", payload, bound_to="board\n1", lifetime=lifetime)


@given(st.binary(max_size=2_000))
def test_what_was_sealed_comes_back(payload):
    assert unseal("cursor", sealed(payload), bound_to="board\n1") == payload


def test_a_seal_is_short_visible_ascii_and_never_the_same_twice():
    one, other = sealed(b"a" * 5_000), sealed(b"a" * 5_000)
    assert one != other
    assert len(one) < 200
    assert one.isascii() and one.isprintable() and " " not in one


def test_another_owner_or_purpose_can_not_open_it():
    for purpose, owner in [
        ("cursor", "board\n2"),
        ("cursor", "other\n1"),
        ("session", "board\n1"),
        ("cursorb", "oard\n1"),
    ]:
        with pytest.raises(SealBroken):
            unseal(purpose, sealed(), bound_to=owner)


def test_no_changed_character_is_accepted():
    value = sealed()
    for place in range(len(value)):
        changed = value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :]
        with pytest.raises(SealBroken):
            unseal("cursor", changed, bound_to="board\n1")


@pytest.mark.parametrize(
    "value",
    ["", "v1", "v1..", "v1.x.y", "v2.a.b", "é", "\x00" * 40, "v1." + "a" * 10_000, "v1.00000000.A"],
)
def test_what_is_no_seal_is_refused(value):
    with pytest.raises(SealBroken):
        unseal("cursor", value, bound_to="board\n1")


def test_another_spelling_of_the_same_bytes_is_refused():
    value = sealed()
    with pytest.raises(SealBroken):
        unseal("cursor", value + "=", bound_to="board\n1")
    with pytest.raises(SealBroken):
        unseal("cursor", value + "\n", bound_to="board\n1")


def test_it_opens_until_its_time_is_over(monkeypatch):
    value = sealed(lifetime=60)
    now = time.time()
    monkeypatch.setattr(sealed_state.time, "time", lambda: now + 58)
    assert unseal("cursor", value, bound_to="board\n1") == b"hello"
    monkeypatch.setattr(sealed_state.time, "time", lambda: now + 61)
    with pytest.raises(SealBroken):
        unseal("cursor", value, bound_to="board\n1")


def test_a_rotated_key_opens_what_it_sealed_until_it_is_taken_away(settings):
    settings.GATEWAY_ENCRYPTION_KEYS = [FIRST]
    old = sealed()
    settings.GATEWAY_ENCRYPTION_KEYS = [SECOND, FIRST]
    assert unseal("cursor", old, bound_to="board\n1") == b"hello"
    new = sealed()
    settings.GATEWAY_ENCRYPTION_KEYS = [SECOND]
    assert unseal("cursor", new, bound_to="board\n1") == b"hello"
    with pytest.raises(SealBroken):
        unseal("cursor", old, bound_to="board\n1")


def test_too_much_is_not_sealed():
    with pytest.raises(ValueError, match="at most"):
        sealed(b"x" * (LARGEST_CONTENT + 1))
