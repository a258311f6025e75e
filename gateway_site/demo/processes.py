"""The demo's upstreams as processes: their ports, commands and where they keep their data."""

import json
import socket
import sys
from pathlib import Path

from gateway_site.supervision import Child

NAMES = ("harbor", "board", "parcels")
FOLDER = "demo"
REMOVED = "removed"
PORTS = "ports.json"
USUAL_GATEWAY_PORT = 8000
ROOT = Path(__file__).resolve().parent.parent.parent


def parse_ports(text: str) -> dict[str, int]:
    """Read ports given as "8001,8002,8003", in the order of ``NAMES``.

    Raises:
        ValueError: says what is expected.
    """
    numbers = [int(port) for port in text.split(",") if port.strip().isdecimal()]
    if len(numbers) != len(NAMES):
        raise ValueError("Give three ports, such as 8001,8002,8003.")
    return dict(zip(NAMES, numbers, strict=True))


def was_removed(folder: Path) -> bool:
    """Whether an administrator removed the demo from this data directory."""
    return (folder / FOLDER / REMOVED).exists()


def mark_removed(folder: Path) -> None:
    """Remember that the demo is not wanted."""
    (folder / FOLDER).mkdir(exist_ok=True)
    (folder / FOLDER / REMOVED).touch()


def mark_wanted(folder: Path) -> None:
    """Forget an earlier removal."""
    (folder / FOLDER / REMOVED).unlink(missing_ok=True)


def choose_ports(folder: Path, gateway_port: int) -> dict[str, int]:
    """Return a port for each upstream: those of the last start while they are free.

    Accounts at the demo's authorization server are bound to its address, so it should not move.
    """
    file = folder / FOLDER / PORTS
    try:
        kept: dict[str, int] = json.loads(file.read_text())
    except (OSError, ValueError):
        kept = {}
    chosen: dict[str, int] = {}
    for offset, name in enumerate(NAMES, start=1):
        wished = kept.get(name) or gateway_port + offset
        chosen[name] = wished if _is_free(wished) else _any_free_port()
    file.parent.mkdir(exist_ok=True, mode=0o700)
    file.write_text(json.dumps(chosen))
    return chosen


def children(folder: Path, ports: dict[str, int], environment: dict[str, str]) -> list[Child]:
    """Return the processes, not yet started. They get none of the gateway's secrets."""
    passed = {
        name: value
        for name, value in environment.items()
        if name in ("PATH", "HOME", "LANG", "PYTHONPATH", "PYTHONUNBUFFERED", "TMPDIR")
    }
    return [
        Child(
            f"The demo's upstream {name}",
            [
                *(sys.executable, "-m", f"gateway_site.demo.{name}", "--port", str(ports[name])),
                *("--data", str(folder / FOLDER)),
            ],
            passed,
            ROOT,
            unwanted=lambda: was_removed(folder),
        )
        for name in NAMES
    ]


def _is_free(port: int) -> bool:
    if not 0 < port < 65536:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
