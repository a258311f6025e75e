"""Finding out which era an upstream speaks: the table of protocol.md 2.2, cell by cell."""

import asyncio
import json

import pytest
from asgiref.sync import sync_to_async

from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.fakes.raw_upstream import RawUpstream, answer
from tests.upstreams.relaying import (
    NO_CREDENTIAL,
    bearer,
    facts_for,
    text_of,
    tool_call,
    until,
)
from upstreams import mcp_client, upstream_era
from upstreams.canonical_call import ClientFacts, SilentSink
from upstreams.errors import (
    CredentialRefused,
    UpstreamAnswerInvalid,
    UpstreamBusy,
    UpstreamError,
    UpstreamIncompatible,
    UpstreamUnreachable,
)
from upstreams.models import Upstream
from upstreams.revisions import Era
from upstreams.upstream_facts import UpstreamFacts


@pytest.fixture(autouse=True)
async def forgotten_afterwards(request, monkeypatch):
    if "transactional_db" not in request.fixturenames:

        async def unsaved(*_args):
            pass

        monkeypatch.setattr(upstream_era, "_save", unsaved)
    mcp_client.forget()
    yield
    await mcp_client.close_all()


async def call(upstream, request=None, credential=NO_CREDENTIAL, **changes):
    facts = facts_for(upstream.url, **changes)
    request = request or tool_call("echo", {"text": "x"})
    return await mcp_client.call(facts, credential, request, SilentSink())


async def era_of(upstream, **changes):
    return await mcp_client.era_of(facts_for(upstream.url, **changes), NO_CREDENTIAL)


def error(code, data=None, status=400):
    fault = {"code": code, "message": "no"} | ({"data": data} if data is not None else {})
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": fault}).encode()
    return Canned(status, body)


MODERN = (Era.MODERN, "2026-07-28")
LEGACY = (Era.LEGACY, "2025-11-25")


@pytest.mark.parametrize(
    ("served", "expected"), [("modern", MODERN), ("legacy", LEGACY), ("dual", MODERN)]
)
async def test_servers_are_taken_for_what_they_are(served, expected):
    with FakeUpstream(era=served).serve() as upstream:
        assert await era_of(upstream) == expected
        assert text_of(await call(upstream)) == "x"
        assert len(upstream.calls("server/discover")) == 1


@pytest.mark.parametrize(
    "verdict",
    [
        error(-32022, {"supported": ["2026-07-28"], "requested": "x"}),
        error(-32022, {"supported": ["2099-01-01", "2026-07-28"], "requested": "x"}),
        error(-32020),
        error(-32021, {"requiredCapabilities": {}}),
    ],
)
async def test_modern_errors_mean_modern(verdict):
    with FakeUpstream(era="legacy", canned={"server/discover": verdict}).serve() as upstream:
        assert await era_of(upstream) == MODERN
        assert upstream.calls("initialize") == []


@pytest.mark.parametrize(
    "verdict",
    [
        error(-32022, {"supported": ["2025-11-25", "2025-06-18"], "requested": "x"}),
        error(-32022, {}),
        error(-32601, status=404),
        error(-32601, status=200),
        error(-32602),
        error(-32600),
        error(-32000),
        Canned(400, b""),
        Canned(404, b"not found", {"content-type": "text/plain"}),
        Canned(405, b"", {}),
        Canned(406, b"", {}),
        Canned(200, b"<html></html>", {"content-type": "text/html"}),
        Canned(200, b"", {}),
        Canned(202, b"", {}),
        Canned(200, b"not json"),
        Canned(200, b"[]"),
    ],
)
async def test_everything_else_leads_to_initialize(verdict):
    with FakeUpstream(era="legacy", canned={"server/discover": verdict}).serve() as upstream:
        assert await era_of(upstream) == LEGACY


async def test_a_server_that_discovers_only_legacy_versions_is_legacy():
    with FakeUpstream(era="dual").serve() as upstream:
        upstream.canned["server/discover"] = error(-32022, {"supported": ["2025-06-18"]})
        assert await era_of(upstream) == LEGACY


