"""The server of production over real sockets: it drains, it cuts off who dawdles, it is bounded."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from gateway_site import production, serving
from tests.fakes.asgi_server import free_port
from tests.fakes.browser import Browser
from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.test_servers_and_nodes import NAME, gateway_over
from tests.journeys.wire_client import WireClient
from tests.journeys.world import PATIENCE as TOLD
from tests.journeys.world import STOPS, Person, within
from tests.patience import PATIENCE
from tests.running_gateway import RunningGateway, another_node, production_gateway
from tests.virtualmcp.express_client import RawClient

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.timeout(400)
MOST = 12
LIMITS = {
    "GATEWAY_MAX_CONNECTIONS": str(MOST),
    "GATEWAY_HEADER_SECONDS": "2",
    "GATEWAY_REQUEST_SECONDS": "1",
    "GATEWAY_KEEP_ALIVE_SECONDS": "2",
}


def open_connection(gateway: RunningGateway, begin: bytes = b"") -> socket.socket:
    """Connect and send the beginning of something."""
    connection = socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])))
    connection.settimeout(PATIENCE)
    if begin:
        connection.sendall(begin)
    return connection


def until_closed(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    got = b""
    try:
        while part := connection.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    connection.close()
    return got


def host_line(gateway: RunningGateway) -> bytes:
    return b"host: " + gateway.url.removeprefix("http://").encode() + b"\r\n"


@pytest.fixture(scope="module")
def limited() -> Iterator[RunningGateway]:
    with FakeUpstream().serve() as upstream, gateway_over(upstream, **LIMITS) as gateway:
        yield gateway


def test_a_head_that_trickles_is_cut_off(limited):
    begin = b"POST /v1/mcp/one HTTP/1.1\r\n" + host_line(limited)
    got = until_closed(open_connection(limited, begin))
    assert got.startswith(b"HTTP/1.1 408 ")
    assert b"request_too_slow" in got


def test_a_connection_that_says_nothing_is_closed_without_a_word(limited):
    assert until_closed(open_connection(limited)) == b""


def test_a_body_that_trickles_is_cut_off_on_pages_too(limited):
    begin = b"POST /oauth/token HTTP/1.1\r\n" + host_line(limited)
    begin += b"content-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\na="
    got = until_closed(open_connection(limited, begin))
    assert b" 408 " in got.splitlines()[0]


def test_an_unused_connection_is_closed_and_a_used_one_is_kept(limited):
    connection = open_connection(limited)
    request = b"GET /healthz HTTP/1.1\r\n" + host_line(limited) + b"\r\n"
    for _ in range(3):
        connection.sendall(request)
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            part = connection.recv(65536)
            assert part, "closed in the middle"
            got += part
        assert got.startswith(b"HTTP/1.1 200 ")
    assert until_closed(connection) == b""


def test_connections_above_the_limit_are_told_so_and_free_ones_serve_again(limited):
    kept = [open_connection(limited) for _ in range(MOST)]
    request = b"GET /healthz HTTP/1.1\r\n" + host_line(limited) + b"\r\n"
    got = until_closed(open_connection(limited, request))
    assert got.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in got
    assert b"too_many_connections" in got
    for connection in kept:
        connection.close()

    def serves() -> bool:
        return httpx.get(f"{limited.url}/healthz", trust_env=False).status_code == 200

    within(PATIENCE, serves)


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /healthz?" + b"x" * 9_000 + b" HTTP/1.1\r\n", 414),
        (b"GET /healthz HTTP/1.1\r\nx-long: " + b"x" * 40_000 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"x-many: 1\r\n" * 120, 431),
        (b"GET /healthz HTTP/1.1\r\nx-endless: " + b"x" * 400_000, 431),
        (b"NONSENSE\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n", 400),
    ],
)
def test_heads_without_measure_or_sense_are_refused(limited, request_head, status):
    connection = open_connection(limited)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(request_head + host_line(limited) + b"connection: close\r\n\r\n")
    first = until_closed(connection).partition(b"\r\n")[0]
    # Who is cut off while sending may lose the answer to the reset of the connection.
    assert first == b"" or first.startswith(b"HTTP/1.1 %d " % status)
    assert first or len(request_head) > 100_000


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_130_an_address_that_names_another_host_than_the_header_is_refused(limited, server):
    node = contextlib.nullcontext(limited)
    if server == "daphne":
        node = another_node(limited, server="daphne")
    ours = limited.url.removeprefix("http://").encode()
    with node as serving:
        port = int((serving.listening or serving.url).rpartition(":")[2])

        def status_of(target: bytes, host: bytes, path: bytes) -> bytes:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.settimeout(20)
            lines = (b"GET %b%b HTTP/1.1" % (target, path), b"host: " + host, b"connection: close")
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
            return until_closed(connection)[9:12]

        # A proxy in front goes by the address (RFC 9112 3.2.2), the rules here by the header.
        for path in (b"/v1/mcp/one", b"/oauth/authorize?client_id=x", b"/healthz"):
            for target in (b"http://evil.example", b"http://x@" + ours, b"http://" + ours + b"1"):
                assert status_of(target, ours, path) in (b"400", b"404", b"421"), (target, path)
            assert status_of(b"http://" + ours, b"evil.example", path) in (b"400", b"404", b"421")
            assert status_of(b"//evil.example", ours, path) in (b"400", b"404")
        assert status_of(b"", ours, b"/healthz") == b"200"
        if server == "uvicorn":
            assert status_of(b"http://" + ours, ours, b"/healthz") == b"200"


def test_trailers_and_endless_chunk_extensions_are_refused(limited):
    begin = b"POST /oauth/token HTTP/1.1\r\n" + host_line(limited)
    begin += b"content-type: application/x-www-form-urlencoded\r\n"
    begin += b"transfer-encoding: chunked\r\n\r\n"
    trailer = b"2\r\na=\r\n0\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"
    got = until_closed(open_connection(limited, begin + trailer))
    assert got.startswith(b"HTTP/1.1 400 ")
    assert b"not_http" in got
    expecting = begin.removesuffix(b"\r\n") + b"expect: 100-continue\r\n\r\n"
    connection = open_connection(limited, expecting)
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(b"2;" + b"x" * 70_000)
    # Refused at once, not for being slow; the reset of the connection may take the answer along.
    assert until_closed(connection)[:13] in (b"HTTP/1.1 400 ", b"")


def test_ordinary_http_is_served_as_ever(limited):
    host = host_line(limited)
    # Two requests at once, in order; the second is the last one.
    both = b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n"
    both += b"HEAD /healthz HTTP/1.1\r\n" + host + b"connection: close\r\n\r\n"
    got = until_closed(open_connection(limited, both))
    first, second = got.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 ")
    assert first.endswith(b"\r\n\r\n3\r\nok\n\r\n0\r\n\r\n")
    assert second.startswith(b"200 ")
    assert second.endswith(b"\r\n\r\n")
    assert b"\r\nserver:" not in got.lower()
    assert b"\r\ndate:" in got.lower()
    # HTTP/1.0 closes; a request to speak something else is answered in HTTP/1.1.
    old = until_closed(open_connection(limited, b"GET /healthz HTTP/1.0\r\n" + host + b"\r\n"))
    assert old.endswith(b"ok\n")
    upgrade = b"connection: upgrade, close\r\nupgrade: h2c\r\n\r\n"
    got = until_closed(open_connection(limited, b"GET /healthz HTTP/1.1\r\n" + host + upgrade))
    assert got.startswith(b"HTTP/1.1 200 ")
    # A body in chunks, announced with Expect.
    body = b"POST /oauth/token HTTP/1.1\r\n" + host + b"transfer-encoding: chunked\r\n"
    body += b"expect: 100-continue\r\ncontent-type: application/x-www-form-urlencoded\r\n"
    connection = open_connection(limited, body + b"connection: close\r\n\r\n")
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"6\r\nclient\r\n7\r\n_id=nob\r\n0\r\n\r\n")
    got = until_closed(connection)
    assert b"invalid_client" in got
    assert b"does not say which client" not in got
    assert "Traceback" not in limited.log()


class Calling(threading.Thread):
    """One call to one node, made beside the test."""

    def __init__(self, client: WireClient, node: RunningGateway, tool: str, **arguments: object):
        super().__init__()
        body = client.body("tools/call", {"name": tool, "arguments": arguments})
        self.request = httpx.Request(
            "POST",
            f"{node.listening}/v1/mcp/one",
            json=body,
            headers={**client.headers(body), "Host": urlsplit(node.url).netloc},
        )
        self.response: httpx.Response | None = None
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            with httpx.Client(timeout=60, trust_env=False) as http:
                self.response = http.send(self.request)
        except httpx.HTTPError as failure:
            self.failure = failure


def test_told_to_stop_it_lets_calls_end_and_answers_what_would_never_end():
    with FakeUpstream().serve() as upstream, gateway_over(upstream) as gateway:
        client = Person(NAME, gateway, Browser(STOPS)).client_of("one")
        with another_node(gateway, server="daphne") as daphne:
            stop_in_the_middle_of_calls(daphne, client, upstream, "daphne")
        stop_in_the_middle_of_calls(gateway, client, upstream, "uvicorn")


def stop_in_the_middle_of_calls(
    node: RunningGateway, client: WireClient, upstream: FakeUpstream, server: str
) -> None:
    begun, ended = (upstream.events.count(f"{what}:hang") for what in ("started", "cancelled"))
    slow = upstream.events.count("started:slow")
    ending = Calling(client, node, "slow", steps=4, pause=0.25)
    endless = Calling(client, node, "hang")
    assert upstream.wait(lambda up: up.events.count("started:hang") > begun)
    assert upstream.wait(lambda up: up.events.count("started:slow") > slow)
    assert node.process is not None
    began = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    within(PATIENCE, lambda: refuses(node))
    ending.join(PATIENCE)
    assert ending.failure is None
    assert '"done"' in ending.response.text
    node.process.wait(2 * PATIENCE)
    took = time.monotonic() - began
    node.process = None
    endless.join(PATIENCE)
    if server == "uvicorn":
        assert endless.response.status_code == 503
        assert "restarted" in endless.response.json()["message"]
    assert endless.failure or endless.response.status_code >= 500
    # Three seconds for calls on a local address; the rest is for a busy machine.
    assert took < 30
    assert upstream.wait(lambda up: up.events.count("cancelled:hang") > ended)


def test_told_to_stop_it_answers_a_call_on_a_kept_connection_and_closes_it():
    with FakeUpstream().serve() as upstream, gateway_over(upstream) as gateway:
        client = Person(NAME, gateway, Browser(STOPS)).client_of("one")
        host = urlsplit(gateway.url).netloc
        calls = []
        for pause in (0, 0, 0, 0.5):
            params = {"name": "slow", "arguments": {"steps": 1, "pause": pause}}
            message = client.body("tools/call", params)
            body = json.dumps(message).encode()
            headers = {**client.headers(message), "Host": host, "Content-Length": len(body)}
            lines = [f"{name}: {value}" for name, value in headers.items()]
            head = "\r\n".join(["POST /v1/mcp/one HTTP/1.1", *lines, "", ""]).encode()
            calls.append(head + body)
        *warming, last = calls
        with RawClient(f"http://127.0.0.1:{host.rpartition(':')[2]}") as kept:
            for call in warming:
                kept.send(call)
                assert kept.answer().getheader("connection") is None
            started = upstream.events.count("started:slow")
            # Its head is known, so that it takes the express lane.
            kept.send(last)
            assert upstream.wait(lambda up: up.events.count("started:slow") > started, 20)
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            answer = kept.answer()
            assert json.loads(answer.body)["result"]["content"][0]["text"] == "done"
            assert kept.socket.recv(1) == b""
        assert upstream.events.count("started:slow") == started + 1
        gateway.process.wait(30)
        gateway.process = None


MAKE_TOKEN = """
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from oauth2_provider.models import get_access_token_model
from oauthserver.models import OAuthClient
from oauthserver.token_values import new_access_token
from upstreams.models import Upstream
from virtualmcp.models import UpstreamChoice, VirtualMcp
UpstreamChoice.objects.create(
    virtual_mcp=VirtualMcp.objects.create(slug="one", title="One", audience="everyone"),
    upstream=Upstream.objects.create(key="x", title="X", url="https://x.gateway.test/mcp"))
