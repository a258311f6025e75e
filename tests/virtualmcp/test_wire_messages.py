"""Reading one JSON-RPC message: what survives, and what is refused."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualmcp.transport.wire_messages import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    LONGEST_ID,
    MOST_IN_BATCH,
    PARSE_ERROR,
    MalformedMessage,
    is_batch,
    read_batch,
    read_message,
)


def request(id: str = "1", method: str = '"tools/call"', params: str = "{}") -> bytes:
    return f'{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}'.encode()


def refusal(body: bytes) -> MalformedMessage:
    with pytest.raises(MalformedMessage) as caught:
        read_message(body)
    return caught.value


@pytest.mark.parametrize(
    "id", ["1", "-7", "0", '"a"', '""', '"\\u00e9\\n"', str(2**53 + 1), str(10**25), '"é"']
)
def test_an_id_is_kept_byte_for_byte(id):
    assert read_message(request(id)).id == id.encode()


@pytest.mark.parametrize("id", ["null", "1.5", "1e3", "{}", "[]", "true", '"' + "a" * 1100 + '"'])
def test_an_id_that_is_no_string_or_integer_is_refused(id):
    fault = refusal(request(id))
    assert (fault.code, fault.id) == (INVALID_REQUEST, b"null")
    assert str(LONGEST_ID) in fault.message


def test_params_and_unknown_members_stay_as_they_were_written():
    params = '{"arguments":{"n": 18446744073709551617 ,"x":1.0},"vendor":null}'
    message = read_message(request(params=params))
    assert message.params == params.encode()
    assert bytes(message.members["vendor"]) == b"null"


def test_what_is_remembered_of_a_client_keeps_no_request_alive():
    def meta(name):
        return f'"_meta":{{"client":"{name}"}}'

    long = "x" * 100_000
    read_message(request(params=f"{{{meta('first')}}}"))
    tracemalloc.start()
    try:
        kept = [
            read_message(request(params=f'{{"long":"{long}",{meta(n)}}}')).meta for n in range(30)
        ]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [bytes(one["client"]) for one in kept] == [b'"%d"' % n for n in range(30)]
    assert held < len(long)


def test_a_message_without_id_is_a_notification():
    message = read_message(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
    assert (message.id, message.params, message.response) == (b"", b"", b"")


def test_a_message_with_a_result_is_a_response():
    body = b'{"jsonrpc":"2.0","id":"q","result":{"x":1}}'
    assert read_message(body).response == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"a"},"params":{"name":"b"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","id":1234}',
        b'{"jsonrpc":"2.0","method":"a","params":{},"x":1,"x":1}',
        b'{ "jsonrpc" : "2.0" , "id" : 1 , "method" : "a" , "\\u0069d" : 2 }',
        request(params='{"name":"a","name":"b"}'),
        request(params='{"name": "a", "n\\u0061me": "b"}'),
        request(params='{"arguments":{"x":1,"x":2}}'),
        request(params='{"_meta":{"a":1,"a":2}}'),
        request(params='{"a":"' + "x" * 200 + '","a":"' + "x" * 200 + '"}'),
    ],
)
def test_a_member_that_occurs_twice_is_refused(body):
    assert refusal(body).code == INVALID_REQUEST


def test_the_same_name_on_two_levels_is_no_repetition():
    assert read_message(request(params='{"name":"a","arguments":{"name":"b"}}')).id == b"1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xef\xbb\xbf" + request(),
        request(params='{"a":"\xff"}').replace(b"\xc3\xbf", b"\xff"),
        request(params='{"a":NaN}'),
        request(params='{"a":01}'),
        request() + b"x",
        b"<html></html>",
        request(params='{"a":' + "[" * 63 + "]" * 63 + "}"),
        request(params="[" * 1_000),
        b"[" * 100_000,
        request(params='{"a":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}"),
    ],
)
def test_what_is_not_json_or_too_deep_is_a_parse_error(body):
    assert refusal(body).code == PARSE_ERROR


def test_depth_up_to_the_limit_is_read_and_brackets_in_strings_do_not_count():
    assert read_message(request(params='{"a":' + "[" * 62 + "]" * 62 + "}"))
    assert read_message(request(params='{"a":"' + '[{\\"' * 500 + '"}'))
    assert read_message(request(params='{"a":[' + ",".join(["{}"] * 20_000) + "]}"))


def test_a_value_that_looks_like_a_name_or_another_value_is_no_repetition():
    text = '"' + "x" * 100 + '"'
    numbers = "[" + "1," * 50 + "1]"
    params = f'{{  {text}: 1, "b": {text}, "c": {numbers}, "d": "{numbers}", "e": {numbers} }}'
    assert len(read_message(request(params=params)).members) == 5


def test_ten_thousand_members_are_read():
    many = json.dumps({f"k{n}": n for n in range(10_000)})
    assert len(read_message(request(params=many)).members) == 10_000


@pytest.mark.parametrize(
    "body",
    [
        b"1",
        b'"text"',
        b"{}",
        b'{"jsonrpc":"1.0","id":1,"method":"a"}',
        b'{"id":1,"method":"a"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":1,"method":""}',
        b'{"jsonrpc":"2.0","id":1,"method":"a","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
        b'{"jsonrpc":"2.0","result":{}}',
    ],
)
def test_json_that_is_no_json_rpc_message_is_an_invalid_request(body):
    assert refusal(body).code == INVALID_REQUEST


def test_a_refusal_names_the_request_when_its_id_was_readable():
    assert refusal(b'{"jsonrpc":"2.0","id":"r","method":7}').id == b'"r"'
    assert refusal(request(id='"r"', params='{"a":1,"a":1}')).id == b'"r"'


@pytest.mark.parametrize("params", ["[]", "7", '"x"'])
def test_params_must_be_an_object(params):
    assert refusal(request(params=params)).code == INVALID_PARAMS


def test_null_params_are_none():
    assert read_message(request(params="null")).params == b""


def test_a_batch_is_split_and_bounded():
    assert is_batch(b" \r\n[1]")
    assert not is_batch(b'{"a":[1]}')
    assert read_batch(b'[{"a":1}, 2]') == [b'{"a":1}', b"2"]
    for body in (b"[]", b"[" + b",".join([b"1"] * (MOST_IN_BATCH + 1)) + b"]"):
        with pytest.raises(MalformedMessage) as caught:
            read_batch(body)
        assert caught.value.code == INVALID_REQUEST


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=6), json_values, max_size=5),
    st.booleans(),
    st.booleans(),
    st.text(max_size=10) | st.integers(),
)
def test_whatever_a_client_writes_is_read_alike_in_every_spelling(params, spaced, ascii_only, id):
    for member in ("_meta", "arguments"):
        if not isinstance(params.get(member, {}), dict):
            del params[member]
    separators = (", ", ": ") if spaced else (",", ":")
    body = json.dumps(
        {"jsonrpc": "2.0", "id": id, "method": "m", "params": params},
        separators=separators,
        ensure_ascii=ascii_only,
    )
    message = read_message(body.encode())
    assert json.loads(message.id) == id
    assert json.loads(message.params or b"{}") == params
    assert {name: json.loads(bytes(raw)) for name, raw in message.members.items()} == params
