"""Cutting a result out of a plainly written response, and never out of anything else."""

import json

import pytest

from upstreams.result_heads import cut_out, read_head

ID = "ab12-7"
RESULT = b'{"resultType":"complete","content":[{"type":"text","text":"caf\xc3\xa9 } , {"}]}'
FIRST = b'{"jsonrpc":"2.0","id":"ab12-7","result":'
LAST = b',"jsonrpc":"2.0","id":"ab12-7"}'


@pytest.mark.parametrize("message", [FIRST + RESULT + b"}", b'{"result":' + RESULT + LAST])
def test_a_plain_response_gives_its_result_byte_for_byte(message):
    cut = cut_out(message, ID)
    assert cut is not None
    assert cut[0] == RESULT
    assert cut[1].kind == "complete"
    assert json.loads(message)["result"] == json.loads(cut[0])


@pytest.mark.parametrize(
    "message",
    [
        FIRST + RESULT + b',"error":{"code":1,"message":"x"}}',
        FIRST + RESULT + b',"result":{"other":1}}',
        FIRST + RESULT + b',"id":"somebody else"}',
        FIRST + RESULT,
        FIRST + b'{"a":1}}trailing}',
        FIRST + b'{"a":"\xff"}}',
        FIRST + b'["a"]}',
        FIRST.replace(b"ab12-7", b"ab12-8") + RESULT + b"}",
        b'{"result":' + RESULT + b',"error":{}' + LAST,
        b'{"result":{"a":1' + LAST,
        b'{"jsonrpc":"2.0", "id":"ab12-7", "result":' + RESULT + b"}",
        b"",
    ],
)
def test_whatever_else_it_is_has_to_be_read_in_full(message):
    assert cut_out(message, ID) is None


@pytest.mark.parametrize(
    ("result", "plain"),
    [
        (b'{"content":[{"type":"text","text":"a"},{"type":"image","data":""}]}', True),
        (b'{"content":[]}', True),
        (b'{"content":[{"type":"resource_link","uri":"x:1"}]}', False),
        (b'{"content":[{"type":"resource","resource":{}}]}', False),
        (b'{"content":[{"type":"text","text":"a","_meta":{}}]}', False),
        (b'{"content":[{"type":"te\\u0078t"}]}', False),
        (b'{"content":[{}]}', False),
        (b'{"content":[],"_meta":{"ui":{}}}', False),
        (b'{"content":["of another shape"]}', False),
        (b'{"content":{"type":"text"}}', False),
    ],
)
def test_only_what_certainly_names_no_resource_passes_unmapped(result, plain):
    head = read_head(result)
    assert head is not None
    assert head.plain is plain


@pytest.mark.parametrize(
    ("result", "read"),
    [
        (b'{"contents":[{"uri":"x:1","text":"a"},{"uri":"x:2"}]}', [["uri", "text"], ["uri"]]),
        (b'{"contents":[]}', []),
        (b"{}", []),
        (b'{"contents":["of another shape"]}', None),
        (b'{"contents":{"uri":"x:1"}}', None),
    ],
)
def test_what_a_resource_holds_is_known_from_the_one_pass(result, read):
    head = read_head(result)
    assert head is not None
    found = None if head.read is None else [list(members) for members in head.read]
    assert found == read
