"""What ``gateway_serve`` decides before anything starts: folder, port, address, commands."""

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway_site import data_directory, production, public_address

DEFAULT_PORT = 8000
MOST_WORKERS = 64
# Connections that may wait for a worker to take them.
BACKLOG = 2048
_OWN_ADDRESS = re.compile(r"http://localhost:\d+")
ROOT = Path(__file__).resolve().parent.parent


class CannotServe(Exception):
    """The gateway cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Everything that the options, the environment and the last start decide together."""

    folder: Path
    host: str
    port: int
    public_url: str
    server: str
    workers: int
    demo: bool
    production: bool = False

    @property
    def local_url(self) -> str:
        """The address this process reaches the server at."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{self.port}"

    @property
    def drain(self) -> int:
        """Seconds that running answers get when the server ends (security.md 3)."""
        return 3 if public_address.is_loopback(self.public_url) else 25

    @property
    def linger(self) -> int:
        """Seconds of these in which new calls are taken, until a load balancer has noticed."""
        return 2 if self.production else 0

    def environment(self) -> dict[str, str]:
        """Return the environment of every process of this gateway."""
        return {
            **os.environ,
            "GATEWAY_DATA_DIR": str(self.folder),
            "PUBLIC_URL": self.public_url,
            "DJANGO_SETTINGS_MODULE": "gateway_site.settings",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
        }

    def server_command(self, socket_number: int | None = None) -> list[str]:
        """Return the command of one server process; on an inherited socket, if one is given."""
        where = ["--host", self.host, "--port", str(self.port)]
        drain = ["--drain", str(self.drain)]
        if self.server == "daphne":
            return [sys.executable, "-m", "gateway_site.daphne_server", *where, *drain]
        if socket_number is not None:
            where += ["--fd", str(socket_number)]
        linger = ["--linger", str(self.linger)]
        return [sys.executable, "-m", "gateway_site.uvicorn_server", *where, *drain, *linger]


def decide(options: Mapping[str, object], environment: Mapping[str, str]) -> ServingPlan:
    """Make the plan; what was chosen at an earlier start is kept unless an option changes it.

    Raises:
        CannotServe: an option is not usable, or the folder or port is not.
    """
    try:
        chosen = str(options.get("data_dir") or "")
        folder = data_directory.default_path(
            {**environment, "GATEWAY_DATA_DIR": chosen} if chosen else environment
        )
        if options.get("production"):
            production.require_keys(data_directory.read_stored(folder), environment)
        data_directory.prepare(folder)
        stored = data_directory.ensure_keys(folder, environment)
    except (data_directory.DataDirectoryUnusable, production.NotReadyForProduction) as failure:
        raise CannotServe(str(failure)) from failure
    for_production = bool(options.get("production"))
    port = int(str(options.get("port") or stored.get("GATEWAY_PORT") or DEFAULT_PORT))
    public_url = _public_url(str(options.get("public_url") or ""), environment, stored, port)
    plan = ServingPlan(
        folder=folder,
        host=str(options.get("host") or "127.0.0.1"),
        port=port,
        public_url=public_url,
        server=str(options.get("server") or ("uvicorn" if for_production else "daphne")),
        workers=int(str(options.get("workers") or (production.cores() if for_production else 1))),
        demo=not options.get("no_demo") and not for_production,
        production=for_production,
    )
    if for_production and (problem := production.problem_with(plan.server, public_url)):
        raise CannotServe(problem)
    if not 1 <= plan.workers <= MOST_WORKERS:
        raise CannotServe(f"--workers {plan.workers}: choose a number from 1 to {MOST_WORKERS}.")
    if plan.workers > 1 and plan.server != "uvicorn":
        raise CannotServe("Several workers need --server uvicorn; Daphne runs as one process.")
    check_port(plan.host, plan.port)
    data_directory.store(folder, {**stored, "PUBLIC_URL": public_url, "GATEWAY_PORT": str(port)})
    return plan


def _public_url(
    option: str, environment: Mapping[str, str], stored: Mapping[str, str], port: int
) -> str:
    """Choose the address: option, environment, what was chosen before, this machine."""
    kept = stored.get("PUBLIC_URL", "")
    if _OWN_ADDRESS.fullmatch(kept):
        kept = ""
    # Importing the settings has copied the stored address into the environment.
    outside = environment.get("PUBLIC_URL", "")
    if _OWN_ADDRESS.fullmatch(outside) and outside == stored.get("PUBLIC_URL"):
        outside = ""
    url = (option or outside or kept or f"http://localhost:{port}").rstrip("/")
    problem = public_address.problem_with(url)
    if problem:
        raise CannotServe(problem)
    return url


def check_port(host: str, port: int) -> None:
    """Say clearly that a port is taken, before anything is started.

    Raises:
        CannotServe: the port is in use, not allowed, or the host is not one of this machine.
    """
    if not 0 < port < 65536:
        raise CannotServe(f"{port} is not a port. Choose one from 1024 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as failure:
            raise CannotServe(
                f"Port {port} needs more rights. Choose one from 1024 on: --port 8000"
            ) from failure
        except OSError as failure:
            if failure.errno == 98 or "in use" in str(failure):
                raise CannotServe(
                    f"Port {port} is in use. Stop what uses it, or choose another: "
                    f"bin/serve --port {port + 10}"
                ) from failure
            raise CannotServe(f"Cannot listen on {host}:{port}: {failure.strerror}.") from failure


def open_sockets(plan: ServingPlan) -> list[socket.socket]:
    """Open one listening socket per worker, which each of them inherits.

    On Linux every worker has a queue of its own, among which the kernel shares connections out.
    The queue outlives its worker: what came while one is started again waits for it.

    Raises:
        CannotServe: the port was taken in the meantime.
    """
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    own_queues = sys.platform == "linux" and plan.workers > 1
    opened: list[socket.socket] = []
    for _ in range(plan.workers):
        if opened and not own_queues:
            opened.append(opened[0].dup())
            continue
        # With the protocol named, every loop switches Nagle's delay off on its connections.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if own_queues:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((plan.host, plan.port))
        except OSError as failure:
            raise CannotServe(
                f"Cannot listen on {plan.host}:{plan.port}: {failure.strerror}."
            ) from failure
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
        opened.append(listener)
    return opened
