"""Which addresses the gateway connects to (protocol.md 5.4, security.md #26, #28, #136)."""

import asyncio
import socket

import pytest

from tests.patience import PATIENCE
from upstreams import egress_guard
from upstreams.egress_guard import (
    EgressRules,
    address_allowed,
    check_url,
    parse_networks,
    rules_for,
)
from upstreams.errors import EgressRefused, UpstreamUnreachable

NOTHING = EgressRules()

SPECIAL_ADDRESSES = """
0.0.0.0 0.1.2.3 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1
127.255.255.255 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1
192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1 192.168.255.255
192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255
240.0.0.1 255.255.255.255 168.63.129.16 100.100.100.200
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254
::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::1
100::1 100:0:0:1::1 2001::1 2001:0:7f00:1::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1
2002:7f00:1:: 2002:a00:1::1 2002:808:808::1 3fff::1 3fff:fff::1 5f00::1 fc00::1 fd00::1
fd00:ec2::254 fdff::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1 2620:4f:8000::1
2606:4700::5efe:127.0.0.1 2606:4700::200:5efe:10.0.0.1 fe80::5efe:8.8.8.8 fe80::1%eth0 4000::1
"""

PUBLIC_ADDRESSES = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255
198.20.0.0 223.255.255.255 2606:4700:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888
::ffff:8.8.8.8 64:ff9b::8.8.8.8 2606:4700::5efe:8.8.8.8
"""


@pytest.mark.parametrize("address", SPECIAL_ADDRESSES.split())
def test_special_use_addresses_are_refused(address: str) -> None:
    assert not address_allowed(address, NOTHING)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES.split())
def test_public_addresses_are_allowed(address: str) -> None:
    assert address_allowed(address, NOTHING)


REFUSED_URLS = """
http://127.0.0.1/ https://127.0.0.1/ https://127.1/ https://0177.0.0.1/ https://0x7f.1/
https://0x7f000001/ https://2130706433/ https://017700000001/ https://127.0.0.1./
https://127.0.0.01/ https://1.1.1.01/ https://0x8.8.8.8/ https://8.8.8/ https://8/
https://999.1.1.1/ https://1.2.3.4.5/ https://[::1]/ https://[::ffff:127.0.0.1]/ https://[::]/
https://[fe80::1%25eth0]/ https://[64:ff9b::7f00:1]/ https://[2002:7f00:1::]/ https://[::1
https://localhost/ https://LOCALHOST/ https://localhost./ https://a.localhost/
https://metadata.google.internal/ https://metadata/ https://169.254.169.254/latest/meta-data/
file:///etc/passwd gopher://example.com/ ftp://example.com/ javascript:alert(1) data:text/html,x
//example.com/ example.com https:///path https:example.com https:/example.com https://
https://user@example.com/ https://user:pw@example.com/ https://@example.com/
https://example.com@127.0.0.1/ https://127.0.0.1#@example.com/ https://example.com/#f
https://example.com:0/ https://example.com:99999/ https://example.com:/ https://example.com:x/
https://exam%70le.com/ https://127.0.0.1%00.example.com/ https://-example.com/ https://.example.com/
https://example..com/ https://ex\u00e4mple.com/ https://\uff11\uff12\uff17.0.0.1/
https://127\u30020\u30020\u30021/ https://\u24dbocalhost/
https://example.com\\@127.0.0.1/ http://example.com/
"""


@pytest.mark.parametrize(
    "url",
    [
        *REFUSED_URLS.split(),
        "",
        " https://example.com/",
        "https://exa mple.com/",
        "https://example.com/\n",
        "https://example.com/\r\nHost: x",
        "https://example.com/\t",
        "https://example.com/\x00",
        "https://example.com/" + "a" * 3000,
        "https://example.com/'\"",
        "https://" + "a" * 64 + ".com/",
    ],
)
def test_urls_that_could_reach_inside_are_refused_before_any_look_up(settings, url: str) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
    with pytest.raises(EgressRefused):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://EXAMPLE.com/mcp",
        "https://example.com:8443/a?b=c&d=%20",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:443/mcp",
        "https://xn--exmple-cua.com/",
        "https://a_b.example.com/~x/(y);z",
        "https://example.com./",
    ],
)
def test_ordinary_urls_pass(settings, url: str) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
    check_url(url)


def test_the_development_switch_allows_loopback_and_nothing_else(settings) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = True
    for url in ("http://127.0.0.1:1/", "http://localhost:1/", "http://[::1]:1/"):
        check_url(url)
    for url in (
        "http://10.0.0.1/",
        "https://10.0.0.1/",
        "http://8.8.8.8/",
        "http://169.254.169.254/",
    ):
        with pytest.raises(EgressRefused):
            check_url(url)


def test_an_allow_list_opens_its_networks_for_one_upstream_only(settings) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
    check_url("http://10.1.2.3/", private_network="10.1.0.0/16")
    check_url("https://[fd12::1]/", private_network="10.1.0.0/16, fd12::/16")
    for url in ("http://10.2.0.1/", "https://127.0.0.1/"):
        with pytest.raises(EgressRefused):
            check_url(url, private_network="10.1.0.0/16")


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"])
def test_metadata_services_stay_closed_whatever_the_allow_list_says(address: str) -> None:
    assert not address_allowed(address, rules_for("169.254.0.0/16, fd00::/8"))


def test_an_unreadable_allow_list_allows_nothing() -> None:
    assert rules_for("10.0.0.0/8, nonsense").networks == ()
    with pytest.raises(ValueError):
        parse_networks("10.0.0.1/8")


@pytest.fixture
def names(monkeypatch):
    """Answers of the resolver by name; counts the look-ups."""
    egress_guard.forget_names()
    answers: dict[str, list[str]] = {}
    asked: list[str] = []

    def look_up(host: str, port: int) -> tuple[str, ...]:
        asked.append(host)
        if host not in answers:
            raise socket.gaierror("unknown")
        return tuple(answers[host])

    monkeypatch.setattr(egress_guard, "_look_up", look_up)
    answers["asked"] = asked
    yield answers
    egress_guard.forget_names()


async def test_every_address_of_a_name_must_pass(settings, names) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
    names["good.test"] = ["8.8.8.8", "2606:4700:4700::1111"]
    names["mixed.test"] = ["8.8.8.8", "10.0.0.1"]
    assert await egress_guard.resolve("good.test", 443) == ["8.8.8.8", "2606:4700:4700::1111"]
    with pytest.raises(EgressRefused) as refused:
        await egress_guard.resolve("mixed.test", 443)
    assert "10.0.0.1" not in refused.value.message


async def test_a_name_for_plain_http_must_be_all_loopback_or_listed(settings, names) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = True
    names["both.test"] = ["127.0.0.1", "8.8.8.8"]
    names["loop.test"] = ["127.0.0.1"]
    assert await egress_guard.resolve("loop.test", 80, plain=True) == ["127.0.0.1"]
    with pytest.raises(EgressRefused):
        await egress_guard.resolve("both.test", 80, plain=True)


async def test_answers_are_kept_briefly_and_failures_are_not(settings, names) -> None:
    names["a.test"] = ["8.8.8.8"]
    for _ in range(3):
        await egress_guard.resolve("a.test", 443)
    assert names["asked"] == ["a.test"]
    for _ in range(2):
        with pytest.raises(UpstreamUnreachable):
            await egress_guard.resolve("none.test", 443)
    assert names["asked"] == ["a.test", "none.test", "none.test"]


async def test_rules_are_applied_to_cached_answers_too(settings, names) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
    names["inside.test"] = ["10.1.0.5"]
    assert await egress_guard.resolve("inside.test", 443, private_network="10.1.0.0/16")
    with pytest.raises(EgressRefused):
        await egress_guard.resolve("inside.test", 443)


async def test_a_slow_resolver_does_not_hold_the_loop(monkeypatch) -> None:
    import threading

    release = threading.Event()
    monkeypatch.setattr(egress_guard, "RESOLVE_SECONDS", 0.1)
    monkeypatch.setattr(egress_guard, "_look_up", lambda host, port: release.wait(PATIENCE) and ())
    other = asyncio.create_task(asyncio.sleep(0, "ran"))
    try:
        with pytest.raises(UpstreamUnreachable):
            await egress_guard.resolve("slow.test", 443)
    finally:
        release.set()
    assert await other == "ran"
