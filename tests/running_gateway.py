"""A real gateway as a process of its own: own data directory and keys, configured by a file.

    with running_gateway({"upstreams": [...], "virtual_mcps": [...]}) as gateway:
        httpx.post(gateway.endpoint("team"), ...)

It is started by the command line that ``bin/serve`` uses and configured by
``manage.py gateway_apply``, so what a test meets is what people run.
"""

import base64
import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

import httpx
import psycopg
import yaml

from gateway_site.serving import ServingPlan
from tests.fakes.asgi_server import authority, free_port
from tests.fakes.tls_front import tls_front

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 120
STOP_SECONDS = 60


@dataclass
class RunningGateway:
    """One gateway process; ``url`` is its public address."""

    url: str
    folder: Path
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    log_file: Path = field(default_factory=Path)
    # Where this process listens; the public address unless it is one node of several.
    listening: str = ""

    def endpoint(self, slug: str) -> str:
        """Return the address people paste."""
        return f"{self.url}/v1/mcp/{slug}"

    def manage(self, *arguments: str, given: str = "", seconds: float = 300) -> str:
        """Run ``manage.py``; returns what it printed.

        Raises:
            AssertionError: it failed; with its output.
        """
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def apply(self, configuration: Mapping[str, Any]) -> str:
        """Apply a configuration as an administrator would."""
        file = self.folder / "gateway.yaml"
        file.write_text(yaml.safe_dump(dict(configuration), sort_keys=False))
        return self.manage("gateway_apply", str(file))

    def log(self) -> str:
        """Return what the process wrote so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_ready(self) -> None:
        """Wait until it says it is ready.

        Raises:
            AssertionError: it ended or was not ready in time; with its log.
        """
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(trust_env=False, timeout=5) as client:
            while time.monotonic() < deadline:
                assert self.process is not None
                assert self.process.poll() is None, self.log()[-4000:]
                try:
                    if client.get(f"{self.listening}/readyz").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"not ready after {READY_SECONDS} s:\n{self.log()[-4000:]}")

    def stop(self) -> None:
        """End the process as an operator would; kills it if it does not end."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise AssertionError(f"did not stop:\n{self.log()[-4000:]}") from None
        finally:
            self.process = None


def _environment(folder: Path, url: str, changes: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **inherited,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "gateway_site.settings",
        "GATEWAY_DATA_DIR": str(folder),
        "PUBLIC_URL": url,
        "SECRET_KEY": secrets.token_urlsafe(48),
        "GATEWAY_ENCRYPTION_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "GATEWAY_ALLOW_LOOPBACK_UPSTREAMS": "true",
        "GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA": "true",
        "GATEWAY_EXTRA_CA_BUNDLE": str(authority().ca_file),
        # Tests count what an upstream is asked.
        "UPSTREAM_PROBE_SECONDS": "0",
        **changes,
    }


