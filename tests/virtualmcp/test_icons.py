"""Icons of upstreams' tools: only those a host may load without harm."""

import json

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp import routed
from tests.virtualmcp.routed import Client, in_thread
from virtualmcp.icons import loadable

GOOD = ("https://cdn.example/i.png", "https://cdn.example", "data:image/png;base64,aGk=")
BAD = (
    "http://cdn.example/i.png",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "file:///etc/passwd",
    "https://user:pass@inside.example/i.png",
    "//cdn.example/i.png",
    "",
)


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        yield


async def test_only_icons_a_host_may_load_are_passed_on():
    with FakeUpstream().serve() as fake:
        icons = [{"src": source, "vendor": None} for source in (*GOOD, *BAD)]
        fake.tools[0]["icons"] = icons
        await in_thread(lambda: routed.virtual_mcp(routed.upstream(fake, "alpha")))
        tool = (await Client().result("tools/list"))["tools"][0]
    assert tool["icons"] == [{"src": source, "vendor": None} for source in GOOD]


def test_entries_without_icons_or_with_good_ones_stay_byte_for_byte():
    for entry in ({"name": "x"}, {"name": "x", "icons": [{"src": GOOD[0]}]}):
        raw = json.dumps(entry).encode()
        assert loadable(raw) == raw


def test_what_are_no_icons_is_dropped():
    assert json.loads(loadable(b'{"name":"x","icons":7}')) == {"name": "x"}
