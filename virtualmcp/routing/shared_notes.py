"""Short-lived facts that all processes of all nodes share, with exact set-once and leases.

Rows of the database, whatever else is shared: the unique key makes "only one of us" exact, and
losing Redis loses nothing. Only calls that ask a question, hold a stream or run long come here.
Values are sealed by the vault. Every function may be called on an event loop.

    if await shared_notes.set_once(f"answered:{call}", b"", 600): ...   # exactly one caller gets in
    await shared_notes.take_lease(f"owner:{call}", shared_notes.PROCESS, 15.0)
"""

import secrets
from datetime import datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from upstreams import token_vault
from upstreams.database_calls import in_thread
from virtualmcp.models import SharedNote

# Names this process as the holder of a lease.
PROCESS: Final = secrets.token_hex(8)
LONGEST_KEY: Final = 150


async def set_once(key: str, value: bytes, seconds: float) -> bool:
    """Write a fact that nobody has written yet; False if somebody has.

    Raises:
        django.db.Error: the database can't be reached.
        VaultError: there is no usable key.
    """
    return await in_thread(_set_once, key, token_vault.seal(value, _owner(key)), seconds)


async def put(key: str, value: bytes, seconds: float) -> None:
    """Write a fact, whatever was there.

    Raises:
        django.db.Error, VaultError: as ``set_once``.
    """
    await in_thread(_put, key, token_vault.seal(value, _owner(key)), seconds)


async def get(key: str) -> bytes | None:
    """Return a fact, or None where there is none or its time is over.

    Raises:
        django.db.Error, VaultError: as ``set_once``.
    """
    found = await in_thread(_get, key)
    return None if found is None else token_vault.open_sealed(found, _owner(key))


async def all_of(prefix: str) -> dict[str, bytes]:
    """Return every fact whose key begins so, by its key.

    Raises:
        django.db.Error, VaultError: as ``set_once``.
    """
    found = await in_thread(_all_of, prefix)
    return {key: token_vault.open_sealed(value, _owner(key)) for key, value in found.items()}


async def held(keys: list[str]) -> set[str]:
    """Return those keys that somebody holds a lease on.

    Raises:
        django.db.Error: the database can't be reached.
    """
    return await in_thread(_held, keys)


async def swap(key: str, expected: bytes, value: bytes, seconds: float) -> bool:
    """Replace ``expected`` by ``value``; False if something else, or nothing, is there.

    Raises:
        django.db.Error, VaultError: as ``set_once``.
    """
    found = await in_thread(_get, key)
    if found is None or token_vault.open_sealed(found, _owner(key)) != expected:
        return False
    sealed = token_vault.seal(value, _owner(key))
    return await in_thread(_swap, key, found, sealed, seconds)


async def discard(key: str, expected: bytes) -> bool:
    """Forget ``expected``; False if something else, or nothing, is there.

    Raises:
        django.db.Error, VaultError: as ``set_once``.
    """
    found = await in_thread(_get, key)
    if found is None or token_vault.open_sealed(found, _owner(key)) != expected:
        return False
    return await in_thread(_remove, key, found)


async def discard_all(expected: dict[str, bytes]) -> set[str]:
    """Forget those of these facts that are as expected; returns the keys of all that stood.

    Of two processes that do this at once, both may be told that a fact stood.

    Raises:
        django.db.Error, VaultError: as ``set_once``.
    """
    found = await in_thread(_found, list(expected))
    same = {
        key: sealed
        for key, sealed in found.items()
        if token_vault.open_sealed(sealed, _owner(key)) == expected[key]
    }
    await in_thread(_remove_all, same)
    return set(found)


async def extend(keys: list[str], seconds: float) -> set[str]:
    """Have facts stand for so long from now; returns those that still stand.

    Raises:
        django.db.Error: the database can't be reached.
    """
    return await in_thread(_extend, keys, seconds)


async def holders(prefix: str) -> set[str]:
    """Return who holds leases whose key begins so.

    Raises:
        django.db.Error: the database can't be reached.
    """
    return set((await in_thread(_all_of, prefix)).values())


async def leases(prefix: str) -> set[str]:
    """Return the keys of all leases that somebody holds and whose key begins so.

    Raises:
        django.db.Error: the database can't be reached.
    """
    return set(await in_thread(_all_of, prefix))


