"""``manage.py gateway_serve``, behind ``bin/serve``: prepare, start, watch, stop."""

import fcntl
import json
import os
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway_site import production, public_address, serving
from gateway_site.demo import processes as demo_processes
from gateway_site.supervision import Child, Ended, Supervisor

START_SECONDS = 60


class Command(BaseCommand):
    """Supervises the web server and the demo's upstreams; touches no table itself."""

    help = "Start the gateway: data directory, keys, tables, administrator, demo, web server."
    # The settings of this process may be of another data directory than the one chosen.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options of ``bin/serve``."""
        parser.add_argument("--port", type=int, help="port to listen on (first start: 8000)")
        parser.add_argument("--host", help="address to listen on (127.0.0.1)")
        parser.add_argument("--data-dir", help="where keys and database are kept")
        parser.add_argument(
            "--public-url", help="address people use, such as https://mcp.example.com"
        )
        parser.add_argument("--no-demo", action="store_true", help="start without the demo")
        parser.add_argument(
            "--production",
            action="store_true",
            help="several workers on uvicorn, no demo; needs https, and keys that you keep",
        )
        parser.add_argument(
            "--server", choices=["daphne", "uvicorn"], help="daphne, in production uvicorn"
        )
        parser.add_argument(
            "--workers", type=int, help="processes, with uvicorn: 1, in production one per core"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Start everything and stay until it is ended."""
        try:
            plan = serving.decide(options, os.environ)
        except serving.CannotServe as failure:
            raise CommandError(str(failure)) from failure
        with self._only_one(plan.folder):
            supervisor = Supervisor(self._say)
            status = 0
            sockets: list[socket.socket] = []
            try:
                self._start(plan, supervisor, sockets)
                status = supervisor.watch()
            except serving.CannotServe as failure:
                raise CommandError(str(failure)) from failure
            except Ended:
                self._say("\nStopping ...")
            finally:
                # Else they would go on taking connections that no worker answers.
                for listener in sockets:
                    listener.close()
                supervisor.stop(grace=plan.drain + 5)
            self._say("Stopped. Everything is kept; bin/serve starts it again.")
        if status:
            raise SystemExit(status)

    def _start(
        self, plan: serving.ServingPlan, supervisor: Supervisor, sockets: list[socket.socket]
    ) -> None:
        self._say(f"Data directory: {plan.folder}")
        self._say("Preparing the database ...")
        ports: dict[str, int] = {}
        if plan.demo and not demo_processes.was_removed(plan.folder):
            ports = demo_processes.choose_ports(plan.folder, plan.port)
        made = self._prepare(plan, ports)
        if ports:
            self._say("Starting the demo's upstreams ...")
            for child in demo_processes.children(plan.folder, ports, plan.environment()):
                supervisor.start(child)
        environment = plan.environment()
        if hint := production.advice(
            plan.workers, environment.get("DATABASE_URL", ""), environment.get("REDIS_URL", "")
        ):
            self._say(hint)
        if plan.server == "uvicorn":
            sockets += serving.open_sockets(plan)
        workers = web_servers(plan, sockets)
        self._say(
            f"Starting {plan.server} ({len(workers)} of it) ..."
            if len(workers) > 1
            else f"Starting {plan.server} ..."
        )
        for worker in workers:
            supervisor.start(worker)
        if not supervisor.wait_until(lambda: is_ready(plan.local_url), workers, START_SECONDS):
            raise CommandError(
                "The web server did not become ready; its messages are above. "
                f"{plan.folder / 'gateway.sqlite3'} and the keys are as they were."
            )
        self._say(banner(plan, made))

    def _prepare(self, plan: serving.ServingPlan, ports: dict[str, int]) -> dict[str, Any]:
        """Run ``gateway_init`` in the chosen environment; return what it made."""
        command = [sys.executable, str(serving.ROOT / "manage.py"), "gateway_init", "--json"]
        if ports:
            command += ["--demo-ports", ",".join(str(port) for port in ports.values())]
        done = subprocess.run(  # noqa: S603
            command,
            env={"LOG_LEVEL": "WARNING", **plan.environment()},
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError("The database could not be prepared; the message is above.")
        answer: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
        return answer

    def _only_one(self, folder: Path) -> Any:
        guard = (folder / "serve.lock").open("a+")
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            guard.seek(0)
            process = guard.read().strip() or "unknown"
            raise CommandError(
                f"A gateway (process {process}) already runs on {folder}. "
                "Stop it first, or choose another --data-dir."
            ) from failure
        guard.truncate(0)
        guard.write(str(os.getpid()))
        guard.flush()
        return guard

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def web_servers(plan: serving.ServingPlan, sockets: Sequence[socket.socket]) -> list[Child]:
    """Return the processes that answer, each on a socket of its own where there are sockets."""
    environment, root = plan.environment(), serving.ROOT
    if not sockets:
        return [Child("The web server", plan.server_command(), environment, root, vital=True)]
    alone = len(sockets) == 1 and not plan.production
    return [
        Child(
            "The web server" if alone else f"Worker {number}",
            plan.server_command(listener.fileno()),
            environment,
            root,
            vital=alone,
            needed=not alone,
            sockets=(listener.fileno(),),
        )
        for number, listener in enumerate(sockets, start=1)
    ]


def is_ready(local_url: str) -> bool:
    """Whether the server answers ``/readyz`` with 200."""
    try:
        with urllib.request.urlopen(f"{local_url}/readyz", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def banner(plan: serving.ServingPlan, made: dict[str, Any]) -> str:
    """Return what a person needs now: addresses, the password once, the next step."""
    first_step = f"Open {plan.public_url}/admin/, add an upstream and a Virtual MCP over it."
    lines = ["", f"The gateway runs at {plan.public_url}", ""]
    if servers := made["virtual_mcps"]:
        width = max(len(server["url"]) for server in servers)
        lines += ["Connector URLs, to paste into an MCP client:"]
        lines += [f"  {server['url']:{width}}   {server['title']}" for server in servers]
        lines += [""]
        first_step = f"Open {plan.public_url}/ and sign in; each card shows how to connect."
    lines += ["Administration:", f"  {plan.public_url}/admin/   user {made['username']}"]
    if made["password"]:
        lines += [f"  password {made['password']}   (shown only now; write it down)"]
    else:
        lines += ["  password as printed at the first start; a new one:"]
        variables = f"GATEWAY_DATA_DIR={shlex.quote(str(plan.folder))}"
        command = f".venv/bin/python manage.py changepassword {made['username']}"
        lines += [f"  {variables} {command}"]
    lines += ["", "What to do next:", f"  1. {first_step}"]
    if public_address.is_loopback(plan.public_url):
        lines += ["  2. ChatGPT and Claude need an address on the internet: docs/quickstart.md."]
    else:
        lines += ["  2. Point your reverse proxy at this port: docs/operations.md."]
    lines += ["  3. Stop with Ctrl-C. Starting again keeps accounts, keys and settings.", ""]
    return "\n".join(lines)
