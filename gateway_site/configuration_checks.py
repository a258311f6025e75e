"""What an operator may have got wrong, said at start with what to do about it.

Errors (``gateway.E...``) keep the gateway from starting, under every server and command;
warnings (``gateway.W...``) are printed. Rooms check their own settings likewise.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured

from gateway_site import public_address, trusted_proxy

ROOMS = ("gateway_site", "consent", "virtualmcp", "upstreams", "oauthserver")
SHORTEST_KEY = 32
SHORTEST_METRICS_TOKEN = 16


def _public_url() -> Iterator[CheckMessage]:
    problem = public_address.problem_with(settings.PUBLIC_URL)
    if problem:
        yield Error(
            f"PUBLIC_URL: {problem}",
            hint="It is the address people and clients use; see docs/operations.md.",
            id="gateway.E001",
        )


def _secret_key() -> Iterator[CheckMessage]:
    try:
        key = settings.SECRET_KEY
    except ImproperlyConfigured:
        key = ""
    if len(key) < SHORTEST_KEY or len(set(key)) < 5:
        yield Error(
            f"SECRET_KEY is {'not set' if not key else 'too short or too simple'}.",
            hint="bin/serve makes one. By hand: "
            'python -c "import secrets; print(secrets.token_urlsafe(48))"',
            id="gateway.E002",
        )
    elif key in settings.GATEWAY_ENCRYPTION_KEYS:
        yield Error(
            "SECRET_KEY is also one of GATEWAY_ENCRYPTION_KEYS.",
            hint="Use two different keys: they protect different things and rotate apart.",
            id="gateway.E003",
        )


def _development_switches() -> Iterator[CheckMessage]:
    if public_address.is_loopback(settings.PUBLIC_URL):
        return
    if settings.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA:
        yield Error(
            "GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA is on although PUBLIC_URL is a public address.",
            hint="It is for development only. Switch it off.",
            id="gateway.E004",
        )
    if settings.DEBUG:
        yield Error(
            "DEBUG is on although PUBLIC_URL is a public address.",
            hint="It shows settings and code to everyone. Switch it off.",
            id="gateway.E005",
        )


def _data_directory() -> Iterator[CheckMessage]:
    folder = Path(settings.DATA_DIR)
    engine = settings.DATABASES["default"]["ENGINE"]
    if engine.endswith("sqlite3") and not os.access(folder, os.W_OK | os.X_OK):
        state = "is not writable" if folder.exists() else "is missing"
        yield Error(
            f"The data directory {folder} {state}.",
            hint="Make it, or name another one with GATEWAY_DATA_DIR or --data-dir.",
            id="gateway.E006",
        )
    private = folder / "gateway.env"
    if private.exists() and private.stat().st_mode & 0o077:
        yield Warning(
            f"{private} holds keys and can be read by others.",
            hint=f"chmod 600 {private}",
            id="gateway.W001",
        )


def _proxy() -> Iterator[CheckMessage]:
    try:
        networks = trusted_proxy.networks(tuple(settings.TRUSTED_PROXY))
    except ValueError as failure:
        yield Error(
            f"TRUSTED_PROXY: {failure}.",
            hint="Give the networks of your reverse proxies, such as 10.0.0.0/8,192.0.2.7.",
            id="gateway.E007",
        )
        return
    if any(network.prefixlen == 0 for network in networks):
        yield Error(
            "TRUSTED_PROXY names the whole internet, so everybody could invent their address.",
            hint="Name only the networks of your own reverse proxies.",
            id="gateway.E008",
        )
    if not networks and settings.SERVED_OVER_TLS:
        yield Warning(
            "PUBLIC_URL is https, so a reverse proxy ends TLS, but TRUSTED_PROXY is not set.",
            hint="Rate limits and audit see the proxy's address instead of the caller's.",
            id="gateway.W002",
        )


def _shared_stores() -> Iterator[CheckMessage]:
    sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    if settings.REDIS_URL and sqlite:
        yield Warning(
            "REDIS_URL is set, but the database is SQLite, which only one machine can use.",
            hint="For several nodes set DATABASE_URL to PostgreSQL as well.",
            id="gateway.W003",
        )
    if not sqlite and not settings.REDIS_URL:
        yield Warning(
            "DATABASE_URL is set, but REDIS_URL is not.",
            hint="With several nodes, limits count per node and changes take up to a second.",
            id="gateway.W004",
        )


def _files_and_lists() -> Iterator[CheckMessage]:
    bundle = settings.GATEWAY_EXTRA_CA_BUNDLE
    if bundle and not os.access(bundle, os.R_OK):
        yield Error(
            f"GATEWAY_EXTRA_CA_BUNDLE: {bundle} cannot be read.",
            hint="Give the path of a PEM file with the certificates of your own authority.",
            id="gateway.E009",
        )
    for origin in settings.GATEWAY_ALLOWED_ORIGINS:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
            yield Error(
                f"GATEWAY_ALLOWED_ORIGINS: {origin!r} is not an origin.",
                hint="An origin is scheme and host without a path: https://app.example.com",
                id="gateway.E010",
            )
    if settings.LOG_FORMAT not in ("plain", "json"):
        yield Error(
            f"LOG_FORMAT is {settings.LOG_FORMAT!r}.", hint="Use plain or json.", id="gateway.E011"
        )
    if settings.METRICS_TOKEN and len(settings.METRICS_TOKEN) < SHORTEST_METRICS_TOKEN:
        yield Error(
            "METRICS_TOKEN is too short to be a secret.",
            hint=f"Use at least {SHORTEST_METRICS_TOKEN} random characters.",
            id="gateway.E012",
        )
    if settings.GATEWAY_MAX_BODY_BYTES < 64 * 1024:
        yield Error(
            "GATEWAY_MAX_BODY_BYTES is below 64 KiB, which ordinary calls exceed.",
            hint="The default is 4194304.",
            id="gateway.E013",
        )


CHECKS: tuple[Callable[[], Iterator[CheckMessage]], ...] = (
    _public_url,
    _secret_key,
    _development_switches,
    _data_directory,
    _proxy,
    _shared_stores,
    _files_and_lists,
)


@register()
def check_configuration(
    app_configs: Sequence[Any] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """All of the above, for ``manage.py check`` and every command."""
    return [message for check in CHECKS for message in check()]


def require_sound_configuration() -> None:
    """Refuse to serve with a configuration that has errors; ASGI servers run no checks.

    Only the gateway's own checks run here: those of Django and its packages look at the code,
    which every command does too, and would cost each process half a second of its start.

    Raises:
        ImproperlyConfigured: names every error and its hint.
    """
    own = [check for check in registry.get_checks() if check.__module__.split(".")[0] in ROOMS]
    messages = [message for check in own for message in check(app_configs=None, databases=None)]
    errors = [message for message in messages if message.is_serious()]
    if errors:
        lines = [f"  {error.id}: {error.msg}\n      {error.hint or ''}" for error in errors]
        raise ImproperlyConfigured("The configuration has errors:\n" + "\n".join(lines))
