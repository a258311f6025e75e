"""Several headers, a key that is tried first, one account for everybody, the company's sign-in."""

import asyncio

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from tests.fakes.enterprise_provider import EnterpriseProvider
from tests.fakes.mcp_upstream import FakeUpstream
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
from upstreams import (
    accounts,
    actions,
    credential_building,
    credentials,
    enterprise_identity,
    refresh_outcome,
    sealed_secrets,
    token_upkeep,
    user_keys,
)
from upstreams.credentials import credential_for, renew
from upstreams.enterprise_identity import SubjectToken
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import CredentialKind, Upstream, UpstreamAccount
from upstreams.signals import changed

pytestmark = pytest.mark.django_db(transaction=True)


# Several headers.


def test_several_headers_go_with_every_request_of_any_kind(connected) -> None:
    alice, upstream = connected
    actions.set_further_headers(upstream, {"X-Org": "contoso", "X-Read-Only": "true"}, None)
    found = dict(run(credential_for(alice.pk, facts_of(upstream))).headers)
    assert found[b"x-org"] == b"contoso" and found[b"x-read-only"] == b"true"
    assert found[b"authorization"].startswith(b"Bearer at-")
    for kind in (CredentialKind.FIXED, CredentialKind.NONE):
        other = upstream_at("https://x.example/", key=f"k-{kind}", credential_kind=kind)
        actions.set_further_headers(other, {"X-Key": "one", "X-Secret": "two"}, None)
        found = dict(run(credential_for(alice.pk, facts_of(other))).headers)
        assert found == {b"x-key": b"one", b"x-secret": b"two"}
        assert accounts.status_for(alice, Upstream.objects.get(pk=other.pk)).state == "not_needed"


def test_further_headers_are_sealed_for_their_address_and_cannot_be_the_connections_own() -> None:
    upstream = upstream_at("https://x.example/", credential_kind=CredentialKind.FIXED)
    for name in ("Host", "Content-Length", "Mcp-Session-Id", "a b", ""):
        with pytest.raises(ValidationError):
            actions.set_further_headers(upstream, {name: "x"}, None)
    actions.set_further_headers(upstream, {"X-Key": "canary-1"}, None)
    upstream.refresh_from_db()
    assert "canary" not in upstream.sealed_further_headers
    Upstream.objects.filter(pk=upstream.pk).update(url="https://elsewhere.example/")
    with pytest.raises(SetupFailed):
        run(credential_for(7, facts_of(upstream)))
    upstream.refresh_from_db()
    upstream = actions.update_upstream(upstream, {"url": "https://third.example/"}, None)
    assert (upstream.sealed_further_headers, upstream.further_header_names) == ("", [])


# A person's key.


def test_a_key_is_tried_at_the_upstream_before_it_is_stored() -> None:
    alice = person()
    with FakeUpstream(tokens={"sk-right"}).serve() as server:
        upstream = upstream_at(server.url, credential_kind=CredentialKind.USER_KEY)
        page = browser_of(alice).post(f"/connect/{upstream.key}/", {"key": "sk-wrong"})
        assert page.status_code == 400
        assert "refuses this key" in page.content.decode()
        assert "sk-wrong" not in page.content.decode()
        assert not UpstreamAccount.objects.exists()
        run(user_keys.check_and_save(alice, upstream, "sk-right", actor=alice))
        assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) == "sk-right"


def test_a_key_that_cannot_be_tried_now_is_not_stored() -> None:
    alice = person()
    upstream = upstream_at("http://127.0.0.1:1/mcp", credential_kind=CredentialKind.USER_KEY)
    with pytest.raises(SetupFailed) as error:
        run(user_keys.check_and_save(alice, upstream, "sk-1", actor=alice))
    assert error.value.transient and "not stored" in error.value.message
    assert not UpstreamAccount.objects.exists()


def test_a_key_that_is_refused_later_is_said_so_on_the_persons_page() -> None:
    alice = person()
    upstream = upstream_at("https://x.example/", credential_kind=CredentialKind.USER_KEY)
    accounts.save_user_key(alice, upstream, "sk-1", actor=alice)
    facts = facts_of(upstream)
    with pytest.raises(NeedsConnection) as error:
        run(renew(alice.pk, facts, run(credential_for(alice.pk, facts))))
    assert "refuses your key" in error.value.message
    status = accounts.status_for(alice, upstream)
    assert status.state == "needs_reconnect" and "refuses your key" in status.reason


