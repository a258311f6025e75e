"""Icons of upstreams' tools: only those a host may load without harm, and from where."""

import asyncio
import contextlib
import json
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import AsyncClient

from gateway_site import change_feed
from tests.fakes.asgi_server import authority, serve
from tests.fakes.authorization_server import Fault, reply
from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp import routed
from tests.virtualmcp.routed import Client, in_thread
from upstreams.models import Upstream
from upstreams.token_vault import derive_key
from virtualmcp import icon_addresses, icon_fetching
from virtualmcp.icons import LONGEST_INSIDE, MOST_ICONS, loadable

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


PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 50
DRAWING = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        icon_fetching.forget()
        yield


@contextlib.contextmanager
def picture_host(*answers):
    """Serve answers over TLS one after the other, the last one again and again."""
    asked = []

    async def app(scope, receive, send):
        asked.append(scope)
        await reply(send, answers[min(len(asked), len(answers)) - 1])

    with serve(app, tls=True) as origin:
        yield origin, asked


@pytest.fixture
def trusting(settings):
    settings.GATEWAY_EXTRA_CA_BUNDLE = str(authority().ca_file)


async def registered(url, **more):
    return await in_thread(
        lambda: Upstream.objects.create(key="alpha", title="Alpha", url=url, **more)
    )


async def loaded(address):
    parts = urlsplit(address)
    assert f"{parts.scheme}://{parts.netloc}" == settings.PUBLIC_URL
    return await AsyncClient().get(parts.path)


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


