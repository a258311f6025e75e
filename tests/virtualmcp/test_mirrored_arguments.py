"""Arguments repeated in Mcp-Param-* headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualmcp.mirrored_arguments import (
    AnnotationInvalid,
    annotations,
    decode,
    encode,
    headers_for,
    mismatch,
    unrecognised,
)


def schema(**properties):
    return {"type": "object", "properties": properties}


def on(kind, token):
    return {"type": kind, "x-mcp-header": token}


GOOD = annotations(
    schema(
        region=on("string", "Region"),
        count=on("integer", "Count"),
        dry=on("boolean", "Dry"),
        deep=schema(inner=on("string", "Inner")),
    )
)


@given(st.text())
def test_values_survive_the_header_form(value):
    header = encode(value)
    assert decode(header) == value
    assert header.isascii() and header.isprintable()


def test_headers_repeat_what_is_there_and_nothing_else():
    arguments = {"region": "é", "count": 7, "dry": True, "deep": {"inner": "x"}, "more": 1}
    assert dict(headers_for(GOOD, arguments)) == {
        "Mcp-Param-Region": "=?base64?w6k=?=",
        "Mcp-Param-Count": "7",
        "Mcp-Param-Dry": "true",
        "Mcp-Param-Inner": "x",
    }
    assert headers_for(GOOD, {"region": None, "deep": 7}) == ()


@pytest.mark.parametrize(
    ("arguments", "headers", "wrong"),
    [
        ({"region": "eu"}, {"mcp-param-region": "eu"}, ""),
        ({"region": "eu"}, {"MCP-PARAM-REGION": "=?base64?ZXU=?="}, ""),
        ({"region": "eu"}, {}, "Mcp-Param-Region"),
        ({}, {"mcp-param-region": "eu"}, "Mcp-Param-Region"),
        ({"region": "eu"}, {"mcp-param-region": "EU"}, "Mcp-Param-Region"),
        ({"region": "eu"}, {"mcp-param-region": "=?base64?broken?="}, "Mcp-Param-Region"),
        ({"count": 7}, {"mcp-param-count": "7.0"}, ""),
        ({"count": 7}, {"mcp-param-count": "07"}, ""),
        ({"count": 7}, {"mcp-param-count": "8"}, "Mcp-Param-Count"),
        ({"count": 7}, {"mcp-param-count": "x"}, "Mcp-Param-Count"),
        ({"dry": False}, {"mcp-param-dry": "false"}, ""),
        ({"dry": False}, {"mcp-param-dry": "0"}, "Mcp-Param-Dry"),
        ({}, {}, ""),
    ],
)
def test_the_first_header_that_does_not_repeat_its_argument_is_named(arguments, headers, wrong):
    assert mismatch(GOOD, arguments, headers) == wrong


def test_what_the_schema_does_not_name_is_told_apart():
    headers = {"Mcp-Param-Region": "eu", "Mcp-Param-Other": "x"}
    assert unrecognised(GOOD, headers) == (("Mcp-Param-Other", "x"),)


@pytest.mark.parametrize(
    "bad",
    [
        on("object", "X"),
        schema(a=on("number", "A")),
        schema(a=on("string", "")),
        schema(a=on("string", "a b")),
        schema(a=on("string", 7)),
        schema(a=on("string", "A"), b=on("string", "a")),
        schema(a={"items": on("string", "A")}),
        {"anyOf": [schema(a=on("string", "A"))]},
        {"$defs": {"d": on("string", "A")}},
        {"patternProperties": {"x": on("string", "A")}},
    ],
)
def test_annotations_where_they_must_not_be_are_refused(bad):
    with pytest.raises(AnnotationInvalid):
        annotations(bad)


def test_data_that_looks_like_an_annotation_is_none():
    assert annotations(schema(a={"type": "string", "default": {"x-mcp-header": "A"}})) == ()
    assert annotations({"$ref": "http://169.254.169.254/x"}) == ()
    assert annotations(None) == ()
