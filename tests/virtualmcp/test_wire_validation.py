"""Which era a message belongs to, and what its headers must repeat (protocol.md 2.2, a29)."""

import base64
import json
from typing import Any

import pytest

from tests.virtualmcp.wire_client import META, MODERN, modern_headers, modern_meta
from upstreams.revisions import LEGACY_REVISIONS, SUPPORTED, Era
from virtualmcp.transport.wire_messages import read_message
from virtualmcp.transport.wire_validation import Call, Rejection, classify


def check(
    method: str, params: Any = None, headers: dict[str, str] | None = None, **more: Any
) -> Call | Rejection:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}, **more}
    message = {name: value for name, value in message.items() if value is not None}
    found = {name.encode(): value.encode() for name, value in (headers or {}).items()}
    return classify(found, read_message(json.dumps(message).encode()))


def modern(
    method: str = "tools/list",
    params: dict[str, Any] | None = None,
    *,
    meta: dict[str, Any] | None = None,
    **headers: str | None,
) -> Call | Rejection:
    params = {**(params or {}), "_meta": modern_meta() if meta is None else meta}
    sent: dict[str, Any] = {
        **modern_headers(method, params),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return check(method, params, {name: v for name, v in sent.items() if v is not None})


def refused(found: Call | Rejection, code: int, status: int = 400) -> Rejection:
    assert isinstance(found, Rejection)
    assert (found.code, found.status, found.id) == (code, status, b"1")
    return found


def accepted(found: Call | Rejection) -> Call:
    assert isinstance(found, Call)
    return found


def test_initialize_is_stateful_whatever_the_headers_say():
    for headers in ({}, {"mcp-protocol-version": MODERN}, {"mcp-protocol-version": "9"}):
        call = accepted(check("initialize", {"protocolVersion": MODERN}, headers))
        assert (call.era, call.session) == (Era.LEGACY, b"")


def test_a_stateless_request_brings_its_client_with_it():
    meta = modern_meta(
        **{
            META + "clientCapabilities": {"elicitation": {"url": {}}},
            META + "logLevel": "warning",
            "progressToken": 10**20,
        }
    )
    call = accepted(modern(meta=meta))
    assert call.era is Era.MODERN
    assert call.client is not None
    assert json.loads(call.client.capabilities) == {"elicitation": {"url": {}}}
    assert json.loads(call.client.client_info) == {"name": "wire", "version": "1"}
    assert (call.log_level, call.progress_token) == ("warning", str(10**20).encode())


def test_equal_capabilities_have_one_fingerprint_whatever_their_spelling():
    def fingerprint(capabilities: dict[str, Any]) -> str:
        found = accepted(modern(meta=modern_meta(**{META + "clientCapabilities": capabilities})))
        assert found.client is not None
        return found.client.fingerprint

    one = fingerprint({"a": {}, "b": {"c": 1}})
    assert one == fingerprint({"b": {"c": 1}, "a": {}})
    assert one != fingerprint({"a": {}})


def test_a_stateless_request_ignores_session_and_event_ids():
    call = accepted(modern(mcp_session_id="abc", last_event_id="7"))
    assert (call.era, call.session) == (Era.MODERN, b"")


def test_initialize_as_a_stateless_request_is_a_method_of_that_era():
    assert accepted(modern("initialize")).era is Era.MODERN


@pytest.mark.parametrize("missing", ["mcp-protocol-version", "mcp-method", "mcp-name"])
def test_a_missing_mirrored_header_is_a_mismatch(missing):
    found = modern("tools/call", {"name": "a"}, **{missing: None})
    assert "is missing" in refused(found, -32020).message


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-protocol-version", "9999-01-01"),
        ("mcp-method", "tools/list"),
        ("mcp-method", "Tools/Call"),
        ("mcp-name", "b"),
        ("mcp-name", "A"),
        ("mcp-name", "=?base64?YQ?="),
        ("mcp-name", "=?base64?!!!!?="),
        ("mcp-name", "=?base64?/w==?="),
        ("mcp-name", "=?BASE64?YQ==?="),
        ("mcp-name", "\x7fa"),
    ],
)
def test_a_mirrored_header_that_says_something_else_is_a_mismatch(header, value):
    refused(modern("tools/call", {"name": "a"}, **{header: value}), -32020)


