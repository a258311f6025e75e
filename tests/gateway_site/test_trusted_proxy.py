"""Only a trusted proxy's word counts for who calls; nobody's word counts for the host."""

import pytest

from gateway_site.trusted_proxy import behind_proxy, caller_address, networks

PROXIES = networks(("10.0.0.0/8", "fd00::/8"))


def scope(peer: str, **headers: str) -> dict:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "scheme": "http", "client": (peer, 5), "headers": pairs}


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("10.0.0.1", [b"203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.9, 10.0.0.7"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1", b"203.0.113.9"], "203.0.113.9"),
        ("203.0.113.5", [b"1.1.1.1"], "203.0.113.5"),
        ("10.0.0.1", [b"not an address"], "10.0.0.1"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::ffff:10.0.0.1", [b"2001:db8::1"], "2001:db8::1"),
        ("fd00::2", [b"[2001:db8::1]"], "2001:db8::1"),
    ],
)
def test_the_nearest_address_that_is_no_proxy_is_the_caller(peer, forwarded, caller):
    assert caller_address(peer, forwarded, PROXIES) == caller


def test_without_a_trusted_proxy_headers_say_nothing(settings):
    settings.TRUSTED_PROXY = []
    found = behind_proxy(scope("10.0.0.1", x_forwarded_for="1.1.1.1", x_forwarded_proto="https"))
    assert found["client"][0] == "10.0.0.1"
    assert found["scheme"] == "http"


def test_a_stranger_cannot_claim_to_be_somebody_else(settings):
    settings.TRUSTED_PROXY = ["10.0.0.0/8"]
    found = behind_proxy(scope("203.0.113.5", x_forwarded_for="127.0.0.1"))
    assert found["client"][0] == "203.0.113.5"


def test_a_trusted_proxy_says_which_scheme_the_caller_used(settings):
    settings.TRUSTED_PROXY = ["10.0.0.0/8"]
    settings.SERVED_OVER_TLS = True
    assert behind_proxy(scope("10.0.0.1"))["scheme"] == "https"
    assert behind_proxy(scope("10.0.0.1", x_forwarded_proto="http"))["scheme"] == "http"
    assert behind_proxy(scope("10.0.0.1", x_forwarded_proto="gopher"))["scheme"] == "https"


def test_behind_tls_the_pages_know_it_although_the_proxy_speaks_http(settings):
    settings.SERVED_OVER_TLS = True
    assert behind_proxy(scope("127.0.0.1"))["scheme"] == "https"
