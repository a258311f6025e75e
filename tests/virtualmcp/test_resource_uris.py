"""The mapping of URIs is reversible for whatever an upstream may call its resources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualmcp.resource_uris import Owner, is_web, literal_start, to_public, to_upstream

KEYS = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
URIS = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}{}".format,
        st.sampled_from(["ui://", "file:///", "a+b:", "ui:", "UI://", "http://", "{+u}", "+"]),
        st.text(max_size=40),
    ),
)


@given(KEYS, URIS)
def test_mapping_back_gives_the_same_upstream_and_uri(key, uri):
    if not is_web(uri):
        assert to_upstream(to_public(key, uri)) == Owner(key, uri)


@given(KEYS, KEYS, URIS)
def test_gateways_behind_gateways_map_back_one_by_one(outer, inner, uri):
    if not is_web(uri):
        twice = to_public(outer, to_public(inner, uri))
        first = to_upstream(twice)
        assert first == Owner(outer, to_public(inner, uri))
        assert to_upstream(first.uri) == Owner(inner, uri)


@given(KEYS, KEYS, URIS)
def test_two_upstreams_never_share_a_public_uri(first, second, uri):
    if first != second and not is_web(uri):
        assert to_public(first, uri) != to_public(second, uri)


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("ui://board/view.html", "ui://k+board/view.html"),
        ("notes://7", "k+notes://7"),
        ("https://example.com/x", "https://example.com/x"),
        ("http://example.com/x", "k+http://example.com/x"),
        ("file:///{path}", "k+file:///{path}"),
        ("ui://{id}/x", "ui://k+{id}/x"),
        ("{+url}", "k+{+url}"),
        ("git+ssh://host/x", "k+git+ssh://host/x"),
    ],
)
def test_uris_and_templates_are_prefixed_where_their_scheme_allows(uri, public):
    assert to_public("k", uri) == public


def test_expanding_a_mapped_template_gives_a_uri_that_maps_back():
    template = to_public("k", "{+url}")
    assert to_upstream(template.replace("{+url}", "ui://a/b")) == Owner("k", "ui://a/b")


def test_an_https_uri_with_a_key_in_front_leads_to_that_upstream():
    assert to_upstream("beta+https://example.com/a") == Owner("beta", "https://example.com/a")


def test_only_what_stands_before_the_first_variable_is_literal():
    assert literal_start("notes://all/{number}/x") == "notes://all/"