@pytest.mark.parametrize("name", ["a", "é", " a ", "a\r\nx: y", "\x00", "=?base64?YQ==?=", "日本"])
def test_a_name_that_fits_no_header_travels_as_base64(name):
    encoded = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
    call = accepted(modern("tools/call", {"name": name}, mcp_name=encoded))
    assert call.name == name


def test_a_resource_is_named_by_its_uri():
    accepted(modern("resources/read", {"uri": "ui://board"}))
    refused(modern("resources/read", {"uri": "ui://board"}, mcp_name="ui://other"), -32020)


def test_a_header_that_names_what_the_body_does_not_is_a_mismatch():
    refused(modern("tools/call", {}, mcp_name="a"), -32020)
    assert accepted(modern("tools/call", {})).name == ""


def test_parameter_headers_are_handed_on():
    call = accepted(modern("tools/call", {"name": "a"}, mcp_param_region="eu"))
    assert call.param_headers == {"mcp-param-region": "eu"}


@pytest.mark.parametrize(
    "meta",
    [
        {META + "protocolVersion": MODERN},
        {META + "protocolVersion": MODERN, META + "clientCapabilities": []},
        {META + "protocolVersion": 7, META + "clientCapabilities": {}},
        {**modern_meta(), META + "logLevel": "loud"},
        {**modern_meta(), META + "logLevel": 3},
        {**modern_meta(), "progressToken": 1.5},
        {**modern_meta(), "progressToken": {}},
        {META + "clientCapabilities": {}},
        {},
    ],
)
def test_a_stateless_request_with_incomplete_meta_has_invalid_params(meta):
    refused(modern(meta=meta), -32602)


def test_a_client_need_not_say_its_name():
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
    assert accepted(modern(meta=meta)).client.client_info == b""


@pytest.mark.parametrize(
    "found",
    [
        check("tools/list", None, {"mcp-protocol-version": "9999-01-01"}),
        check("tools/list", None, {"mcp-protocol-version": "9999-01-01", "mcp-session-id": "x"}),
        modern(
            meta=modern_meta(**{META + "protocolVersion": "9999-01-01"}),
            mcp_protocol_version="9999-01-01",
        ),
    ],
)
def test_an_unknown_revision_is_answered_with_the_known_ones(found):
    data = json.loads(refused(found, -32022).data)
    assert data == {"supported": list(SUPPORTED), "requested": "9999-01-01"}


@pytest.mark.parametrize("revision", [*LEGACY_REVISIONS, "2024-11-05", None])
def test_a_session_id_makes_a_request_stateful(revision):
    headers = {"mcp-session-id": "abc"} | ({"mcp-protocol-version": revision} if revision else {})
    call = accepted(check("tools/list", {"_meta": {"progressToken": "t"}}, headers))
    assert (call.era, call.session, call.progress_token) == (Era.LEGACY, b"abc", b'"t"')


@pytest.mark.parametrize("headers", [{}, {"mcp-protocol-version": "2025-11-25"}])
def test_a_stateful_request_without_session_is_told_to_open_one(headers):
    assert "initialize" in refused(check("tools/list", None, headers), -32600).message


def test_a_stateless_client_sends_no_responses_and_its_notifications_need_no_meta():
    headers = {b"mcp-protocol-version": MODERN.encode()}
    answer = read_message(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    refused(classify(headers, answer), -32600)
    notice = read_message(b'{"jsonrpc":"2.0","method":"notifications/cancelled"}')
    assert accepted(classify(headers, notice)).era is Era.MODERN
