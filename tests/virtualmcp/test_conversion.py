"""Results in the form of the client's revision, and their bytes where nothing has to change."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstreams.revisions import Era
from virtualmcp.eras import conversion
from virtualmcp.eras.conversion import to_legacy, to_modern, tool_for
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing.client_request import Answer

INFO = b'{"name":"team"}'
SERVER_INFO = "io.modelcontextprotocol/serverInfo"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
RESULTS = st.dictionaries(st.text(max_size=8), JSON, max_size=5)
OWN = {"resultType", "_meta", "ttlMs", "cacheScope"}


def modern(raw, method="tools/call", modern_upstream=True):
    head = conversion.read_head(raw)
    result, front = to_modern(raw, method, head, modern_upstream=modern_upstream, server_info=INFO)
    return Answer(result=result, front=front).whole()


def legacy(raw, method="tools/call", revision="2025-11-25", modern_upstream=True):
    head = conversion.read_head(raw)
    return to_legacy(raw, method, head, revision=revision, modern_upstream=modern_upstream)


@given(RESULTS, st.booleans())
def test_going_up_adds_only_what_is_the_gateways(result, modern_upstream):
    result.pop("resultType", None)
    up = json.loads(modern(json.dumps(result).encode(), modern_upstream=modern_upstream))
    assert up["resultType"] == "complete"
    assert up["_meta"][SERVER_INFO] == {"name": "team"}
    assert {k: v for k, v in up.items() if k not in OWN} == {
        k: v for k, v in result.items() if k not in OWN
    }


@given(RESULTS)
def test_going_up_and_down_again_is_where_it_began(result):
    for name in OWN:
        result.pop(name, None)
    raw = json.dumps(result).encode()
    assert json.loads(legacy(modern(raw))) == result


@given(RESULTS)
def test_between_stateful_sides_the_bytes_are_the_same(result):
    raw = json.dumps(result).encode()
    assert legacy(raw, modern_upstream=False) is raw


def test_added_members_are_spliced_in_front_of_untouched_bytes():
    raw = b'{ "content":[],  "big":36893488147419103232,"d":1.50 }'
    up = modern(raw)
    assert up.endswith(raw[1:])
    assert json.loads(modern(b"{}"))["resultType"] == "complete"
    assert json.loads(modern(b" { } "))["resultType"] == "complete"


def test_an_upstreams_signature_is_replaced_and_its_other_meta_keys_stay():
    raw = b'{"resultType":"complete","_meta":{"%s":{"name":"up"},"x":1e2}}' % SERVER_INFO.encode()
    assert b'"x":1e2' in modern(raw)
    assert b'"up"' not in modern(raw)
    assert json.loads(legacy(raw)) == {"_meta": {"x": 100.0}}
    bare = b'{"content":[],"_meta":{"%s":{"name":"up"}}}' % SERVER_INFO.encode()
    assert json.loads(legacy(bare)) == {"content": []}


@pytest.mark.parametrize(
    ("hints", "ttl"),
    [
        ({}, 0),
        ({"ttlMs": 5, "cacheScope": "private"}, 5),
        ({"ttlMs": 5, "cacheScope": "public"}, 5),
        ({"ttlMs": -1, "cacheScope": "private"}, 0),
        ({"ttlMs": 10**15, "cacheScope": "private"}, conversion.LONGEST_TTL),
        ({"ttlMs": "x"}, 0),
        ({"ttlMs": 1.5}, 0),
        ({"cacheScope": "private"}, 0),
    ],
)
def test_what_was_read_is_private_and_its_lifetime_within_bounds(hints, ttl):
    raw = json.dumps({"contents": [], **hints}).encode()
    up = json.loads(modern(raw, "resources/read"))
    assert (up["ttlMs"], up["cacheScope"]) == (ttl, "private")
    assert "ttlMs" not in json.loads(modern(b'{"content":[]}'))


@pytest.mark.parametrize("value", [[1, 2], "text", 7, None, True])
def test_structured_content_that_is_no_object_becomes_text_for_stateful_clients(value):
    raw = json.dumps({"content": [], "structuredContent": value}).encode()
    down = json.loads(legacy(raw))
    assert "structuredContent" not in down
    assert json.loads(down["content"][0]["text"]) == value
    # A server that says it as text already is not doubled; other words do not stand for it.
    own = {"type": "text", "text": json.dumps(value, indent=2)}
    with_text = {"content": [own], "structuredContent": value}
    assert json.loads(legacy(json.dumps(with_text).encode()))["content"] == [own]
    summary = {"type": "text", "text": "In a word: fine."}
    with_text["content"] = [summary]
    down = json.loads(legacy(json.dumps(with_text).encode()))["content"]
    assert down[0] == summary
    assert json.loads(down[1]["text"]) == value


def test_structured_content_that_is_an_object_stays():
    raw = b'{"content":[],"structuredContent":{"a":[1, 2]}}'
    assert legacy(raw) == raw


def test_types_a_client_does_not_know_become_text():
    link = {"type": "resource_link", "uri": "x:1", "name": "One"}
    audio = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}
    raw = json.dumps({"content": [link, audio]}).encode()
    assert legacy(raw, revision="2025-06-18", modern_upstream=False) is raw
    old = json.loads(legacy(raw, revision="2025-03-26", modern_upstream=False))["content"]
    assert old == [{"type": "text", "text": "One: x:1"}, audio]
    oldest = json.loads(legacy(raw, revision="2024-11-05", modern_upstream=False))["content"]
    assert [block["type"] for block in oldest] == ["text", "text"]
    prompt = json.dumps({"messages": [{"role": "user", "content": link}]}).encode()
    message = json.loads(legacy(prompt, "prompts/get", revision="2025-03-26"))["messages"][0]
    assert message == {"role": "user", "content": {"type": "text", "text": "One: x:1"}}


@pytest.mark.parametrize("raw", [b"[]", b"null", b"7", b'"x"', b"{", b"[" * 2000])
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(NotAnObject):
        modern(raw)
    with pytest.raises(NotAnObject):
        conversion.read_head(raw)


def test_an_absent_type_is_complete_and_others_are_told():
    assert conversion.read_head(b'{"content":[]}').kind == "complete"
    assert conversion.read_head(b'{"resultType":"task"}').kind == "task"
    assert conversion.read_head(b'{"resultType":7}').kind == ""


def test_only_output_schemas_that_are_no_objects_are_dropped():
    good = b'{"name":"a","outputSchema":{"type":"object"}}'
    bad = b'{"name":"a","outputSchema":{"type":"array"},"x":1e2}'
    assert tool_for(Era.LEGACY, good, modern_upstream=True) is good
    assert tool_for(Era.MODERN, bad, modern_upstream=True) is bad
    assert tool_for(Era.LEGACY, bad, modern_upstream=True) == b'{"name":"a","x":1e2}'
