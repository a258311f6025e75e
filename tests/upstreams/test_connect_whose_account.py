"""Whose account it is that a person connected: shown by name, and nobody else's (#82)."""

import pytest

from tests.upstreams.connecting import (
    account_of,
    approve,
    begin,
    browser_of,
    connect,
    person,
    upstream_at,
)
from upstreams import accounts, sealed_secrets

pytestmark = pytest.mark.django_db(transaction=True)


def test_82_an_account_that_two_people_share_stays_two_accounts_here(server, protected) -> None:
    server.account = "team@saas.example"
    upstream = upstream_at(protected.url)
    people = person(), person("bob")
    for one in people:
        assert connect(browser_of(one), upstream).status_code == 303
    alice, bob = (account_of(one, upstream) for one in people)
    assert alice.account_label == bob.account_label == "team@saas.example"
    tokens = {sealed_secrets.open_tokens(one, upstream.url).access_token for one in (alice, bob)}
    assert len(tokens) == 2
    accounts.disconnect(people[0], upstream, actor=people[0])
    assert accounts.status_for(people[1], upstream).state == "connected"
    assert accounts.status_for(people[0], upstream).state == "not_connected"


def test_82_the_pages_name_the_account_and_the_new_one_only_once_it_is_there(
    server, protected
) -> None:
    server.account = "first@saas.example"
    upstream, browser = upstream_at(protected.url), browser_of(person())
    connect(browser, upstream)
    place = f"/connect/{upstream.key}/"
    assert "Connected as first@saas.example" in browser.get(place).content.decode()
    server.account = "second@saas.example"
    going = approve(begin(browser, upstream))
    assert "Connected as first@saas.example" in browser.get(place).content.decode()
    browser.get(going)
    shown = browser.get(place).content.decode()
    assert "Connected as second@saas.example" in shown and "first@" not in shown
