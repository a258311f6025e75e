"""Renewed tokens on disk before they are in the database (security.md R36).

A refresh token that rotates is spent at the server before its successor is ours. Between
the server's answer and the database's commit lie a thread, a lock, perhaps an outage. So
the answer goes to a file first, sealed, in one system call on the spot; the database
follows, and the file is removed after it. Whoever finds the file later (this process,
another one of the node, or the next start) writes it to the database in its place.

A file belongs to one grant and one version of its row: where the row moved on, it is
nobody's and is removed.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from django.conf import settings

from upstreams import token_vault
from upstreams.models import UpstreamAccount
from upstreams.server_metadata import origin_of
from upstreams.token_replies import TokenReply

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".renewal"


def folder() -> Path:
    """Return where the files lie; a volume that several nodes share serves all of them."""
    return Path(settings.GATEWAY_REFRESH_JOURNAL)


def _file(account: UpstreamAccount) -> Path:
    return folder() / f"{account.pk}-{account.grant_id}-{account.version}{_SUFFIX}"


def _owner(account: UpstreamAccount) -> str:
    where = origin_of(account.bound_url)
    return f"renewal/grant:{account.grant_id}/version:{account.version}/{where}"


def write(account: UpstreamAccount, reply: TokenReply) -> None:
    """Write an answer down; without a folder to write to, the database alone has to do."""
    content = {**asdict(reply), "received_at": time.time()}
    try:
        sealed = token_vault.seal(json.dumps(content).encode(), _owner(account))
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        handle = os.open(_file(account), flags, 0o600)
        try:
            os.write(handle, sealed.encode("ascii"))
        finally:
            os.close(handle)
    except (OSError, token_vault.VaultError) as error:
        logger.warning("a renewed sign-in could not be journalled: %s", type(error).__name__)


def read(account: UpstreamAccount) -> TokenReply | None:
    """Return the answer written for exactly this state of the account, None if there is none.

    Its remaining life is counted from when it arrived.
    """
    try:
        content = json.loads(token_vault.open_sealed(_file(account).read_text(), _owner(account)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, token_vault.VaultError) as error:
        # Cut off in the middle of the write, or sealed with a key that is gone.
        logger.warning("a journalled sign-in cannot be used: %s", type(error).__name__)
        return None
    passed = max(0, int(time.time() - content.pop("received_at")))
    life, scope = content["expires_in"], content["scope"]
    return TokenReply(
        access_token=content["access_token"],
        refresh_token=content["refresh_token"],
        expires_in=None if life is None else max(1, life - passed),
        scope=None if scope is None else tuple(scope),
        account_label=content["account_label"],
    )


def discard(account: UpstreamAccount) -> None:
    """Remove the file of this state of the account."""
    try:
        _file(account).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("a journalled sign-in could not be removed: %s", type(error).__name__)


def left_behind() -> Iterator[UpstreamAccount]:
    """Yield the accounts that a crash left a file for; files that belong to nobody go."""
    for file in sorted(folder().glob(f"*{_SUFFIX}")):
        account = _account_of(file)
        if account is not None:
            yield account
            continue
        logger.info("removing a journalled sign-in that was written or replaced meanwhile")
        file.unlink(missing_ok=True)


def _account_of(file: Path) -> UpstreamAccount | None:
    number, _, _ = file.name.partition("-")
    if not number.isdigit():
        return None
    account = (
        UpstreamAccount.objects.select_related("upstream", "client").filter(pk=int(number)).first()
    )
    return account if account is not None and _file(account).name == file.name else None
