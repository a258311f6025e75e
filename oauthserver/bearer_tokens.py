"""Who presents this access token: a cache without I/O, and the database behind it.

``cached`` is on the path of every call. ``authenticate`` is the slow path and fills the cache.
Revocations reach every process within a second by ``forget`` (see gateway_site's change feed);
the 30 seconds an entry may live are only the second line.
"""

import asyncio
import contextlib
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock

from channels.db import database_sync_to_async
from django.db import Error as DatabaseError
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from oauthserver.audience import canonical
from oauthserver.models import OAuthClient, ServiceAccount
from oauthserver.token_values import ACCESS_PREFIX

MAX_ENTRIES = 20_000
ENTRY_SECONDS = 30.0
NOTE_USE_EVERY_SECONDS = 300.0
_MAX_HEADER_BYTES = 600
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/=-]+) *", re.IGNORECASE)
_INVALID = "The access token is unknown, expired or revoked, or is not for this server."


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """The person and client behind a valid token. ``expires_at`` is in seconds since 1970."""

    user_id: int
    username: str
    client_id: str
    client_name: str
    scopes: frozenset[str]
    audience: str
    expires_at: float
    group_ids: frozenset[int]
    token_digest: str
    # A program without a person: it may use what its token is for, whatever its groups.
    service_account: bool = False


@dataclass(frozen=True, slots=True)
class TokenRefusal:
    """Why there is no holder; ``error`` is "" when no token was presented (RFC 6750 3.1)."""

    error: str
    description: str


_entries: OrderedDict[bytes, tuple[TokenHolder, float]] = OrderedDict()
_lock = Lock()
# Counts calls of ``forget``: a database answer that is older than one is not cached.
_generation = 0
_noted: dict[str, float] = {}
_notes: set[asyncio.Task[None]] = set()


def cached(authorization: bytes, audience: str) -> TokenHolder | None:
    """Return the holder of a token seen lately, or None: then ask ``authenticate``.

    Args:
        authorization: the value of the one Authorization header.
        audience: the canonical URI of the resource that is called.
    """
    key = key_of(authorization)
    return None if key is None else held(key, audience)


def key_of(authorization: bytes) -> bytes | None:
    """Return the digest under which ``held`` knows the token, None for another form of header."""
    return sha256(authorization[7:]).digest() if authorization[:7] == b"Bearer " else None


def held(key: bytes, audience: str) -> TokenHolder | None:
    """Do as ``cached``, for who keeps the token's digest in place of the token."""
    entry = _entries.get(key)
    if entry is None or entry[1] <= time.monotonic() or entry[0].audience != audience:
        return None
    return entry[0]


async def authenticate(
    authorization_values: list[bytes], audience: str
) -> TokenHolder | TokenRefusal:
    """Check the token of a request against the database.

    Args:
        authorization_values: every Authorization header as it came (security.md #118).
        audience: the canonical URI of the resource that is called.

    Raises:
        django.db.Error: the database does not answer; the caller answers 503.
    """
    token = _token_in(authorization_values)
    if isinstance(token, TokenRefusal):
        return token
    generation = _generation
    wanted = canonical(audience)
    load = database_sync_to_async(_load, thread_sensitive=False)
    holder: TokenHolder | None = await load(token, wanted)
    if holder is None:
        return TokenRefusal("invalid_token", _INVALID)
    _remember(token, holder, generation)
    _note_use(holder.client_id)
    return holder


def holder_for_any_resource(authorization_values: list[bytes]) -> TokenHolder | TokenRefusal:
    """Check a token at the authorization server itself, whatever resource it is for (blocking).

    Raises:
        django.db.Error: the database does not answer.
    """
    token = _token_in(authorization_values)
    if isinstance(token, TokenRefusal):
        return token
    return _load(token, None) or TokenRefusal("invalid_token", _INVALID)