def test_a_key_entered_while_the_one_before_it_was_refused_stays() -> None:
    alice = person()
    upstream = upstream_at("https://x.example/", credential_kind=CredentialKind.USER_KEY)
    accounts.save_user_key(alice, upstream, "sk-1", actor=alice)
    facts = facts_of(upstream)
    refused = run(credential_for(alice.pk, facts))
    accounts.save_user_key(alice, upstream, "sk-1", actor=alice)  # it was let in again there
    credential_building.key_refused(alice.pk, facts, refused)
    assert accounts.status_for(alice, upstream).state == "connected"
    assert run(renew(alice.pk, facts, refused)).id != refused.id
    assert accounts.status_for(alice, upstream).state == "connected"


# One account for everybody.


@pytest.fixture
def shared(protected) -> Upstream:
    return upstream_at(protected.url, credential_kind=CredentialKind.SHARED_OAUTH)


def test_155_a_shared_account_is_connected_by_an_administrator_and_used_by_everybody(
    server, shared, django_assert_num_queries
) -> None:
    server.account = "robot@contoso.example"
    admin, alice, bob = person("root", is_staff=True, is_superuser=True), person(), person("bob")
    assert accounts.status_for(alice, shared).state == "unavailable"
    with pytest.raises(SetupFailed) as error:
        run(credential_for(alice.pk, facts_of(shared)))
    assert "administrator has to connect first" in error.value.message
    for stranger in (browser_of(alice), Client(HTTP_HOST="localhost:8000")):
        assert stranger.post(f"/connect/{shared.key}/").status_code in (302, 404)
    page = browser_of(admin).get(f"/connect/{shared.key}/").content.decode()
    assert "Everybody who may use it" in page
    assert connect(browser_of(admin), shared).status_code == 303
    assert UpstreamAccount.objects.get().user is None
    status = accounts.status_for(alice, shared)
    assert status.state == "not_needed"
    assert "Provided by your administrator" in status.reason
    assert "robot@contoso.example" in status.reason
    facts = facts_of(shared)
    token = bearer(run(credential_for(alice.pk, facts)))
    with django_assert_num_queries(0):
        found = credentials.cached_credential(bob.pk, facts)
    assert found is not None and bearer(found) == token
    assert connect(browser_of(admin), shared).status_code == 303
    assert UpstreamAccount.objects.count() == 1


def test_a_shared_account_is_renewed_once_for_everybody(server, shared) -> None:
    admin, alice, bob = person("root", is_staff=True, is_superuser=True), person(), person("bob")
    connect(browser_of(admin), shared)
    expire()
    facts = facts_of(shared)

    async def both() -> list[str]:
        found = await asyncio.gather(
            *(credential_for(user.pk, facts) for user in (alice, bob) for _ in range(5))
        )
        return [bearer(one) for one in found]

    assert len(set(run(both()))) == 1
    assert server.refreshes == 1
    expire()
    UpstreamAccount.objects.update(connected_at="2020-01-01T00:00Z", refreshed_at=None)
    assert run(token_upkeep.renew_idle()) == 1
    server.refresh_tokens.clear()
    expire()
    with pytest.raises(SetupFailed) as error:
        run(credential_for(alice.pk, facts))
    assert "Tell an administrator" in error.value.message
    assert accounts.status_for(alice, shared).state == "unavailable"
    assert accounts.disconnect(None, shared, actor=admin)
    assert not UpstreamAccount.objects.exists()


def test_a_change_of_the_shared_account_is_announced_as_everybodys(server, shared) -> None:
    admin, heard = person("root", is_staff=True, is_superuser=True), []

    def hear(sender, kind, key, **_):
        heard.append((kind, key))

    changed.connect(hear)
    try:
        connect(browser_of(admin), shared)
        account = UpstreamAccount.objects.select_related("upstream", "user").get()
        refresh_outcome.end(account, "refused", "the server said no")
        accounts.disconnect(None, shared, actor=admin)
    finally:
        changed.disconnect(hear)
    assert heard.count(("credential", f":{shared.pk}")) == 3
    assert not [key for kind, key in heard if kind == "credential" and "None" in key]


# The company's sign-in.


