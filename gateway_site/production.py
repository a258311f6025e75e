"""What has to be in place before a gateway serves a company, and how many workers it gets."""

import os
from collections.abc import Mapping

from gateway_site import public_address

KEYS = ("SECRET_KEY", "GATEWAY_ENCRYPTION_KEYS")


class NotReadyForProduction(Exception):
    """Something is missing; the message says what and how to provide it."""


def cores() -> int:
    """Return how many cores this process may use: one worker for each."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def require_keys(stored: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Refuse to make keys by the way: whoever loses them loses every connected account.

    Raises:
        NotReadyForProduction: a key is neither set nor kept in the data directory.
    """
    missing = [
        name
        for name in KEYS
        if not (stored.get(name) or environment.get(name) or environment.get(f"{name}_FILE"))
    ]
    if missing:
        raise NotReadyForProduction(
            f"--production makes no keys, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set. Make them once, keep them in your "
            "secret store, and set them (NAME_FILE=path works too):\n"
            "  SECRET_KEY               python3 -c "
            "'import secrets; print(secrets.token_urlsafe(48))'\n"
            "  GATEWAY_ENCRYPTION_KEYS  python3 -c "
            "'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
        )


def problem_with(server: str, public_url: str) -> str:
    """Return why a gateway with this server and address must not go into production, or ""."""
    if server != "uvicorn":
        return "--production runs on uvicorn: leave --server out. Daphne is for trying it out."
    if public_address.is_loopback(public_url) or not public_url.startswith("https://"):
        return (
            f"--production needs the address people use, with https; it is {public_url}. Give "
            f"--public-url {public_address.EXAMPLE}, and put the reverse proxy of "
            "docs/operations.md in front."
        )
    return ""


def advice(workers: int, database_url: str, redis_url: str) -> str:
    """Return what to know about the stores with this many workers, or ""."""
    if workers == 1:
        return ""
    if not database_url:
        return (
            f"{workers} workers share one SQLite file. That works on one machine, for as many "
            "people as it serves without queueing; for more set DATABASE_URL to PostgreSQL."
        )
    if not redis_url:
        return (
            f"{workers} workers without REDIS_URL: rate limits count in each worker, and changes "
            "take up to a second to reach them all."
        )
    return ""
