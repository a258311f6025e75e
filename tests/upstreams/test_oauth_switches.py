"""What an administrator sets per upstream where its metadata is silent, wrong or plural."""

import pytest
from django.core.exceptions import ValidationError

from tests.fakes.authorization_server import FakeAuthorizationServer
from tests.fakes.protected_upstream import ProtectedUpstream
from tests.upstreams.connecting import (
    account_of,
    bearer,
    begin,
    browser_of,
    connect,
    expire,
    facts_of,
    person,
    query_of,
    run,
    upstream_at,
)
from upstreams import actions
from upstreams.credentials import credential_for
from upstreams.models import UpstreamClient

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_first_of_several_servers_whose_document_holds_is_used(server, protected) -> None:
    with FakeAuthorizationServer(metadata="none").serve() as silent:
        protected.servers = [silent.issuer, server.issuer]
        alice, upstream = person(), upstream_at(protected.url)
        assert connect(browser_of(alice), upstream).status_code == 303
        assert account_of(alice, upstream).issuer == server.issuer
        assert not silent.calls("/token") and not silent.calls("/register")
        actions.update_upstream(upstream, {"oauth_issuer": silent.issuer}, None)
        assert browser_of(alice).post(f"/connect/{upstream.key}/").status_code == 502


def test_a_resource_that_an_administrator_confirmed_counts(server, protected) -> None:
    protected.resource = "https://elsewhere.example/mcp"
    alice, upstream = person(), upstream_at(protected.url)
    assert browser_of(alice).post(f"/connect/{upstream.key}/").status_code == 502
    actions.update_upstream(upstream, {"oauth_resource": protected.resource}, None)
    assert connect(browser_of(alice), upstream).status_code == 303
    assert server.calls("/authorize")[-1].query["resource"] == protected.resource
    assert account_of(alice, upstream).resource == protected.resource


def test_with_server_and_resource_entered_the_upstreams_metadata_is_not_asked(server) -> None:
    with ProtectedUpstream(server, at="none").serve() as protected:
        alice = person()
        upstream = upstream_at(
            protected.url, oauth_issuer=server.issuer, oauth_resource="api://contoso"
        )
        assert connect(browser_of(alice), upstream).status_code == 303
        assert server.calls("/authorize")[-1].query["resource"] == "api://contoso"
        assert protected.fetched == []


def test_scopes_go_apart_by_commas_where_a_server_wants_that(protected) -> None:
    alice = person()
    upstream = upstream_at(protected.url, oauth_scopes="read write")
    assert query_of(begin(browser_of(alice), upstream))["scope"] == "read write"
    actions.update_upstream(upstream, {"oauth_scope_delimiter": "comma"}, None)
    assert query_of(begin(browser_of(alice), upstream))["scope"] == "read,write"


def test_the_chosen_authentication_wins_over_the_metadata_and_holds_for_those_connected(
    server, protected
) -> None:
    server.register("ours", client_secret="s1")
    alice, upstream = person(), upstream_at(protected.url, oauth_client_id="ours")
    actions.set_oauth_client_secret(upstream, "s1", None)
    assert connect(browser_of(alice), upstream).status_code == 303
    assert server.calls("/token")[-1].headers["authorization"].startswith("Basic ")
    upstream.refresh_from_db()
    actions.update_upstream(upstream, {"oauth_auth_method": "client_secret_post"}, None)
    expire()
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert server.calls("/token")[-1].form["client_secret"] == "s1"
    assert connect(browser_of(alice), upstream).status_code == 303
    assert UpstreamClient.objects.get().token_endpoint_auth_method == "client_secret_post"


@pytest.mark.parametrize(
    "data",
    [
        {"oauth_auth_method": "client_secret_post"},
        {"oauth_auth_method": "tls"},
        {"oauth_scope_delimiter": "semicolon"},
        {"oauth_resource": "mcp"},
        {"oauth_resource": "https://x.example/#fragment"},
    ],
)
def test_a_switch_that_makes_no_sense_is_refused_at_its_field(data) -> None:
    upstream = upstream_at("https://x.example/mcp")
    with pytest.raises(ValidationError) as error:
        actions.update_upstream(upstream, data, None)
    assert set(error.value.message_dict) == set(data)
