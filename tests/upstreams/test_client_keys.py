"""Our keys at authorization servers change without a refused request (protocol.md e12, #160)."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from upstreams import client_keys, key_rotation
from upstreams.models import ClientKey
from upstreams.signing_keys import derived_keys
from upstreams.token_vault import VaultError

pytestmark = pytest.mark.django_db


def published() -> list[str]:
    answer = Client(HTTP_HOST="localhost:8000").get("/.well-known/oauth-client/jwks.json").json()
    assert not any("d" in key for key in answer["keys"])
    return [key["kid"] for key in answer["keys"]]


def pass_time(**members: int) -> None:
    for row in ClientKey.objects.all():
        row.signs_from -= timedelta(**members)
        row.save()


def test_a_key_is_published_before_it_signs_and_after_it_did(settings) -> None:
    settings.SERVED_OVER_TLS = True
    derived = derived_keys()[0]["kid"]
    assert published() == [derived] and client_keys.signing_key()["kid"] == derived
    client_keys.keep_rotating()
    first = ClientKey.objects.get().kid
    assert published() == [first, derived] and client_keys.signing_key()["kid"] == derived
    pass_time(days=1, minutes=1)
    assert published() == [first, derived] and client_keys.signing_key()["kid"] == first
    pass_time(days=1)
    assert published() == [first]
    client_keys.keep_rotating()
    assert ClientKey.objects.count() == 1
    pass_time(days=90)
    client_keys.keep_rotating()
    second = ClientKey.objects.latest("pk").kid
    assert published() == [second, first] and client_keys.signing_key()["kid"] == first
    pass_time(days=1, minutes=1)
    client_keys.keep_rotating()
    assert published() == [second, first] and client_keys.signing_key()["kid"] == second
    pass_time(days=1)
    client_keys.keep_rotating()
    assert published() == [second]


def test_a_gateway_that_servers_cannot_see_makes_no_keys(settings) -> None:
    settings.SERVED_OVER_TLS = False
    client_keys.keep_rotating()
    assert not ClientKey.objects.exists()


def test_a_key_that_leaked_is_replaced_at_once(capsys) -> None:
    client_keys.rotate()
    call_command("rotate_client_key", "--now")
    assert "signs now" in capsys.readouterr().out
    (only,) = published()
    assert client_keys.signing_key()["kid"] == only


def test_keys_are_sealed_and_follow_the_rings_rotation(settings) -> None:
    kid = client_keys.rotate(at_once=True)
    assert "PRIVATE" not in ClientKey.objects.get().sealed_key
    new = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU="
    settings.GATEWAY_ENCRYPTION_KEYS = [new, *settings.GATEWAY_ENCRYPTION_KEYS]
    key_rotation.reseal_all()
    settings.GATEWAY_ENCRYPTION_KEYS = [new]
    assert client_keys.signing_key()["kid"] == kid
    ClientKey.objects.create(kid="x", sealed_key=ClientKey.objects.get().sealed_key,
                             signs_from=timezone.now())  # fmt: skip
    with pytest.raises(VaultError):
        client_keys.signing_key()