@pytest.mark.parametrize("versions", [["2099-01-01"], ["DRAFT-2027", "2099-01-01"]])
async def test_only_unknown_modern_versions_are_incompatible(versions):
    verdict = error(-32022, {"supported": versions, "requested": "x"})
    upstream = FakeUpstream(era="modern", canned={"server/discover": verdict})
    with upstream.serve(), pytest.raises(UpstreamIncompatible):
        await era_of(upstream)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [(["2025-11-25"], LEGACY), (["2025-06-18", "2026-07-28"], MODERN), ([], LEGACY)],
)
async def test_a_discover_result_is_read_for_its_versions(versions, expected):
    opened = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x"}}

    def script(request):
        message = json.loads(request.partition(b"\r\n\r\n")[2])
        result = {"supportedVersions": versions, "capabilities": {}}
        if message["method"] != "server/discover":
            result = opened
        body = {"jsonrpc": "2.0", "id": message.get("id"), "result": result}
        return answer(json.dumps(body).encode())

    with RawUpstream(script) as upstream:
        assert await era_of(upstream) == expected


async def test_an_initialize_that_answers_unsupported_version_is_probed_once_more():
    upstream = FakeUpstream(era="modern", script=[Canned(400, b"")])
    with upstream.serve():
        assert await era_of(upstream) == MODERN
        methods = [seen.message["method"] for seen in upstream.requests]
        assert methods == ["server/discover", "initialize", "server/discover"]


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Canned(401, b"", {"www-authenticate": "Bearer"}), CredentialRefused),
        (Canned(403, b"", {}), CredentialRefused),
        (Canned(500, b""), UpstreamAnswerInvalid),
        (Canned(502, b"<html>", {"content-type": "text/html"}), UpstreamAnswerInvalid),
        (Canned(503, b""), UpstreamBusy),
        (Canned(429, b""), UpstreamBusy),
        (Canned(307, b"", {"location": "/x"}), UpstreamAnswerInvalid),
    ],
)
async def test_no_verdict_is_remembered_from_refusals_and_failures(verdict, expected):
    with FakeUpstream(era="modern", script=[verdict]).serve() as upstream:
        with pytest.raises(expected):
            await call(upstream)
        assert upstream.calls("initialize") == upstream.calls("tools/call") == []
        assert text_of(await call(upstream)) == "x"


async def test_an_upstream_that_is_down_leaves_no_verdict():
    with pytest.raises(UpstreamUnreachable):
        await mcp_client.era_of(facts_for("http://127.0.0.1:1/mcp"), NO_CREDENTIAL)
    assert upstream_era.known_era(facts_for("http://127.0.0.1:1/mcp")) is None


async def test_a_server_that_speaks_no_mcp_at_all_is_an_error():
    page = Canned(200, b"<html></html>", {"content-type": "text/html"})
    with FakeUpstream(script=[page, page, page]).serve() as upstream:
        with pytest.raises(UpstreamAnswerInvalid):
            await call(upstream)
        assert upstream_era.known_era(facts_for(upstream.url)) is None


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_an_administrators_choice_is_not_questioned(era):
    with FakeUpstream(era=era).serve() as upstream:
        await call(upstream, era=era)
        assert upstream.calls("server/discover") == []
    other = "legacy" if era == "modern" else "modern"
    with FakeUpstream(era=other).serve() as upstream:
        try:
            outcome = await call(upstream, era=era)
            assert outcome.error
        except UpstreamError:
            pass
        assert upstream.calls("server/discover") == []


async def test_twenty_first_calls_share_one_probe():
    with FakeUpstream(era="legacy").serve() as upstream:
        got = await asyncio.gather(*(call(upstream) for _ in range(20)))
        assert [text_of(outcome) for outcome in got] == ["x"] * 20
        assert len(upstream.calls("server/discover")) == 1
        assert len(upstream.initialized) == 1


async def test_another_address_is_another_server():
    with FakeUpstream(era="legacy").serve() as one, FakeUpstream(era="modern").serve() as two:
        assert await era_of(one) == LEGACY
        assert await era_of(two) == MODERN


