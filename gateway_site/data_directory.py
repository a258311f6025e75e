"""The data directory and what is kept in it: keys, address, database.

Standard library only, because ``settings`` and the command that starts everything need it
before Django is set up. ``gateway.env`` in the directory holds the generated keys and the
address; variables of the environment win over it.
"""

import base64
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT_FILE = "gateway.env"
DATABASE_FILE = "gateway.sqlite3"


class DataDirectoryUnusable(Exception):
    """The directory cannot be used; the message says why and what to do."""


def default_path(environment: Mapping[str, str]) -> Path:
    """Return where data is kept: ``GATEWAY_DATA_DIR``, else the person's own data folder.

    Raises:
        DataDirectoryUnusable: there is no home directory to put it in.
    """
    chosen = environment.get("GATEWAY_DATA_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    xdg = environment.get("XDG_DATA_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg) / "mcp-gateway"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/nonexistent")
    if not home.is_dir():
        raise DataDirectoryUnusable(
            "There is no home directory to keep data in. Name a directory with "
            "--data-dir or the variable GATEWAY_DATA_DIR."
        )
    return home / ".local" / "share" / "mcp-gateway"


def prepare(folder: Path) -> None:
    """Make the directory, readable for its owner only.

    Raises:
        DataDirectoryUnusable: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as failure:
        raise DataDirectoryUnusable(
            f"The data directory {folder} cannot be written ({failure.strerror}). "
            "Choose another with --data-dir, or give your account the right to write there."
        ) from failure


def read_stored(folder: Path) -> dict[str, str]:
    """Return the variables kept in the directory, {} when there are none yet."""
    file = folder / ENVIRONMENT_FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as failure:
        raise DataDirectoryUnusable(f"{file} cannot be read: {failure.strerror}.") from failure
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def store(folder: Path, values: Mapping[str, str]) -> None:
    """Write the variables, readable for the owner only, in one step."""
    file = folder / ENVIRONMENT_FILE
    temporary = folder / f"{ENVIRONMENT_FILE}.{os.getpid()}"
    text = "# Keys and address of this gateway. Back this file up together with the database.\n"
    text += "".join(f"{name}={value}\n" for name, value in values.items())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def ensure_keys(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the stored variables, with keys made and stored at the first start.

    Raises:
        DataDirectoryUnusable: there is a database whose keys are gone. New keys would leave
            everything sealed in it unreadable, so none are made.
    """
    stored = read_stored(folder)
    needed = [name for name in ("SECRET_KEY", "GATEWAY_ENCRYPTION_KEYS") if name not in stored]
    missing = [n for n in needed if not environment.get(n) and not environment.get(f"{n}_FILE")]
    if not missing:
        return stored
    if (folder / DATABASE_FILE).exists():
        raise DataDirectoryUnusable(
            f"{folder} holds a database, but the keys that belong to it are missing "
            f"({', '.join(missing)} in {ENVIRONMENT_FILE}). Restore that file from your backup, "
            "set the variables, or choose an empty --data-dir."
        )
    made = {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "GATEWAY_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    stored.update({name: made[name] for name in missing})
    store(folder, stored)
    return stored
