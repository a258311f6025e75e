"""System checks of this room: keys for the vault, and no development switch in production."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from upstreams import token_vault
from upstreams.token_vault import VaultError, decode_key

SETTINGS_RING = "upstreams.token_vault.SettingsKeyRing"

_HINT = (
    'Make one with: python -c "import base64, os; '
    'print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
)


@register()
def check_encryption_keys(
    app_configs: Sequence[Any] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Refuse to start without keys that can be used."""
    if not settings.GATEWAY_ENCRYPTION_KEYS:
        return [Error("GATEWAY_ENCRYPTION_KEYS is not set.", hint=_HINT, id="upstreams.E001")]
    if settings.GATEWAY_KEY_PROVIDER != SETTINGS_RING:
        return _check_provider()
    problems: list[CheckMessage] = []
    for number, text in enumerate(settings.GATEWAY_ENCRYPTION_KEYS, start=1):
        try:
            decode_key(text)
        except VaultError as error:
            problems.append(
                Error(
                    f"Key {number} of GATEWAY_ENCRYPTION_KEYS cannot be used: {error}",
                    hint=_HINT,
                    id="upstreams.E002",
                )
            )
    return problems


def _check_provider() -> list[CheckMessage]:
    """Ask the provider that is in use for its keys."""
    try:
        token_vault.current_key_id()
    except VaultError as error:
        hint = "See GATEWAY_KEY_PROVIDER and GATEWAY_KEY_COMMAND in docs/operations.md."
        return [Error(f"The vault has no keys: {error}", hint=hint, id="upstreams.E005")]
    return []


@register()
def check_refresh_journal(
    app_configs: Sequence[Any] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn where a crash could cost somebody their sign-in because no file can be written."""
    folder = Path(settings.GATEWAY_REFRESH_JOURNAL)
    present = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    if present.is_dir() and os.access(present, os.W_OK | os.X_OK):
        return []
    return [
        Warning(
            f"Nothing can be written to {folder}.",
            hint="Point GATEWAY_REFRESH_JOURNAL to a folder of the gateway's own. Without one, a "
            "crash in the moment of a renewal can make a person connect an account again.",
            id="upstreams.W004",
        )
    ]


@register()
def check_loopback_switch(
    app_configs: Sequence[Any] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Refuse the development switch on a public address."""
    host = (urlsplit(settings.PUBLIC_URL).hostname or "").lower()
    local = host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")
    if not settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS or local:
        return []
    return [
        Error(
            "GATEWAY_ALLOW_LOOPBACK_UPSTREAMS is on although PUBLIC_URL is a public address.",
            hint="Switch it off, or list the network in the upstream's private network field.",
            id="upstreams.E003",
        )
    ]
