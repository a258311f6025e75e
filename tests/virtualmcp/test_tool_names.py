"""Public names: chosen once, safe, short, never taken over."""

import re

from hypothesis import given
from hypothesis import strategies as st

from virtualmcp.route_table import Route
from virtualmcp.tool_names import LONGEST, Sighting, choose, prefixed, resolve

KEYS = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
NAMES = st.text(min_size=1, max_size=140)
SIGHTINGS = st.lists(st.tuples(st.integers(1, 3), NAMES), max_size=12)
SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Upstream:
    def __init__(self, id, key):
        self.id, self.key = id, key


def sighted(pairs):
    return [Sighting(number, f"up{number}", name) for number, name in pairs]


def routes_of(chosen):
    return {
        public: Route(_Upstream(number, f"up{number}"), name)
        for (number, name), public in chosen.items()
    }


def everything(route):
    return True


@given(SIGHTINGS)
def test_names_of_an_aggregate_are_safe_short_and_unique(pairs):
    chosen = choose(sighted(pairs), {}, transparent=False)
    assert len(set(chosen.values())) == len(chosen)
    assert all(SAFE.fullmatch(name) and len(name) <= LONGEST for name in chosen.values())


@given(SIGHTINGS)
def test_every_public_name_leads_back_to_what_it_was_chosen_for(pairs):
    chosen = choose(sighted(pairs), {}, transparent=False)
    routes = routes_of(chosen)
    for (number, name), public in chosen.items():
        found = resolve(public, routes, everything).route
        assert (found.upstream.id, found.name) == (number, name)


@given(SIGHTINGS, SIGHTINGS)
def test_what_is_pinned_never_changes_when_more_is_seen(first, later):
    pinned = choose(sighted(first), {}, transparent=False)
    more = choose(sighted(first + later), pinned, transparent=False)
    assert not set(more) & set(pinned)
    assert not set(more.values()) & set(pinned.values())


@given(SIGHTINGS)
def test_choosing_is_deterministic(pairs):
    assert choose(sighted(pairs), {}, transparent=False) == choose(
        sighted(pairs), {}, transparent=False
    )


@given(st.lists(NAMES, max_size=8, unique=True))
def test_a_transparent_server_keeps_every_name(names):
    chosen = choose(sighted([(1, name) for name in names]), {}, transparent=True)
    assert all(public == name for (_, name), public in chosen.items())


@given(KEYS, NAMES)
def test_different_names_stay_different_when_made_safe(key, name):
    assert prefixed(key, name) != prefixed(key, name + "x")


def test_the_first_owner_keeps_the_bare_name_and_the_next_gets_its_key():
    chosen = choose(sighted([(1, "search"), (2, "search")]), {}, transparent=False)
    assert list(chosen.values()) == ["search", "up2_search"]


def test_a_name_owned_as_prefixed_form_by_another_is_avoided():
    chosen = choose(
        sighted([(1, "search"), (1, "up2_search"), (2, "search")]), {}, transparent=False
    )
    last = list(chosen.values())[-1]
    assert last.startswith("up2_search_") and len(last) <= 64


def test_a_bare_name_reaches_its_only_owner_by_a_hidden_alias():
    routes = routes_of({(2, "search"): "up2_search"})
    assert resolve("search", routes, everything).route.upstream.id == 2


def test_a_bare_name_with_two_owners_names_the_candidates():
    routes = routes_of({(2, "search"): "up2_search", (3, "search"): "up3_search"})
    resolution = resolve("search", routes, everything)
    assert resolution.route is None
    assert resolution.candidates == ("up2_search", "up3_search")


def test_what_is_not_shown_makes_nothing_ambiguous_and_is_not_found():
    routes = routes_of({(2, "search"): "up2_search", (3, "search"): "up3_search"})

    def only_three(route):
        return route.upstream.id == 3

    assert resolve("search", routes, only_three).route.upstream.id == 3
    assert resolve("up2_search", routes, only_three).route is None
