"""URIs inside results: mapped in every place that names one, and nowhere else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstreams.result_heads import read_head
from virtualmcp.listed_entries import Kind
from virtualmcp.resource_uris import to_upstream
from virtualmcp.result_mapping import ResultMapping

URIS = st.sampled_from(["ui://a/b", "file:///x", "notes://{n}", "x", "a+b:c", "UI://x"])
APP = {"ui": {"resourceUri": "ui://x", "visibility": ["app"]}, "ui/resourceUri": "ui://x"}


def mapped(method, value, key="k", **more):
    raw = json.dumps(value).encode()
    return json.loads(getattr(ResultMapping(key), method)(raw, **more))


@given(URIS, URIS)
def test_links_and_embedded_resources_map_back_to_what_they_were(link, embedded):
    content = [
        {"type": "resource_link", "uri": link, "name": "n"},
        {"type": "resource", "resource": {"uri": embedded, "text": link}},
        {"type": "text", "text": link},
    ]
    result = mapped("call_result", {"content": content, "structuredContent": {"uri": link}})
    assert to_upstream(result["content"][0]["uri"]).uri == link
    assert to_upstream(result["content"][1]["resource"]["uri"]).uri == embedded
    assert result["content"][1]["resource"]["text"] == link
    assert result["content"][2] == content[2]
    assert result["structuredContent"] == {"uri": link}


def test_nothing_to_map_gives_the_very_same_bytes():
    raw = b'{"content":[{"type":"text","text":"a"}], "x":36893488147419103232}'
    assert ResultMapping("k").call_result(raw) is raw
    assert ResultMapping("k").prompt_result(raw) is raw
    assert ResultMapping("").read_result(raw, asked="a:b", read="a:b") is raw
    tricky = b'{"content":[{"type":"text","text":"a \\"resource\\" and \\"domain\\""}]}'
    assert ResultMapping("k").call_result(tricky) is tricky
    transparent = b'{"content":[{"type":"resource_link","uri":"x:1"}]}'
    assert ResultMapping("").call_result(transparent) is transparent


def test_unknown_members_and_exact_numbers_beside_a_mapped_uri_survive():
    raw = (
        b'{"vendor":[1, 2],"content":[{"big":36893488147419103232,"type":"resource_link",'
        b'"uri":"x:1","long":0.1234567890123456789,"none":null}]}'
    )
    after = ResultMapping("k").call_result(raw)
    assert after == raw.replace(b'"x:1"', b'"k+x:1"')


def test_app_references_of_a_result_and_of_tools_agree():
    meta = {**APP, "openai/outputTemplate": "ui://x", "openai/widgetDescription": "ui://x"}
    result = mapped("call_result", {"content": [], "_meta": meta})["_meta"]
    tool = json.loads(
        ResultMapping("k").entry(Kind.TOOLS, json.dumps({"name": "a", "_meta": meta}).encode())
    )["_meta"]
    assert result == tool
    assert result["ui"] == {"resourceUri": "ui://k+x", "visibility": ["app"]}
    assert result["ui/resourceUri"] == result["openai/outputTemplate"] == "ui://k+x"
    assert result["openai/widgetDescription"] == "ui://x"


def test_prompts_questions_and_notices_are_mapped():
    link = {"type": "resource_link", "uri": "x:1", "name": "n"}
    messages = [{"role": "user", "content": link}, {"role": "user", "content": [link]}]
    found = mapped("prompt_result", {"messages": messages})["messages"]
    assert found[0]["content"]["uri"] == found[1]["content"][0]["uri"] == "k+x:1"
    sampling = mapped("question", {"messages": messages, "maxTokens": 1})
    assert sampling["messages"][0]["content"]["uri"] == "k+x:1"
    asked = mapped("question", {"message": "Who?", "mode": "form"}, asker="GitHub")
    assert asked["message"] == "[GitHub] Who?"
    assert mapped("updated", {"uri": "x:1"}) == {"uri": "k+x:1"}


def test_a_completion_has_no_more_values_than_a_client_takes():
    for count, more in ((100, False), (101, True), (5_000, True)):
        values = [f"v,{number}" for number in range(count)]
        said = {"completion": {"values": values, "total": count, "hasMore": False, "vendor": 1}}
        found = mapped("completion", said)["completion"]
        assert found == {**said["completion"], "values": values[:100], "hasMore": more}
    odd = {"completion": {"values": [[]] * 200}}
    assert len(mapped("completion", odd)["completion"]["values"]) == 100
    for odd in ({"completion": {}}, {"completion": [1] * 200}, {"values": [1] * 200}):
        assert mapped("completion", odd) == odd


def test_what_was_read_comes_back_under_the_uri_that_was_asked_for():
    contents = [{"uri": "x:1", "text": "t"}, {"uri": "x:1/sub", "text": "s"}]
    found = mapped("read_result", {"contents": contents}, asked="x:1", read="x:1")
    assert [c["uri"] for c in found["contents"]] == ["x:1", "k+x:1/sub"]
    found = mapped("read_result", {"contents": contents}, asked="k+x:1", read="x:1")
    assert [c["uri"] for c in found["contents"]] == ["k+x:1", "k+x:1/sub"]


VALUES = st.none() | st.integers() | st.text(max_size=4) | st.just({"domain": "d"})
CONTENTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "uri": st.sampled_from(["x:1", "ui://x", "https://a.example/b", "k+x:1", 7]),
            "text": st.sampled_from(['"domain"', "x:1", '","uri":"x:1"', "é"]),
            "_meta": VALUES | st.sampled_from([APP, {"ui": {"domain": "d", "x": 2**70}}]),
            'uri"': VALUES,
        },
    ),
    max_size=3,
)


@given(CONTENTS, st.sampled_from(["", "k"]), st.sampled_from(["x:1", "k+x:1"]), st.booleans())
def test_a_resource_is_mapped_alike_whether_its_members_are_known_already(
    contents, key, asked, spaced
):
    separators = (" , ", " : ") if spaced else (",", ":")
    result = {"ttlMs": 2**70, "contents": contents, "vendor": "x:1"}
    raw = json.dumps(result, separators=separators).encode()
    head = read_head(raw)
    assert head is not None and head.read is not None
    known, unknown = ResultMapping(key), ResultMapping(key)
    after = known.read_result(raw, head.read, asked=asked, read="x:1")
    assert json.loads(after) == json.loads(unknown.read_result(raw, asked=asked, read="x:1"))
    assert known.web == unknown.web


def test_the_domain_of_an_app_goes_also_in_a_transparent_server():
    content = {"uri": "ui://x", "text": "", "_meta": {"ui": {"domain": "d", "csp": {"a": []}}}}
    found = mapped("read_result", {"contents": [content]}, key="", asked="ui://x", read="ui://x")
    assert found["contents"][0]["_meta"] == {"ui": {"csp": {"a": []}}}


# What Claude's documentation gives for https://example.com/mcp.
CLAUDE = "c3d80a4ed901ee05b21755a88273b4a4.claudemcpcontent.com"


@pytest.mark.parametrize(
    ("given", "address", "domain"),
    [
        (f"{'0' * 32}.claudemcpcontent.com", "https://example.com/mcp", CLAUDE),
        (f"{'0' * 32}.claudemcpcontent.com", "", None),
        # ChatGPT's form is an origin of the maker's choice; nobody may choose it for others here.
        ("https://board.example", "https://example.com/mcp", None),
        (7, "https://example.com/mcp", None),
    ],
)
def test_the_domain_of_an_app_is_made_anew_in_the_form_that_is_reckoned_from_the_address(
    given, address, domain
):
    settings = {"domain": given, "csp": {"a": []}, "prefersBorder": True, "x": 2**70}
    content = {"uri": "ui://x", "text": '{"domain": "d"}', "_meta": {"ui": settings}}
    raw = json.dumps({"contents": [content]}).encode()
    mapping = ResultMapping("", address)
    (found,) = json.loads(mapping.read_result(raw, asked="ui://x", read="ui://x"))["contents"]
    assert found["_meta"]["ui"].pop("domain", None) == domain
    del settings["domain"]
    assert found == content


def test_icons_of_links_in_results_are_the_gateways_too():
    icons = [{"src": "https://cdn.example/i.png"}, {"src": "http://cdn.example/i.png"}]
    link = {"type": "resource_link", "uri": "x:1", "icons": icons}
    raw = json.dumps({"content": [link]}).encode()
    own = ResultMapping("k", icon_address=lambda source: f"https://gw.example/{len(source)}")
    (found,) = json.loads(own.call_result(raw))["content"]
    assert found["icons"] == [{"src": "https://gw.example/25"}]
    assert ResultMapping("").call_result(raw) is raw


def test_https_uris_stay_and_are_remembered():
    mapping = ResultMapping("k")
    raw = b'{"content":[{"type":"resource_link","uri":"https://example.com/a"}]}'
    assert mapping.call_result(raw) is raw
    assert mapping.web == ["https://example.com/a"]


def test_members_of_the_wrong_type_are_left_alone():
    for value in (
        {"content": "resource"},
        {"content": [1, None, {"type": "resource", "resource": 7}, {"type": "resource_link"}]},
        {"content": [{"type": "resource_link", "uri": 7}], "_meta": []},
    ):
        assert mapped("call_result", value) == value
