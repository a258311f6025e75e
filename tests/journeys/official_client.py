"""Drives an official MCP client that runs as its own process, in its own environment.

The program reads one JSON command per line and answers with one JSON event per line. While a
command runs it may say ``{"event": "authorize", "url": ...}``; it then waits for a line with
``{"redirect": ...}`` (the person came back) or ``{"redirect": ""}`` (the person did not).
The programs are in ``tests/journeys/clients`` and ``tests/npm/clients``:

    {"do": "connect"}                        connected: revision, instructions
    {"do": "tools"}                          tools: names
    {"do": "call", "name", "arguments"}      called: text, is_error, structured, progress
    {"do": "read", "uri"}                    read: text, mime
    {"do": "prompt", "name", "arguments"}    prompt: text
    {"do": "complete", ...}                  completed: values
    {"do": "resources"}                      resources: uris
    {"do": "begin", "name", "arguments"}     begun: a call that runs on
    {"do": "abort"}                          aborted: it was cancelled
    {"do": "asked"}                          asked: heard (questions to person, model and folders)
    {"do": "watch", "uris"}                  watching: uris (those that will be told of)
    {"do": "unwatch", "uris"}                unwatched
    {"do": "noticed"}                        noticed: changes ("tools", "updated file:///x", ...)
    {"do": "expire"}                         expired (the next request must refresh first)
    {"do": "tokens"}                         tokens: access, refresh
    {"do": "quit"}                           quit

Any of them may answer ``{"event": "failed", "error": ...}``.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent.parent
CLIENTS = Path(__file__).parent / "clients"
OLDER_PYTHON = ROOT / ".venvs" / "mcp1" / "bin" / "python"
NPM = ROOT / "tests" / "npm"
NPM_CLIENTS = NPM / "clients"
NODE = NPM / "node_modules" / ".bin" / "node"

PROGRAMS: dict[str, list[str]] = {
    "python-2": [sys.executable, str(CLIENTS / "python_2.py")],
    "python-1": [str(OLDER_PYTHON), str(CLIENTS / "python_1.py")],
    "typescript-2": [str(NODE), str(NPM_CLIENTS / "typescript_2.mjs")],
    "typescript-1": [str(NODE), str(NPM_CLIENTS / "typescript_1.mjs")],
    "mcp-remote": [str(NODE), str(NPM_CLIENTS / "mcp_remote.mjs")],
}

Authorize = Callable[[str], str]


class OfficialClient:
    """One running program; ``authorize`` turns an authorization address into the redirect."""

    def __init__(self, process: "subprocess.Popen[str]", authorize: Authorize) -> None:
        self._process = process
        self._authorize = authorize
        self._lines: queue.Queue[str] = queue.Queue()
        self.authorizations: list[str] = []
        self._errors: list[str] = []
        for stream, put in ((process.stdout, self._lines.put), (process.stderr, self._complain)):
            assert stream is not None
            threading.Thread(target=self._pump, args=(stream, put), daemon=True).start()

    @staticmethod
    def _pump(stream: IO[str], put: Callable[[str], None]) -> None:
        for line in stream:
            put(line)
        put("")

    def _complain(self, line: str) -> None:
        self._errors.append(line)

    def do(self, command: str, timeout: float = 40, **more: Any) -> dict[str, Any]:
        """Send a command and return its event; a failure fails the test."""
        event = self.attempt(command, timeout, **more)
        assert event["event"] != "failed", (event, "".join(self._errors)[-3000:])
        return event

    def attempt(self, command: str, timeout: float = 40, **more: Any) -> dict[str, Any]:
        """Send a command and return its event, also one that says it failed."""
        self._send({"do": command, **more})
        while True:
            try:
                line = self._lines.get(timeout=timeout)
            except queue.Empty:
                line = ""
            assert line, (command, "the client said nothing", "".join(self._errors)[-3000:])
            event: dict[str, Any] = json.loads(line)
            if event["event"] != "authorize":
                return event
            self.authorizations.append(event["url"])
            self._send({"redirect": self._authorize(event["url"])})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


@contextmanager
def official_client(
    program: str,
    endpoint: str,
    authorize: Authorize,
    *,
    mode: str = "auto",
    ca_file: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[OfficialClient]:
    """Run one of ``PROGRAMS`` against ``endpoint`` until the block ends.

    ``mode`` is "auto" (probe for the stateless revision) or "legacy" (``initialize``); the
    older clients know only the latter. ``mcp-remote`` speaks that way to the gateway; the client
    that starts it is a stateful one.
    """
    interpreter = PROGRAMS[program][0]
    remedy = "bin/test makes it" if program.startswith("python") else "run npm ci in tests/npm"
    assert Path(interpreter).exists(), f"{interpreter} is missing: {remedy}"
    inherited = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    if ca_file:
        inherited |= {"SSL_CERT_FILE": ca_file, "NODE_EXTRA_CA_CERTS": ca_file}
    process = subprocess.Popen(
        [*PROGRAMS[program], endpoint, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**inherited, **(environment or {})},
        cwd=ROOT,
    )
    client = OfficialClient(process, authorize)
    try:
        yield client
        client.do("quit", timeout=10)
        process.wait(5)
    finally:
        process.kill()
        process.wait(5)
