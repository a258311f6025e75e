"""The MCP Inspector's command line in both of its forms.

``inspector --cli`` sends one request and ends: it lists, calls, reads and gets in either era and
shares its sign-in with the other form. It answers no questions, and the gateway then says so
instead of waiting; it shows no progress and stays for no notice.

``mcpdo`` holds a connection. It answers forms, opened pages and roots and watches resources. It
has no command that cancels: a stateless call ends when it disconnects, a stateful one by a timeout
of its own after half a minute. It has no model to answer sampling with and shows no progress.
"""

import json
import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.official_client import NODE, NPM
from tests.journeys.world import Person, World, within
from tests.virtualmcp.answering_client import ROOTS, SAMPLE, form, question

pytestmark = pytest.mark.npm

CLIENTS = NPM / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients"
ONE_SHOT = [str(NODE), str(CLIENTS / "launcher" / "build" / "index.js"), "--cli"]
HOLDING = [str(NODE), str(CLIENTS / "mcpdo" / "build" / "mcp-bin.js"), "--format", "json"]
LISTENS = "http://127.0.0.1:6276/"
ADDRESS = re.compile(r'https?://[^\s"]+/oauth/authorize\?[^\s"]+')
ERAS = {"legacy": "2025-11-25", "modern": "2026-07-28"}
SECONDS = 60
PAGE = question(
    "elicitation/create",
    mode="url",
    message="Sign in?",
    elicitationId="page-1",
    url="https://accounts.example/sign-in",
)


