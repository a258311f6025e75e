"""The control plane's HTTP (security.md #142, #143, #158; protocol.md 5.4)."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.asgi_server import authority, serve
from tests.fakes.authorization_server import Fault, reply
from tests.patience import PATIENCE
from upstreams import egress_guard, http_client
from upstreams.egress_guard import EgressRules
from upstreams.errors import (
    EgressRefused,
    UpstreamAnswerInvalid,
    UpstreamTimeout,
    UpstreamUnreachable,
)

LOOPBACK = EgressRules(allow_loopback=True)


@contextmanager
def answering(*faults: Fault, tls: bool = False) -> Iterator[tuple[str, list[dict]]]:
    seen: list[dict] = []

    async def app(scope, receive, send) -> None:
        headers = [(key.decode(), value.decode()) for key, value in scope["headers"]]
        seen.append({"path": scope["path"], "headers": headers})
        await reply(send, faults[min(len(seen), len(faults)) - 1])

    with serve(app, tls=tls) as origin:
        yield origin, seen


def good(**headers: str) -> Fault:
    return Fault(body=b'{"a": 1}', headers=tuple(headers.items()))


async def test_a_document_is_fetched_without_cookies_encodings_or_proxies(monkeypatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering(good(**{"set-cookie": "a=b"}), good()) as (origin, seen):
        for _ in range(2):
            answer = await http_client.get(f"{origin}/x", rules=LOOPBACK)
            assert answer.json_object() == {"a": 1}
    sent = dict(seen[1]["headers"])
    assert sent["accept-encoding"] == "identity"
    assert "cookie" not in sent
    assert sent["host"] == origin.removeprefix("http://")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    with answering(Fault(status, headers=(("location", "/elsewhere"),))) as (origin, seen):
        assert (await http_client.get(origin + "/", rules=LOOPBACK)).status == status
        assert [request["path"] for request in seen] == ["/"]


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "gzip, identity", "x"])
async def test_encoded_answers_are_refused(coding: str) -> None:
    body = gzip.compress(b"0" * 10_000_000)
    with (
        answering(Fault(body=body, headers=(("content-encoding", coding),))) as (origin, _),
        pytest.raises(UpstreamAnswerInvalid),
    ):
        await http_client.get(origin + "/", rules=LOOPBACK)


@pytest.mark.parametrize("size", [65_536, 65_537, 6_553_600])
async def test_answers_end_at_64_kilobytes(size: int) -> None:
    with answering(Fault(body=b" " * size)) as (origin, _):
        if size <= 65_536:
            assert len((await http_client.get(origin + "/", rules=LOOPBACK)).body) == size
        else:
            with pytest.raises(UpstreamAnswerInvalid):
                await http_client.get(origin + "/", rules=LOOPBACK)


async def test_a_dripping_answer_ends_at_the_total_time() -> None:
    with answering(Fault(body=b"x" * 1_000, drip_seconds=0.05)) as (origin, _):
        begun = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            await http_client.fetch("GET", origin + "/", rules=LOOPBACK, total_seconds=0.4)
        assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "body",
    [
        b"[1]",
        b"",
        b"<html>",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xff"}',
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b"[" * 60_000,
        b'{"a":1} x',
    ],
)
async def test_documents_that_two_programs_could_read_differently_are_refused(body: bytes) -> None:
    with answering(Fault(body=body)) as (origin, _):
        answer = await http_client.get(origin + "/", rules=LOOPBACK)
        with pytest.raises(UpstreamAnswerInvalid):
            answer.json_object()


async def test_a_web_page_is_not_a_document() -> None:
    with answering(Fault(body=b'{"a": 1}', content_type="text/html")) as (origin, _):
        answer = await http_client.get(origin + "/", rules=LOOPBACK)
        with pytest.raises(UpstreamAnswerInvalid):
            answer.json_object()


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_answers_that_are_not_http_are_refused(raw: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve_once() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(raw)
        connection.close()

    thread = threading.Thread(target=serve_once, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with pytest.raises(UpstreamAnswerInvalid):
        await http_client.get(url, rules=LOOPBACK)
    thread.join(PATIENCE)
    listener.close()


async def test_the_connection_goes_to_the_checked_address_and_the_name_stays(
    monkeypatch, settings
) -> None:
    settings.GATEWAY_EXTRA_CA_BUNDLE = str(authority().ca_file)
    egress_guard.forget_names()
    asked: list[str] = []

    def look_up(host: str, port: int) -> tuple[str, ...]:
        asked.append(host)
        return ("127.0.0.1",) if len(asked) == 1 else ("10.0.0.1",)

    monkeypatch.setattr(egress_guard, "_look_up", look_up)
    with answering(good(), tls=True) as (origin, seen):
        port = origin.rsplit(":", 1)[1]
        answer = await http_client.get(f"https://chatgpt.test:{port}/x", rules=LOOPBACK)
    assert answer.status == 200
    assert dict(seen[0]["headers"])["host"] == f"chatgpt.test:{port}"
    assert asked == ["chatgpt.test"]


async def test_the_certificate_must_be_for_the_name(monkeypatch, settings) -> None:
    settings.GATEWAY_EXTRA_CA_BUNDLE = str(authority().ca_file)
    monkeypatch.setattr(egress_guard, "_look_up", lambda host, port: ("127.0.0.1",))
    with answering(good(), tls=True) as (origin, seen):
        port = origin.rsplit(":", 1)[1]
        with pytest.raises(UpstreamUnreachable) as error:
            await http_client.get(f"https://other.example:{port}/", rules=LOOPBACK)
    assert not seen
    assert "other.example" not in error.value.message
    egress_guard.forget_names()


async def test_an_unknown_authority_is_refused() -> None:
    with answering(good(), tls=True) as (origin, seen), pytest.raises(UpstreamUnreachable):
        await http_client.get(f"{origin}/", rules=LOOPBACK)
    assert not seen


async def test_the_next_checked_address_is_tried(monkeypatch) -> None:
    egress_guard.forget_names()
    monkeypatch.setattr(egress_guard, "_look_up", lambda host, port: ("127.0.0.9", "127.0.0.1"))
    with answering(good()) as (origin, _):
        port = origin.rsplit(":", 1)[1]
        answer = await http_client.get(f"http://two.test:{port}/", rules=LOOPBACK)
    assert answer.status == 200
    egress_guard.forget_names()


async def test_special_addresses_get_no_connection(settings) -> None:
    with answering(good()) as (origin, seen):
        with pytest.raises(EgressRefused):
            await http_client.get(f"{origin}/", rules=EgressRules())
        assert not seen


async def test_a_form_travels_as_a_form() -> None:
    bodies: list[bytes] = []

    async def app(scope, receive, send) -> None:
        bodies.append((await receive())["body"])
        await reply(send, Fault(body=json.dumps({}).encode()))

    with serve(app) as origin:
        await http_client.post_form(f"{origin}/t", {"a": "b c&d", "é": "="}, rules=LOOPBACK)
    assert bodies == [b"a=b+c%26d&%C3%A9=%3D"]