async def test_an_upstream_that_became_modern_is_found_out_by_the_next_call():
    with FakeUpstream(era="modern").serve() as upstream:
        outcome = await call(upstream, detected_era="legacy", detected_revision="2025-06-18")
        assert text_of(outcome) == "x"
        await call(upstream, detected_era="legacy", detected_revision="2025-06-18")
        assert len(upstream.calls("initialize")) == 1


async def test_an_upstream_that_became_legacy_is_found_out_by_the_next_call():
    with FakeUpstream(era="legacy").serve() as upstream:
        for _ in range(2):
            outcome = await call(upstream, detected_era="modern", detected_revision="2026-07-28")
            assert text_of(outcome) == "x"
        assert len(upstream.calls("tools/call")) == 3
        assert len(upstream.calls("server/discover")) == 1


async def test_a_stateful_upstream_that_also_became_stateless_is_preferred_so_later(monkeypatch):
    with FakeUpstream(era="dual").serve() as upstream:
        facts = {"detected_era": "legacy", "detected_revision": "2025-11-25"}
        await call(upstream, **facts)
        known = facts_for(upstream.url, **facts)
        await until(lambda: upstream_era.known_era(known) is Era.MODERN)
        assert text_of(await call(upstream, **facts)) == "x"
        assert upstream.last_headers("tools/call")["mcp-method"] == "tools/call"


async def test_errors_that_repeat_do_not_make_a_storm_of_probes():
    bad = Canned(400, b"<html>", {"content-type": "text/html"})
    with FakeUpstream(canned={"tools/call": bad}).serve() as upstream:
        for _ in range(10):
            with pytest.raises(UpstreamAnswerInvalid):
                await call(upstream)
        assert len(upstream.calls("server/discover")) == 2
        assert len(upstream.calls("tools/call")) == 10


async def test_a_modern_tool_error_with_400_is_no_contradiction():
    with FakeUpstream().serve() as upstream:
        request = tool_call("refuse", {"code": -32602, "status": 400})
        for _ in range(3):
            assert (await call(upstream, request)).error
        assert len(upstream.calls("server/discover")) == 1


async def test_probing_uses_the_credential():
    with FakeUpstream(tokens={"good"}).serve() as upstream:
        with pytest.raises(CredentialRefused):
            await call(upstream, credential=bearer("bad"))
        assert text_of(await call(upstream, credential=bearer("good"))) == "x"


async def test_the_verdict_is_kept_in_the_row_while_the_address_is_the_same(transactional_db):
    with FakeUpstream(era="legacy").serve() as upstream:
        create = sync_to_async(Upstream.objects.create)
        row = await create(key="fake", title="Fake", url=upstream.url)
        moved = await create(key="moved", title="Moved", url="http://127.0.0.1:1/other")
        for one in (row, moved):
            facts = facts_for(upstream.url, id=one.pk)
            await mcp_client.call(facts, NO_CREDENTIAL, tool_call("echo"), SilentSink())
        await until(lambda: not upstream_era._background)
        await sync_to_async(row.refresh_from_db)()
        await sync_to_async(moved.refresh_from_db)()
        assert (row.detected_era, row.detected_revision) == ("legacy", "2025-11-25")
        assert moved.detected_era == ""
        mcp_client.forget()
        facts = UpstreamFacts.of(row)
        assert upstream_era.known_era(facts) is Era.LEGACY
        assert upstream_era.known_revision(facts, Era.LEGACY) == "2025-11-25"


@pytest.mark.parametrize(("served", "remembered"), [("modern", "legacy"), ("legacy", "modern")])
async def test_an_opening_heals_a_wrong_memory_too(served, remembered):
    with FakeUpstream(era=served).serve() as upstream:
        facts = facts_for(upstream.url, detected_era=remembered)
        opened = json.loads(await mcp_client.opening(facts, NO_CREDENTIAL, ClientFacts()))
        assert ("supportedVersions" in opened) == (served == "modern")