@cache
def migrated_database() -> Path:
    """Return the empty database that every gateway starts from.

    Migrating takes half a minute on a busy machine, so one is made for all test processes and
    runs that have the same migrations and packages.
    """
    folder = _folder_of_the_migrations()
    database = folder / "migrated.sqlite3"
    with (folder / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not database.exists():
            _migrate(folder)
            (folder / "gateway.sqlite3").rename(database)
    return database


def migrated_postgres(server: str) -> str:
    """Return the name of an empty migrated database on a PostgreSQL server, to copy others from.

    ``server`` is the URL of a database there from which others may be made.
    """
    folder = _folder_of_the_migrations()
    name = folder.name.replace("-", "_")
    unfinished = f"{name}_unfinished"
    with (folder / "lock").open("w") as guard, psycopg.connect(server, autocommit=True) as admin:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            admin.execute(f'DROP DATABASE IF EXISTS "{unfinished}" WITH (FORCE)')
            admin.execute(f'CREATE DATABASE "{unfinished}"')
            url = f"{server.rpartition('/')[0]}/{unfinished}"
            made = _environment(folder, "http://localhost:8000", {"DATABASE_URL": url})
            RunningGateway("", folder, made).manage("migrate", "--verbosity", "0", seconds=300)
            admin.execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{name}"')
    return name


def _folder_of_the_migrations() -> Path:
    """Return a folder that all test processes and runs with the same migrations share."""
    state = hashlib.sha256((ROOT / "requirements.txt").read_bytes())
    for file in sorted(ROOT.glob("*/migrations/*.py")):
        state.update(file.name.encode() + file.read_bytes())
    folder = Path(gettempdir()) / f"gateway-empty-{os.getuid()}-{state.hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _migrate(folder: Path) -> None:
    empty = RunningGateway("", folder, _environment(folder, "http://localhost:8000", {}))
    (folder / "gateway.sqlite3").unlink(missing_ok=True)
    empty.manage("migrate", "--verbosity", "0", seconds=300)
    # The write-ahead log must be in the file before it is copied.
    empty.manage("shell", "-c", "from django.db import connection as c; "
                 "c.cursor().execute('PRAGMA wal_checkpoint(TRUNCATE)')")  # fmt: skip


@contextmanager
def running_gateway(
    configuration: Mapping[str, Any],
    *,
    server: str = "uvicorn",
    environment: Mapping[str, str] | None = None,
    tls: bool = False,
) -> Iterator[RunningGateway]:
    """Run a gateway until the block ends.

    Args:
        configuration: what ``gateway_apply`` takes.
        server: "uvicorn" or "daphne".
        environment: further settings, such as ``DATABASE_URL`` or ``REDIS_URL``.
        tls: its public address has https; what ends TLS stands in front of it.
    """
    folder = Path(mkdtemp(prefix="gateway-running-"))
    port = free_port()
    listening = f"http://127.0.0.1:{port}"
    front: AbstractContextManager[None] = nullcontext()
    url = listening
    if tls:
        public = free_port()
        front, url = tls_front(public, port), f"https://127.0.0.1:{public}"
    gateway = RunningGateway(
        url,
        folder,
        _environment(folder, url, environment or {}),
        log_file=folder / "gateway.log",
        listening=listening,
    )
    if "DATABASE_URL" in gateway.environment:
        gateway.manage("migrate", "--verbosity", "0")
    else:
        shutil.copy(migrated_database(), folder / "gateway.sqlite3")
    try:
        gateway.apply(configuration)
        start(gateway, server=server)
        with front:
            yield gateway
    finally:
        gateway.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def production_gateway(*, workers: int = 2) -> Iterator[RunningGateway]:
    """Run ``gateway_serve --production`` for an address with https, until the block ends.

    Nothing is configured yet.

    It listens without TLS at ``listening``; requests must carry the host of ``url``.
    """
    folder = Path(mkdtemp(prefix="gateway-production-"))
    url = "https://mcp.gateway.test"
    environment = _environment(folder, url, {})
    # Development switches are refused at such an address.
    for name in ("GATEWAY_ALLOW_LOOPBACK_UPSTREAMS", "GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA"):
        environment.pop(name)
    port = free_port()
    gateway = RunningGateway(url, folder, environment, log_file=folder / "gateway.log")
    gateway.listening = f"http://127.0.0.1:{port}"
    shutil.copy(migrated_database(), folder / "gateway.sqlite3")
    command = [sys.executable, str(ROOT / "manage.py"), "gateway_serve", "--production"]
    command += ["--workers", str(workers), "--port", str(port)]
    try:
        _run(gateway, command)
        yield gateway
    finally:
        gateway.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def another_node(
    gateway: RunningGateway, *, server: str = "uvicorn", drain: int | None = None
) -> Iterator[RunningGateway]:
    """Run one more process of the same gateway, as behind a load balancer, until the block ends.

    It has the same public address; requests to ``listening`` must carry its host. ``drain``: how
    many seconds it takes at most to stop.
    """
    node = replace(gateway, process=None, log_file=gateway.folder / "another.log")
    node.listening = f"http://127.0.0.1:{free_port()}"
    try:
        start(node, server=server, drain=drain)
        yield node
    finally:
        node.stop()


def start(gateway: RunningGateway, *, server: str = "uvicorn", drain: int | None = None) -> None:
    """Start the process of ``gateway`` and wait until it is ready."""
    gateway.listening = gateway.listening or gateway.url
    plan = ServingPlan(
        folder=gateway.folder,
        host="127.0.0.1",
        port=int(gateway.listening.rpartition(":")[2]),
        public_url=gateway.url,
        server=server,
        workers=1,
        demo=False,
    )
    command = plan.server_command()
    if drain is not None:
        command[command.index("--drain") + 1] = str(drain)
    _run(gateway, command)


def _run(gateway: RunningGateway, command: list[str]) -> None:
    with gateway.log_file.open("ab") as log:
        gateway.process = subprocess.Popen(
            command,
            env=gateway.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    gateway.wait_ready()
