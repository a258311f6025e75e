"""The express lane on Daphne: warm calls take it there as they do on uvicorn."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack

import httpx
import pytest
from django.conf import settings

from tests.fakes.asgi_server import free_port
from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.express_client import RawClient, call_request
from tests.virtualmcp.test_endpoint_daphne import ROOT, _database_url, _wait_for
from tests.virtualmcp.wire_client import WireClient

LONG = "x" * 900_000


class Daphne:
    """A running server, an upstream behind it, and a token for ``board``."""

    def __init__(self, base, process, upstream, token, session):
        self.base, self.process, self.upstream = base, process, upstream
        self.token, self.session = token, session

    def counts(self):
        """Return how many calls the lane began and handed on."""
        found = httpx.get(f"{self.base}/lane", timeout=10).json()
        return found["began"], found["handed_on"]

    def request(self, **more):
        """Return a call as head and body."""
        return call_request("board", self.token, **more)

    def warm(self, raw, **more):
        """Have a connection know the head of a call."""
        for _ in range(20):
            before = self.counts()[0]
            assert raw.ask(*self.request(**more))[0] == 200
            if self.counts()[0] > before:
                return
            # What is pinned beside the first requests may not be written yet.
            time.sleep(0.05)
        pytest.fail("the lane takes no call")


@pytest.fixture
def daphne(ada, transactional_db, make_virtual_mcp, make_token):
    """Return a function that starts the server, whose lane waits so long for an answer."""
    with ExitStack() as stack:

        def start(wait=10.0):
            port = free_port()
            environment = {
                **os.environ,
                "DATABASE_URL": _database_url(),
                "DJANGO_SETTINGS_MODULE": "tests.settings",
            }
            command = [sys.executable, "-m", "tests.virtualmcp.served_by_daphne"]
            process = subprocess.Popen(
                [*command, str(port), str(wait)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.communicate, timeout=15)
            stack.callback(process.kill)
            _wait_for(port, process)
            upstream = stack.enter_context(FakeUpstream().serve())
            make_virtual_mcp("board", {"fake": upstream.url})
            base, token = f"http://127.0.0.1:{port}", make_token(ada, "board")
            headers = {"host": settings.PUBLIC_HOST}
            http = stack.enter_context(httpx.Client(base_url=base, headers=headers, timeout=10))
            client = WireClient(http, "board", token)
            client.initialize()
            client.tell("notifications/initialized")
            return Daphne(base, process, upstream, token, client.session)

        yield start


def said(body):
    return json.loads(body)["result"]["content"][0]["text"]


def test_warm_calls_take_the_lane_and_all_else_is_read_as_ever(daphne):
    """One test for one start of the server, which takes seconds."""
    server = daphne()
    with RawClient(server.base) as raw:
        # The same answer, whichever way it came.
        raw.send(*server.request())
        first = raw.answer()
        server.warm(raw)
        began = server.counts()[0]
        raw.send(*server.request())
        found = raw.answer()
        kept = sorted((name.lower(), value) for name, value in found.getheaders())
        assert kept == sorted((name.lower(), value) for name, value in first.getheaders())
        assert (found.status, found.body) == (first.status, first.body)
        # Head and body apart, and a body in two.
        head, body = server.request(arguments={"text": "apart"})
        for parts in ((head, body), (head + body[:9], body[9:])):
            for part in parts:
                raw.send(part)
                # Answered after what was sent before it is read.
                server.counts()
            assert said(raw.answer().body) == "apart"
        assert server.counts() == (began + 2, 0)
        # Two requests in one read, and one behind a running call: in their order.
        raw.send(*server.request(arguments={"text": "1"}), *server.request(arguments={"text": "2"}))
        assert [said(raw.answer().body) for _ in range(2)] == ["1", "2"]
        raw.send(*server.request(name="echo", arguments={"text": "3"}))
        raw.send(*server.request(name="echo", arguments={"text": "4"}))
        assert [said(raw.answer().body) for _ in range(2)] == ["3", "4"]
        # An answer that the socket does not take at once, whole and before the next one.
        raw.send(*server.request(arguments={"text": LONG}))
        assert said(raw.answer().body) == LONG
        assert raw.ask(*server.request())[0] == 200
        # Errors of the request and the end of the token.
        status, answer = raw.ask(*server.request(name="no such tool"))
        assert (status, json.loads(answer)["error"]["code"]) == (200, -32602)
        wrong = body.replace(b'"2.0"', b'"1.0"')
        assert raw.ask(head, wrong)[0] == 400
        assert raw.ask(*server.request())[0] == 200
    # Sessions have the lane too.
    with RawClient(server.base) as raw:
        server.warm(raw, session=server.session)


def test_a_call_that_takes_longer_or_asks_goes_on_with_the_request_that_was_sent(daphne):
    server = daphne(0.05)
    slow = {"name": "slow", "arguments": {"steps": 2, "pause": 0.2}}
    with RawClient(server.base) as raw:
        for meta in ({}, {"progressToken": "p"}):
            for _ in range(3):
                asked = len(server.upstream.calls("tools/call"))
                began, handed_on = server.counts()
                raw.send(*server.request(**slow, meta=meta))
                found = raw.answer()
                assert found.status == 200
                assert b"done" in found.body
                assert found.body.count(b"notifications/progress") == 2 * bool(meta)
                assert len(server.upstream.calls("tools/call")) == asked + 1
            assert server.counts() == (began + 1, handed_on + 1)


@pytest.mark.parametrize("how", ["handed on", "on the lane"])
def test_who_leaves_is_noticed_and_who_may_come_back_is_waited_for(daphne, how):
    server = daphne(0.05 if how == "handed on" else 10.0)
    # The stateless client's call ends at the upstream.
    _leave(server, "hang", {})
    assert server.upstream.wait(lambda seen: "cancelled:hang" in seen.events, 3)
    # That of a session goes on to its end.
    _leave(server, "slow", {"steps": 1, "pause": 0.5}, session=server.session)
    assert server.upstream.wait(lambda seen: "finished:slow" in seen.events, 10)


def _leave(server, name, arguments, **more):
    """Call a tool on the lane, and close the connection when it runs."""
    for _ in range(20):
        seen = server.upstream.events.count(f"started:{name}")
        with RawClient(server.base) as raw:
            # Leaves an open connection to the upstream behind, without which there is no lane.
            assert raw.ask(*server.request(**more))[0] == 200
            head, body = server.request(name=name, arguments=arguments, **more)
            # The head is learned, whatever comes of the message.
            assert raw.ask(head, body.replace(b'"2.0"', b'"1.0"'))[0] == 400
            before = server.counts()[0]
            raw.send(head, body)
            assert server.upstream.wait(
                lambda now, seen=seen: now.events.count(f"started:{name}") > seen
            )
            server.upstream.events.clear()
        if server.counts()[0] > before:
            return
        # What is pinned beside the first requests may not be written yet.
        time.sleep(0.1)
    pytest.fail("the lane takes no call")


def test_a_server_that_ends_answers_what_runs_on_the_lane(daphne):
    server = daphne()
    slow = {"name": "slow", "arguments": {"steps": 1, "pause": 0}}
    with RawClient(server.base) as raw:
        server.warm(raw, **slow)
        seen = server.upstream.events.count("started:slow")
        slow["arguments"] = {"steps": 1, "pause": 1.0}
        raw.send(*server.request(**slow))
        assert server.upstream.wait(lambda now: now.events.count("started:slow") > seen)
        server.process.terminate()
        assert said(raw.answer().body) == "done"
    assert server.process.wait(15) == 0
