"""Authorization servers of different habits: connect, renew twice, and say what cannot be done."""

import pytest
from django.utils import timezone

from tests.fakes.authorization_server import FakeAuthorizationServer, Fault
from tests.fakes.protected_upstream import ProtectedUpstream
from tests.upstreams.connecting import (
    account_of,
    bearer,
    browser_of,
    connect,
    expire,
    facts_of,
    person,
    run,
    upstream_at,
)
from upstreams import accounts, actions, credentials, refresh_outcome, sealed_secrets
from upstreams.credentials import credential_for
from upstreams.errors import NeedsConnection
from upstreams.models import UpstreamClient

pytestmark = pytest.mark.django_db(transaction=True)

HABITS = {
    "strict rotation": {},
    "no rotation": {"rotate": False},
    "no rotation and no refresh token in the answer": {
        "rotate": False,
        "reply_changes": {"refresh_token": None},
    },
    "short life": {"expires_in": 1},
    "no life announced": {"expires_in": None},
    "slow": {"delay": 0.5},
    "issuer with a path": {"issuer_path": "/tenant/v2", "metadata": "oidc_append"},
    "basic authentication only": {"auth_methods": ("client_secret_basic",)},
    "authentication in the body only": {"auth_methods": ("client_secret_post",)},
    "public clients only": {"auth_methods": ("none",)},
    "names no issuer in answers": {"iss": "omit"},
}


@pytest.fixture
def alice(transactional_db):
    return person()


def renew_twice(server, alice, upstream) -> None:
    """Renew two times and use the last token."""
    for _ in range(2):
        expire()
        assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert server.refreshes == 2
    assert accounts.status_for(alice, upstream).state == "connected"
    assert not server.dead_families


@pytest.mark.parametrize("habit", HABITS)
def test_a_person_stays_connected_at_a_server_with(habit: str, alice) -> None:
    settings = dict(HABITS[habit])
    later = {"reply_changes": settings.pop("reply_changes", {})}
    with (
        FakeAuthorizationServer(**settings).serve() as server,
        ProtectedUpstream(server).serve() as protected,
    ):
        upstream = upstream_at(protected.url)
        assert connect(browser_of(alice), upstream).status_code == 303
        server.reply_changes = later["reply_changes"]
        renew_twice(server, alice, upstream)


def test_a_person_stays_connected_at_a_server_that_flaps(alice, monkeypatch) -> None:
    monkeypatch.setattr(refresh_outcome, "LONGEST_BACK_OFF", 0.05)
    with (
        FakeAuthorizationServer().serve() as server,
        ProtectedUpstream(server).serve() as protected,
    ):
        upstream = upstream_at(protected.url)
        connect(browser_of(alice), upstream)
        for faults in ([Fault(503)], [Fault(500), Fault(502)], [Fault(429)] * 3):
            server.token_faults = faults
            expire(refresh_not_before=None)
            assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
        assert accounts.status_for(alice, upstream).state == "connected"


def test_where_nothing_can_be_renewed_the_token_serves_to_its_end_and_the_person_is_told(
    alice,
) -> None:
    with (
        FakeAuthorizationServer(refresh_tokens_on=False).serve() as server,
        ProtectedUpstream(server).serve() as protected,
    ):
        upstream = upstream_at(protected.url)
        connect(browser_of(alice), upstream)
        assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
        expire()
        with pytest.raises(NeedsConnection) as error:
            run(credential_for(alice.pk, facts_of(upstream)))
        assert "gave no way to renew it" in error.value.message
        assert "gave no way to renew it" in accounts.status_for(alice, upstream).reason
        assert server.refreshes == 0
        # An access token without an end needs no renewing.
        server.expires_in = None
        connect(browser_of(alice), upstream)
        assert account_of(alice, upstream).expires_at is None
        credentials.forget()
        assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens


def test_without_dynamic_registration_the_administrators_client_is_used(alice) -> None:
    with (
        FakeAuthorizationServer(registration=False).serve() as server,
        ProtectedUpstream(server).serve() as protected,
    ):
        upstream = upstream_at(protected.url)
        page = browser_of(alice).post(f"/connect/{upstream.key}/")
        assert page.status_code == 502
        assert "administrator has to register the gateway" in page.content.decode()
        server.register("ours", client_secret="s1")
        actions.update_upstream(upstream, {"oauth_client_id": "ours"}, None)
        actions.set_oauth_client_secret(upstream, "s1", None)
        assert connect(browser_of(alice), upstream).status_code == 303
        renew_twice(server, alice, upstream)


def test_what_an_administrator_is_asked_for_names_the_redirect_uri_to_copy(alice) -> None:
    alice.is_staff = True
    alice.save()
    with (
        FakeAuthorizationServer(registration=False).serve() as server,
        ProtectedUpstream(server).serve() as protected,
    ):
        upstream = upstream_at(protected.url)
        page = browser_of(alice).post(f"/connect/{upstream.key}/").content.decode()
        assert "http://localhost:8000/connect/callback" in page
        assert server.issuer in page


def test_a_server_that_refuses_resource_works_with_the_switch_and_says_so_without(alice) -> None:
    with (
        FakeAuthorizationServer(resource="refuse").serve() as server,
        ProtectedUpstream(server).serve() as protected,
    ):
        upstream = upstream_at(protected.url)
        refused = connect(browser_of(alice), upstream)
        assert refused.status_code == 400
        actions.update_upstream(upstream, {"oauth_send_resource": False}, None)
        assert connect(browser_of(alice), upstream).status_code == 303
        renew_twice(server, alice, upstream)
        assert not [seen for seen in server.calls("/token") if "resource" in seen.form]


def test_a_registration_that_was_replaced_still_renews_what_was_made_with_it(alice) -> None:
    with (
        FakeAuthorizationServer().serve() as server,
        ProtectedUpstream(server).serve() as protected,
    ):
        upstream = upstream_at(protected.url)
        connect(browser_of(alice), upstream)
        client = account_of(alice, upstream).client
        UpstreamClient.objects.filter(pk=client.pk).update(retired_at=timezone.now())
        renew_twice(server, alice, upstream)
        stored = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url)
        assert stored.refresh_token in server.refresh_tokens