ada = User.objects.create_user("ada")
client = OAuthClient.objects.create(
    client_id="client-1", name="A client", client_type="public",
    authorization_grant_type="authorization-code", redirect_uris="https://client.example/callback")
token = new_access_token()
get_access_token_model().objects.create(
    user=ada, application=client, token=token, scope="mcp:tools",
    expires=timezone.now() + timedelta(hours=1), resource=["{resource}"])
print(token)
"""
REVOKE = """
from django.contrib.auth.models import User
from oauthserver.actions import revoke_tokens
revoke_tokens(actor=None, user=User.objects.get(username="ada"))
"""


def workers_of(gateway: RunningGateway) -> dict[int, int]:
    """Return the worker processes and how many sockets each has open."""
    assert gateway.process is not None
    task = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}")
    counted = {}
    for pid in (task / "children").read_text().split():
        counted[int(pid)] = sum(link.startswith("socket:") for link in open_files(int(pid)))
    return counted


def open_files(pid: int) -> list[str]:
    """Return what a process has open; it may close some of it, or end, while this reads."""
    found = []
    with contextlib.suppress(FileNotFoundError, PermissionError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(link))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at processes in /proc")
def test_two_workers_are_one_gateway_and_a_lost_one_is_replaced():
    with production_gateway() as gateway:
        assert "2 workers share one SQLite file" in gateway.log()
        before = workers_of(gateway)
        assert len(before) == 2
        resource = gateway.endpoint("one")
        token = gateway.manage("shell", "-c", MAKE_TOKEN.format(resource=resource)).split()[-1]
        client = WireClient(resource)
        body = client.body("server/discover", {})
        headers = {**client.headers(body), "Authorization": f"Bearer {token}"}
        headers["Host"] = "mcp.gateway.test"
        clients = [httpx.Client(trust_env=False, timeout=PATIENCE) for _ in range(16)]

        def statuses() -> set[int]:
            url = f"{gateway.listening}/v1/mcp/one"
            return {one.post(url, json=body, headers=headers).status_code for one in clients}

        try:
            assert statuses() == {200}
            # The kernel has shared the sixteen connections out between the two.
            after = workers_of(gateway)
            assert all(after[pid] > before[pid] for pid in before)
            gateway.manage("shell", "-c", REVOKE)
            within(TOLD, lambda: statuses() == {401})
            assert gateway.log().count("ended with status") == 0
            # A worker that is killed is replaced; the other one and its connections go on.
            lost, kept = before
            os.kill(lost, signal.SIGKILL)
            within(PATIENCE, lambda: len(set(workers_of(gateway)) - {lost}) == 2)
            assert kept in workers_of(gateway)
            for one in clients:
                one.close()
            with httpx.Client(trust_env=False, timeout=PATIENCE) as http:
                for _ in range(8):
                    got = http.get(f"{gateway.listening}/healthz", headers={"connection": "close"})
                    assert got.status_code == 200
        finally:
            for one in clients:
                one.close()
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(2 * PATIENCE) == 0
        gateway.process = None
        assert "Stopped. Everything is kept" in gateway.log()
        assert "Traceback" not in gateway.log()


def serve_in_production(folder: Path, *options: str, **environment: str) -> str:
    """Return what ``gateway_serve --production`` says when it refuses."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    command = [sys.executable, str(ROOT / "manage.py"), "gateway_serve", "--production"]
    command += ["--data-dir", str(folder), "--port", str(free_port()), *options]
    done = subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