@pytest.fixture
def company(server):
    with EnterpriseProvider({"id-of-alice": "alice", "id-of-bob": "bob"}).serve() as running:
        server.assertions = running.whom(server)
        signed_in: dict[int, str] = {}

        def source(user_id: int, kind: str, provider: str) -> SubjectToken | None:
            token = signed_in.get(user_id)
            return SubjectToken(token, kind) if token else None

        before = enterprise_identity._source, enterprise_identity._providers
        enterprise_identity.register_subject_source(source)
        running.signed_in = signed_in
        yield running
        enterprise_identity.register_subject_source(*before)


def by_company(protected, company, **members) -> Upstream:
    upstream = upstream_at(
        protected.url,
        credential_kind=CredentialKind.ENTERPRISE,
        enterprise_token_url=company.url,
        enterprise_client_id="gateway",
        oauth_scopes="read write",
        **members,
    )
    actions.set_enterprise_secret(upstream, company.secret, None)
    return upstream


def test_the_companys_sign_in_lets_people_in_without_connecting(server, protected, company) -> None:
    alice, bob, upstream = person(), person("bob"), by_company(protected, company)
    company.signed_in |= {alice.pk: "id-of-alice", bob.pk: "id-of-bob"}
    assert accounts.status_for(alice, upstream).state == "not_needed"
    facts = facts_of(upstream)

    async def many() -> set[str]:
        found = await asyncio.gather(*(credential_for(alice.pk, facts) for _ in range(10)))
        return {bearer(one) for one in found}

    (token,) = run(many())
    assert token in server.tokens
    assert bearer(run(credential_for(bob.pk, facts))) not in ("", token)
    form = company.forms[0]
    assert form["audience"] == server.issuer and form["resource"] == upstream.url
    assert form["scope"] == "read write"
    assert len(company.forms) == 2
    expire()
    assert bearer(run(credential_for(alice.pk, facts))) not in ("", token)
    old = run(credential_for(alice.pk, facts))
    assert account_of(alice, upstream).version == 2
    UpstreamAccount.objects.update(refreshed_at=None)
    assert bearer(run(renew(alice.pk, facts, old))) != bearer(old)
    assert sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url).access_token


def test_other_parameter_names_and_tokens_are_switches(server, protected, company) -> None:
    company.audience_parameter, company.resource_parameter = "target", ""
    company.subject = enterprise_identity.TOKEN_TYPES["refresh_token"]
    alice = person()
    company.signed_in[alice.pk] = "id-of-alice"
    upstream = by_company(
        protected,
        company,
        enterprise_audience_parameter="target",
        enterprise_resource_parameter="",
        enterprise_subject_token="refresh_token",
        enterprise_auth_method="client_secret_post",
        oauth_send_resource=False,
    )
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert "resource" not in company.forms[0] and "client_secret" in company.forms[0]


def test_who_is_not_signed_in_there_or_not_allowed_is_told_what_to_do(
    server, protected, company
) -> None:
    alice, upstream = person(), by_company(protected, company)
    facts = facts_of(upstream)
    assert "Sign in to the gateway" in accounts.status_for(alice, upstream).reason
    with pytest.raises(NeedsConnection) as error:
        run(credential_for(alice.pk, facts))
    assert "Sign in to the gateway again" in error.value.message
    company.signed_in[alice.pk] = "an ended sign-in"
    with pytest.raises(NeedsConnection):
        run(credential_for(alice.pk, facts))
    company.signed_in[alice.pk] = "id-of-alice"
    company.allowed = {"bob"}
    with pytest.raises(SetupFailed) as refused:
        run(credential_for(alice.pk, facts))
    assert "does not let you use" in refused.value.message
    company.allowed, server.assertions = None, lambda assertion: ""
    with pytest.raises(SetupFailed) as refused:
        run(credential_for(alice.pk, facts))
    assert "does not accept your company's sign-in" in refused.value.message
    company.changes = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    with pytest.raises(SetupFailed):
        run(credential_for(alice.pk, facts))
    assert not UpstreamAccount.objects.exists()


def test_the_providers_secret_is_not_sent_to_another_provider(protected, company) -> None:
    upstream = by_company(protected, company)
    upstream = actions.update_upstream(
        upstream, {"enterprise_token_url": "https://elsewhere.example/token"}, None
    )
    assert upstream.sealed_enterprise_client_secret == ""
    with pytest.raises(ValidationError):
        actions.update_upstream(upstream, {"enterprise_token_url": ""}, None)
    with pytest.raises(ValidationError):
        actions.update_upstream(upstream, {"enterprise_audience_parameter": "client_id"}, None)