def forget(token_digest: str = "", user_id: int | None = None, client_id: str = "") -> None:
    """Drop cached holders that match every given argument; without arguments, all of them."""
    global _generation
    with _lock:
        _generation += 1
        if not token_digest and user_id is None and not client_id:
            _entries.clear()
            return
        for key, (holder, _) in list(_entries.items()):
            if (
                (not token_digest or holder.token_digest == token_digest)
                and (user_id is None or holder.user_id == user_id)
                and (not client_id or holder.client_id == client_id)
            ):
                _entries.pop(key, None)


def _token_in(values: list[bytes]) -> bytes | TokenRefusal:
    if not values:
        return TokenRefusal("", "")
    if len(values) > 1:
        return TokenRefusal("invalid_request", "Send one Authorization header.")
    if len(values[0]) > _MAX_HEADER_BYTES:
        return TokenRefusal("invalid_token", _INVALID)
    found = _BEARER.fullmatch(values[0])
    if found is None:
        return TokenRefusal("invalid_token", "Send 'Authorization: Bearer' and one token.")
    token = found.group(1)
    # Refresh tokens, codes and strangers' tokens are told apart without asking the database.
    if not token.startswith(ACCESS_PREFIX.encode()):
        return TokenRefusal("invalid_token", _INVALID)
    return token


def _load(token: bytes, audience: str | None) -> TokenHolder | None:
    checksum = sha256(token).hexdigest()
    row = (
        get_access_token_model()
        .objects.select_related("user", "application")
        .filter(token_checksum=checksum, expires__gt=timezone.now())
        .first()
    )
    if row is None or row.user is None or row.application is None:
        return None
    client: OAuthClient = row.application
    if not row.user.is_active or not client.is_usable(None):
        return None
    if len(row.resource) != 1 or audience not in (None, row.resource[0]):
        return None
    return TokenHolder(
        user_id=row.user.pk,
        username=row.user.get_username(),
        client_id=client.client_id,
        client_name=client.name,
        scopes=frozenset(row.scope.split()),
        audience=row.resource[0],
        expires_at=row.expires.timestamp(),
        group_ids=frozenset(row.user.groups.values_list("pk", flat=True)),
        token_digest=checksum,
        service_account=_is_service(client, row.user.pk),
    )


def _is_service(client: OAuthClient, user_id: int) -> bool:
    # The grant tells people's clients apart without a query; the row says who the program is.
    if client.authorization_grant_type != client.GRANT_CLIENT_CREDENTIALS:
        return False
    return ServiceAccount.objects.filter(client=client, user_id=user_id).exists()


def _remember(token: bytes, holder: TokenHolder, generation: int) -> None:
    lifetime = min(ENTRY_SECONDS, holder.expires_at - time.time())
    key = sha256(token).digest()
    with _lock:
        if generation != _generation:
            return
        _entries[key] = (holder, time.monotonic() + lifetime)
        # Entries are renewed every 30 seconds while in use, so the order of renewal is the
        # order of last use, without any bookkeeping when an entry is read.
        _entries.move_to_end(key)
        while len(_entries) > MAX_ENTRIES:
            _entries.popitem(last=False)


def _note_use(client_id: str) -> None:
    now = time.monotonic()
    if now - _noted.get(client_id, -NOTE_USE_EVERY_SECONDS) < NOTE_USE_EVERY_SECONDS:
        return
    if len(_noted) >= MAX_ENTRIES:
        _noted.clear()
    _noted[client_id] = now
    task = asyncio.get_running_loop().create_task(_write_use(client_id))
    _notes.add(task)
    task.add_done_callback(_notes.discard)


async def _write_use(client_id: str) -> None:
    await database_sync_to_async(note_client_use, thread_sensitive=False)(client_id)


def note_client_use(client_id: str) -> None:
    """Write down that a client was used now; a database that is busy is not worth an error."""
    with contextlib.suppress(DatabaseError):
        OAuthClient.objects.filter(client_id=client_id).update(last_used_at=timezone.now())
