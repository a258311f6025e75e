"""Key rings that unwrap their keys with a key management service.

``GATEWAY_KEY_PROVIDER`` names a class without arguments whose ``load`` returns the keys of
32 bytes, the current one first (``token_vault.KeyRing``). It is called for every secret that
is sealed or opened, so it keeps what it unwrapped in memory, and raises ``VaultError`` while it
has no keys: nothing is then sealed or opened.
"""

import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Final

from django.conf import settings

from upstreams.token_vault import VaultError, decode_key

COMMAND_SECONDS: Final = 20
# After a failure the service is left alone for so long.
REST_SECONDS: Final = 5.0


class CommandKeyRing:
    """Gives each entry of ``GATEWAY_ENCRYPTION_KEYS`` to a command that unwraps it.

    ``GATEWAY_KEY_COMMAND`` reads a wrapped key from its standard input and writes the key, as
    URL-safe base64, to its standard output; it is run once for each key and process, without
    a shell.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unwrapped: dict[str, bytes] = {}
        self._rests_until = 0.0

    def load(self) -> Sequence[bytes]:
        """Return the unwrapped keys.

        Raises:
            VaultError: no command, no keys, or the command gave none.
        """
        wrapped = tuple(settings.GATEWAY_ENCRYPTION_KEYS)
        if not wrapped:
            raise VaultError("GATEWAY_ENCRYPTION_KEYS is not set.")
        found = [self._unwrapped.get(text) for text in wrapped]
        if None in found:
            with self._lock:
                found = [self._unwrap(text) for text in wrapped]
        return [key for key in found if key is not None]

    def _unwrap(self, text: str) -> bytes:
        known = self._unwrapped.get(text)
        if known is not None:
            return known
        if time.monotonic() < self._rests_until:
            raise VaultError("The key management service gave no key a moment ago.")
        try:
            self._unwrapped[text] = decode_key(_run(settings.GATEWAY_KEY_COMMAND, text))
        except VaultError:
            self._rests_until = time.monotonic() + REST_SECONDS
            raise
        return self._unwrapped[text]


def _run(command: str, wrapped: str) -> str:
    """Run the command; what it writes is shown to nobody."""
    words = shlex.split(command)
    if not words:
        raise VaultError("GATEWAY_KEY_COMMAND is not set.")
    try:
        done = subprocess.run(  # noqa: S603  the operator's own command, without a shell
            words,
            input=wrapped,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise VaultError(f"GATEWAY_KEY_COMMAND failed: {type(error).__name__}.") from None
    if done.returncode != 0:
        raise VaultError(f"GATEWAY_KEY_COMMAND ended with status {done.returncode}.")
    return done.stdout.strip()