async def test_behind_a_shared_url_icons_are_of_the_gateways_own_origin():
    inside = "data:image/png;base64,aGk="
    icons = [
        {"src": "https://cdn.example/i.png", "sizes": ["48x48"], "theme": "dark", "vendor": None},
        {"src": inside},
        {"src": "data:image/png;base64," + "A" * LONGEST_INSIDE},
        {"src": f"https://cdn.example/{'a' * icon_addresses.LONGEST_SOURCE}"},
        {"src": "http://cdn.example/i.png"},
    ]
    with FakeUpstream().serve() as one, FakeUpstream(era="legacy").serve() as other:
        for entry in (one.tools[0], one.resources[0], one.prompts[0], one.templates[0]):
            entry["icons"] = icons
        one.tools[1]["icons"] = [icons[1]] * (MOST_ICONS + 5)

        def make():
            return routed.virtual_mcp(routed.upstream(one, "one"), routed.upstream(other, "other"))

        await in_thread(make)
        methods = ("tools/list", "resources/list", "prompts/list", "resources/templates/list")
        lists = [await Client().result(method) for method in methods]
        pk = (await in_thread(Upstream.objects.get, key="one")).pk
    members = ("tools", "resources", "prompts", "resourceTemplates")
    for found, member in zip(lists, members, strict=True):
        first, second = found[member][0]["icons"]
        # The same everywhere and on every node, so that lists stay equal.
        assert first.pop("src") == icon_addresses.public(pk, icons[0]["src"])
        assert first == {"sizes": ["48x48"], "theme": "dark", "vendor": None}
        assert second == {"src": inside}
    assert len(lists[0]["tools"][1]["icons"]) == MOST_ICONS


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0....", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (DRAWING, "image/svg+xml"),
    ],
)
async def test_an_icon_is_fetched_once_without_credentials_and_served_harmlessly(
    content, media_type, trusting
):
    headers = (("content-type", "text/html"), ("set-cookie", "a=b"))
    with picture_host(Fault(body=content, headers=headers)) as (origin, asked):
        row = await registered(f"{origin}/mcp", further_header_names=["X-Key"])
        address = icon_addresses.public(row.pk, f"{origin}/icon")
        answers = await asyncio.gather(*(loaded(address) for _ in range(5)))
    assert len(asked) == 1
    sent = {name for name, _ in asked[0]["headers"]}
    assert not sent & {b"cookie", b"authorization", b"x-key", b"referer"}
    for answer in answers:
        assert (answer.status_code, answer.content) == (200, content)
        # What it is is said by its first bytes, not by whoever sent it.
        assert answer["content-type"] == media_type
        assert answer["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer["content-security-policy"]
        assert answer["cache-control"] == "public, max-age=86400"
        assert "set-cookie" not in answer
        assert answer.has_header("content-disposition") == (content == DRAWING)


@pytest.mark.parametrize(
    "answer",
    [
        Fault(body=b"<html><script>alert(1)</script></html>"),
        Fault(302, headers=(("location", "/other"),)),
        Fault(500, body=PNG),
        Fault(body=PNG + b"\x00" * icon_fetching.LARGEST),
    ],
)
async def test_what_is_no_picture_is_not_served_and_not_asked_for_again(answer, trusting):
    with picture_host(answer, Fault(body=PNG)) as (origin, asked):
        row = await registered(f"{origin}/mcp")
        address = icon_addresses.public(row.pk, f"{origin}/icon")
        assert [(await loaded(address)).status_code for _ in range(2)] == [404, 404]
        assert len(asked) == 1


async def test_an_upstream_that_is_switched_off_shows_no_icon_any_more(trusting):
    with picture_host(Fault(body=PNG)) as (origin, _):
        row = await registered(f"{origin}/mcp")
        address = icon_addresses.public(row.pk, f"{origin}/icon")
        assert (await loaded(address)).status_code == 200
        row.enabled = False
        await in_thread(row.save)
        await in_thread(lambda: change_feed.announce("configuration", row.key))
        assert (await loaded(address)).status_code == 404


async def test_only_so_many_icons_are_fetched_at_once(trusting, monkeypatch):
    monkeypatch.setattr(icon_fetching, "MOST_AT_ONCE", 0)
    with picture_host(Fault(body=PNG)) as (origin, asked):
        row = await registered(f"{origin}/mcp")
        address = icon_addresses.public(row.pk, f"{origin}/icon")
        busy = await loaded(address)
        assert (busy.status_code, busy["retry-after"]) == (503, "2")
        assert asked == []
        monkeypatch.setattr(icon_fetching, "MOST_AT_ONCE", 1)
        assert (await loaded(address)).status_code == 200


async def test_an_icon_inside_the_network_is_not_fetched(trusting):
    with picture_host(Fault(body=PNG)) as (origin, asked):
        # The same host at another port is another origin, and not the upstream's.
        row = await registered("https://127.0.0.1:9/mcp")
        for source in (f"{origin}/icon", "https://169.254.169.254/latest", "https://10.0.0.1/i"):
            assert (await loaded(icon_addresses.public(row.pk, source))).status_code == 404
        assert asked == []


async def test_only_addresses_that_the_gateway_made_are_fetched(trusting):
    with picture_host(Fault(body=PNG)) as (origin, asked):
        row = await registered(f"{origin}/mcp")
        good = icon_addresses.public(row.pk, f"{origin}/icon")
        start, _, name = good.rpartition("/")
        other = icon_addresses.public(row.pk, f"{origin}/other").rpartition("/")[2]
        bad = (
            f"{start}/{other}",
            f"{start}/%00",
            good.replace(f"/icons/{row.pk}/", f"/icons/{row.pk + 1}/"),
            f"{start[:-1]}x/{name}",
            f"{settings.PUBLIC_URL}/icons/{row.pk}/%C3%A9/{name}",
        )
        for address in bad:
            assert (await loaded(address)).status_code == 404
        await in_thread(lambda: Upstream.objects.update(enabled=False))
        assert (await loaded(good)).status_code == 404
        assert asked == []


def test_what_anybody_may_send_leaves_nothing_behind():
    made = icon_addresses.public(1, GOOD[0]).rpartition("/")[2]
    kept = icon_addresses._kept_signature.cache_info().currsize
    assert icon_addresses.source_of(1, "x", made) is None
    assert icon_addresses._kept_signature.cache_info().currsize == kept
    # The longest one that the gateway makes is read, and nothing beyond.
    for length in (icon_addresses.LONGEST_SOURCE, icon_addresses.LONGEST_SOURCE + 3):
        source = "https://cdn.example/".ljust(length, "a")
        signature = icon_addresses._signature(derive_key("icon")[0], 1, source)
        name = icon_addresses._text(source.encode())
        found = icon_addresses.source_of(1, signature, name)
        assert found == (source if length == icon_addresses.LONGEST_SOURCE else None)


async def test_a_rotated_key_still_serves_the_addresses_it_made(settings, trusting):
    with picture_host(Fault(body=PNG)) as (origin, _):
        row = await registered(f"{origin}/mcp")
        good = icon_addresses.public(row.pk, f"{origin}/icon")
        fresh = "bmV3LWtleS1uZXcta2V5LW5ldy1rZXktbmV3LWtleSE="
        settings.GATEWAY_ENCRYPTION_KEYS = [fresh, *settings.GATEWAY_ENCRYPTION_KEYS]
        assert (await loaded(good)).status_code == 200
        assert icon_addresses.public(row.pk, f"{origin}/icon") != good
