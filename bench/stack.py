"""The processes that a benchmark compares: upstreams, nginx, and the gateway on each server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(REPOSITORY))

from gateway_site import serving  # noqa: E402

NGINX = """
worker_processes 1;
daemon off;
pid %(folder)s/nginx.pid;
error_log %(folder)s/error.log;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path %(folder)s/body;
  proxy_temp_path %(folder)s/proxy;
  upstream fast { server 127.0.0.1:%(upstream)d; keepalive 128; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:%(port)d;
    keepalive_requests 100000000;
    location / {
      proxy_pass http://fast;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
"""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[bytes]", seconds: float = 30) -> None:
    """Wait until something listens on ``port``.

    Raises:
        RuntimeError: the process ended, or did not listen in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not listen on {port}")


@contextmanager
def running(
    command: list[str],
    port: int,
    environment: dict[str, str] | None = None,
    sockets: tuple[int, ...] = (),
    seconds: float = 30,
) -> Iterator[int]:
    """Run ``command`` until the block ends; yields its process id once it listens."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        pass_fds=sockets,
    )
    try:
        wait_for(port, process, seconds)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def upstream(prefix: str = "", tools: Path | None = None) -> Iterator[tuple[int, int]]:
    """Run one fast upstream; yields its port and process id."""
    port = free_port()
    command = [sys.executable, str(HERE / "fast_upstream.py"), "--port", str(port)]
    command += ["--list", str(tools)] if tools else []
    with running([*command, "--prefix", prefix], port) as pid:
        yield port, pid


@contextmanager
def nginx(upstream_port: int) -> Iterator[tuple[int, int] | None]:
    """Run nginx with one worker before ``upstream_port``; yields None where it is not installed."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        values = {"folder": folder, "upstream": upstream_port, "port": port}
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(NGINX % values)
        with running([binary, "-c", str(configuration), "-e", f"{folder}/error.log"], port) as pid:
            yield port, pid


def server_command(server: str, port: int, workers: int = 1) -> list[str]:
    """Return the command line of one of the supported ASGI servers, as the product starts it."""
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if server == "granian":
        options = ["--interface", "asgi", "--loop", "uvloop", "--workers", str(workers)]
        options += ["--no-ws", "--no-access-log", "--log-level", "warning"]
        application = "gateway_site.asgi:application"
        return [sys.executable, "-m", "granian", *where, *options, application]
    return [sys.executable, "-m", f"gateway_site.{server}_server", *where]


@dataclass(frozen=True)
class Gateway:
    """A running gateway: where it listens, its processes, a token per Virtual MCP.

    Two Virtual MCPs exist: ``one`` over the first upstream, ``many`` over all of them.
    ``start_seconds`` is from the start of the process until ``/readyz`` said yes.
    """

    port: int
    pids: tuple[int, ...]
    tokens: dict[str, str]
    start_seconds: float


def wait_ready(port: int, seconds: float = 60) -> None:
    """Wait until ``/readyz`` answers 200.

    Raises:
        RuntimeError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError("the gateway did not become ready")


@contextmanager
def worker_processes(
    port: int, workers: int, environment: dict[str, str]
) -> Iterator[tuple[int, ...]]:
    """Run several workers of uvicorn, each on its own queue, as gateway_serve does."""
    plan = serving.ServingPlan(HERE, "127.0.0.1", port, "http://x", "uvicorn", workers, False)
    with ExitStack() as stack:
        pids = []
        for listener in serving.open_sockets(plan):
            stack.callback(listener.close)
            command = [*server_command("uvicorn", port), "--fd", str(listener.fileno())]
            inherited = (listener.fileno(),)
            pids.append(stack.enter_context(running(command, port, environment, inherited)))
        yield tuple(pids)


@contextmanager
def gateway(
    server: str, upstream_ports: list[int], workers: int = 1, under: Sequence[str] = ()
) -> Iterator[Gateway]:
    """Run the gateway on ``server`` over the given upstreams; ``under`` is the command of what
    watches the process, and may make it slow."""
    port = free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-"))
        environment = {
            "GATEWAY_DATA_DIR": folder,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "SECRET_KEY": "only-for-this-benchmark-0123456789-0123456789-0123456789",
            "GATEWAY_ENCRYPTION_KEYS": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "GATEWAY_ALLOW_LOOPBACK_UPSTREAMS": "true",
            "DJANGO_SETTINGS_MODULE": "gateway_site.settings",
            # The load comes from one person; without this it runs into their limit now and then.
            "GATEWAY_CALLS_IN_FLIGHT_PER_USER": "2000",
            "GATEWAY_STREAMS_PER_USER": "20000",
        }
        prepared = subprocess.run(
            [sys.executable, str(HERE / "prepare.py"), *map(str, upstream_ports)],
            env={**os.environ, **environment},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        if prepared.returncode:
            raise RuntimeError(f"the gateway could not be prepared: {prepared.stderr}")
        tokens = json.loads(prepared.stdout.splitlines()[-1])
        began = time.monotonic()
        if workers > 1 and server == "uvicorn":
            pids = stack.enter_context(worker_processes(port, workers, environment))
        else:
            command = [*under, *server_command(server, port, workers)]
            seconds = 300 if under else 30
            pids = (stack.enter_context(running(command, port, environment, (), seconds)),)
        wait_ready(port, 300 if under else 60)
        yield Gateway(port, pids, tokens, time.monotonic() - began)