@dataclass
class Inspector:
    """Both programs of one person, with a home of their own for what they remember."""

    home: Path
    person: Person
    endpoint: str
    connection: str = ""

    def start(self, command: list[str], *arguments: str, **more: str) -> "subprocess.Popen[str]":
        """Start one of the programs; ``more`` is added to its environment."""
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.home),
            # The address is also written; nothing opens a browser.
            "BROWSER": "true",
            "MCP_INSPECTOR_SECRET_STORE": "file",
            "MCP_INSPECTOR_DAEMON_DIR": str(self.home),
            "MCP_INSPECTOR_DAEMON_TOKEN": "of-this-test",
            **more,
        }
        return subprocess.Popen(
            [*command, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sign_in(self, text: str) -> bool:
        """Do what the person does whom a program asks to open an address."""
        if not (found := ADDRESS.search(text)):
            return False
        redirect = self.person.authorize(found[0])
        assert httpx.get(redirect, trust_env=False, timeout=20).status_code == 200
        return True

    def once(self, method: str, *arguments: str, era: str) -> dict[str, Any]:
        """Run ``inspector --cli`` for one method; returns the result or the error it prints."""
        options = ["--server-url", self.endpoint, "--transport", "http", "--format", "json"]
        options += ["--protocol-era", era, "--method", method, *arguments]
        with self.start(ONE_SHOT, *options, MCP_AUTO_OPEN_ENABLED="true") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            wrote = ""
            for line in process.stderr:
                wrote += line
                self.sign_in(line)
            printed = process.stdout.read()
            process.wait(SECONDS)
        printed = printed if printed.startswith("{") else wrote.splitlines()[-1]
        answer: dict[str, Any] = json.loads(printed)
        return answer

    def do(self, *arguments: str) -> dict[str, Any]:
        """Run ``mcpdo`` on the connection; returns what it prints, or its error."""
        about = ("--connection", self.connection) if self.connection else ()
        with self.start(HOLDING, *about, *arguments) as process:
            printed, wrote = process.communicate(timeout=SECONDS)
        answer: dict[str, Any] = json.loads(printed or wrote.splitlines()[-1])
        return answer

    def connect(self, era: str) -> dict[str, Any]:
        """Open the connection, signing in on the way; returns what was agreed on."""
        opened = self.do("connect", self.endpoint, "--transport", "http", "--era", era)
        assert opened["pendingAuth"]
        assert self.sign_in(json.dumps(opened))
        self.connection = opened["name"]
        return self.do("connections/show", self.connection)

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a tool; returns its result or the question that it waits for."""
        return self.do("tools/call", tool, json.dumps(arguments))

    def respond(self, asked: dict[str, Any], *answer: str) -> dict[str, Any]:
        """Answer a question; returns the result or the next question."""
        return self.do("elicitation/respond", asked["elicitationPending"]["elicitationId"], *answer)

    @contextmanager
    def watching(self, uri: str) -> Iterator["queue.Queue[str]"]:
        """Watch a resource; yields the lines that the program writes meanwhile."""
        lines: queue.Queue[str] = queue.Queue()
        about = ("--connection", self.connection)
        with self.start(HOLDING, *about, "resources/subscribe", uri) as process:
            stream = process.stdout
            assert stream is not None
            reading = threading.Thread(target=lambda: [lines.put(line) for line in stream])
            reading.start()
            try:
                yield lines
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(SECONDS)
                reading.join(SECONDS)


@pytest.fixture
def inspector(world: World, person: Person, tmp_path: Path) -> Iterator[Inspector]:
    """Return the programs; ends the process that holds connections."""
    person.browser.stops = (LISTENS,)
    programs = Inspector(tmp_path, person, world.gateway.endpoint("asking"))
    yield programs
    programs.connection = ""
    programs.do("daemon", "stop")


def test_one_request_at_a_time_the_inspector_signs_in_once_and_serves_both_eras(
    inspector: Inspector,
) -> None:
    for era in ERAS:
        tools = inspector.once("tools/list", era=era)["result"]["tools"]
        assert {"echo", "legacy_echo"} <= {tool["name"] for tool in tools}
        given = ["--tool-args-json", json.dumps({"rounds": [[form("Who?")]]})]
        refused = inspector.once("tools/call", "--tool-name", "interview", *given, era=era)
        assert "asks for elicitation" in refused["error"]["message"]
    read = inspector.once("resources/read", "--uri", "legacy+file:///notes/1", era="legacy")
    assert read["result"]["contents"][0]["text"] == "note file:///notes/1"
    moved = ["--tool-name", "legacy_slow", "--tool-args-json", '{"steps": 2, "pause": 0.02}']
    called = inspector.once("tools/call", *moved, era="modern")
    assert called["result"]["content"] == [{"type": "text", "text": "done"}]


@pytest.mark.parametrize("era", ERAS)
def test_held_open_the_inspector_answers_and_watches_whatever_the_upstreams_era(
    world: World, inspector: Inspector, era: str
) -> None:
    assert inspector.connect(era)["protocolVersion"] == ERAS[era]
    for prefix, upstream in (("", world.modern), ("legacy_", world.legacy)):
        asked = inspector.call(f"{prefix}interview", {"rounds": [[form("Who?"), ROOTS], [PAGE]]})
        assert asked["elicitationPending"]["message"].endswith("Who?")
        page = inspector.respond(asked, "answer:=Ada")
        assert page["elicitationPending"]["url"] == "https://accounts.example/sign-in"
        answered = json.loads(inspector.respond(page, "--done")["content"][0]["text"])
        assert {"action": "accept", "content": {"answer": "Ada"}} in answered
        assert {"roots": []} in answered
        assert {"action": "accept"} in answered

        uri = f"{prefix or 'modern_'}file:///notes/1".replace("_", "+")
        with inspector.watching(uri) as lines:

            def told() -> bool:
                upstream.announce("notifications/resources/updated", {"uri": "file:///notes/1"})  # noqa: B023
                return any(uri in line for line in list(lines.queue))  # noqa: B023

            within(SECONDS, told)
    refused = inspector.call("interview", {"rounds": [[SAMPLE]]})
    assert "asks for sampling" in refused["error"]["message"]


def test_a_call_the_inspector_leaves_by_disconnecting_ends_at_upstreams_of_both_eras(
    world: World, inspector: Inspector
) -> None:
    inspector.connect("modern")
    for prefix, upstream in (("", world.modern), ("legacy_", world.legacy)):
        started = upstream.events.count("started:hang")
        ended = upstream.events.count("cancelled:hang")
        about = ("--connection", inspector.connection)
        with inspector.start(HOLDING, *about, "tools/call", f"{prefix}hang") as process:
            assert upstream.wait(lambda up: up.events.count("started:hang") > started, SECONDS)  # noqa: B023
            inspector.do("disconnect")
            assert upstream.wait(lambda up: up.events.count("cancelled:hang") > ended, SECONDS)  # noqa: B023
            process.wait(SECONDS)
        inspector.do("connect", inspector.endpoint, "--transport", "http", "--era", "modern")