KEYS = {"SECRET_KEY": "k" * 25 + "abcdefghijklmnopqrstuvwxy", "GATEWAY_ENCRYPTION_KEYS": "y" * 44}


def test_production_makes_no_keys_by_the_way(tmp_path):
    said = serve_in_production(tmp_path / "data", "--public-url", "https://mcp.example.com")
    assert "SECRET_KEY and GATEWAY_ENCRYPTION_KEYS are not set" in said
    assert not (tmp_path / "data" / "gateway.env").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs the address people use, with https"),
        ({"public_url": "https://localhost:8443"}, "needs the address people use"),
        ({"public_url": "https://mcp.example.com", "server": "daphne"}, "runs on uvicorn"),
        ({"public_url": "https://mcp.example.com", "workers": 65}, "from 1 to 64"),
    ],
)
def test_production_says_what_is_missing(tmp_path, options, words):
    chosen = {"port": free_port(), "data_dir": str(tmp_path), "production": True, **options}
    with pytest.raises(serving.CannotServe, match=words):
        serving.decide(chosen, KEYS)


def test_production_takes_a_worker_for_each_core_and_no_demo(tmp_path):
    chosen = {"port": free_port(), "data_dir": str(tmp_path), "production": True}
    plan = serving.decide({**chosen, "public_url": "https://mcp.example.com"}, KEYS)
    assert (plan.server, plan.workers, plan.demo) == ("uvicorn", production.cores(), False)
    assert (plan.drain, plan.linger) == (25, 2)


def test_several_workers_are_told_about_their_stores():
    assert production.advice(1, "", "") == ""
    assert "DATABASE_URL" in production.advice(2, "", "")
    assert "REDIS_URL" in production.advice(2, "postgres://x", "")
    assert production.advice(2, "postgres://x", "redis://x") == ""


def refuses(node: RunningGateway) -> bool:
    address = urlsplit(node.listening)
    try:
        socket.create_connection((address.hostname, address.port)).close()
    except ConnectionRefusedError:
        return True
    return False