async def remove(key: str) -> None:
    """Forget a fact, or end a lease whoever holds it.

    Raises:
        django.db.Error: the database can't be reached.
    """
    await in_thread(_remove, key, None)


async def take_lease(key: str, holder: str, seconds: float) -> bool:
    """Become or stay the holder for so long from now; False while somebody else is.

    Raises:
        django.db.Error: the database can't be reached.
    """
    return await in_thread(_take_lease, key, holder, seconds)


async def extend_leases(keys: list[str], holder: str, seconds: float) -> set[str]:
    """Extend all leases of one holder in one statement; returns those that are still its own.

    Raises:
        django.db.Error: the database can't be reached.
    """
    return await in_thread(_extend_leases, keys, holder, seconds)


async def lease_holder(key: str) -> str:
    """Return who holds a lease now, ``""`` for nobody.

    Raises:
        django.db.Error: the database can't be reached.
    """
    return await in_thread(_get, key) or ""


async def end_lease(key: str, holder: str) -> None:
    """Give a lease back, if it is this holder's.

    Raises:
        django.db.Error: the database can't be reached.
    """
    await in_thread(_remove, key, holder)


async def end_leases(keys: list[str], holder: str) -> None:
    """Give leases back, those that are this holder's, in one statement.

    Raises:
        django.db.Error: the database can't be reached.
    """
    await in_thread(_end_leases, keys, holder)


def _owner(key: str) -> str:
    return f"note:{key}"


def _until(seconds: float) -> datetime:
    return timezone.now() + timedelta(seconds=seconds)


def _set_once(key: str, value: str, seconds: float) -> bool:
    until = _until(seconds)
    stale = SharedNote.objects.filter(key=key, expires_at__lte=timezone.now())
    if stale.update(value=value, expires_at=until):
        return True
    if SharedNote.objects.filter(key=key).exists():
        return False
    try:
        with transaction.atomic():
            SharedNote.objects.create(key=key, value=value, expires_at=until)
    except IntegrityError:
        return False
    return True


def _put(key: str, value: str, seconds: float) -> None:
    SharedNote.objects.update_or_create(
        key=key, defaults={"value": value, "expires_at": _until(seconds)}
    )


def _get(key: str) -> str | None:
    found = SharedNote.objects.filter(key=key, expires_at__gt=timezone.now())
    return found.values_list("value", flat=True).first()


def _all_of(prefix: str) -> dict[str, str]:
    found = SharedNote.objects.filter(key__startswith=prefix, expires_at__gt=timezone.now())
    return dict(found.values_list("key", "value"))


def _found(keys: list[str]) -> dict[str, str]:
    found = SharedNote.objects.filter(key__in=keys, expires_at__gt=timezone.now())
    return dict(found.values_list("key", "value"))


def _held(keys: list[str]) -> set[str]:
    found = SharedNote.objects.filter(key__in=keys, expires_at__gt=timezone.now())
    return set(found.values_list("key", flat=True))


def _swap(key: str, expected: str, value: str, seconds: float) -> bool:
    found = SharedNote.objects.filter(key=key, value=expected, expires_at__gt=timezone.now())
    return bool(found.update(value=value, expires_at=_until(seconds)))


def _extend(keys: list[str], seconds: float) -> set[str]:
    standing = SharedNote.objects.filter(key__in=keys, expires_at__gt=timezone.now())
    standing.update(expires_at=_until(seconds))
    return set(standing.values_list("key", flat=True))


def _remove(key: str, value: str | None) -> bool:
    found = SharedNote.objects.filter(key=key)
    return bool((found if value is None else found.filter(value=value)).delete()[0])


def _remove_all(values: dict[str, str]) -> None:
    SharedNote.objects.filter(key__in=list(values), value__in=list(values.values())).delete()


def _end_leases(keys: list[str], holder: str) -> None:
    SharedNote.objects.filter(key__in=keys, value=holder).delete()


def _take_lease(key: str, holder: str, seconds: float) -> bool:
    mine = SharedNote.objects.filter(key=key, value=holder)
    return bool(mine.update(expires_at=_until(seconds))) or _set_once(key, holder, seconds)


def _extend_leases(keys: list[str], holder: str, seconds: float) -> set[str]:
    mine = SharedNote.objects.filter(key__in=keys, value=holder)
    mine.update(expires_at=_until(seconds))
    return set(mine.values_list("key", flat=True))
