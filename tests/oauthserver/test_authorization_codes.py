"""Redeeming codes: once, by their owner, for one resource."""

import time
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import AccessToken, Grant, RefreshToken

from oauthserver import bearer_tokens
from oauthserver.models import IssuedCode, OAuthClient
from oauthserver.signals import changed
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, Resources, Session, register
from tests.oauthserver.flows import OTHER_RESOURCE, RESOURCE, Pkce

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]


def test_a_code_becomes_tokens_for_one_resource(session: Session) -> None:
    tokens = session.tokens
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    assert tokens["scope"] == "mcp:tools"
    assert tokens["access_token"].startswith("mcpgw_at_")
    assert tokens["refresh_token"].startswith("mcpgw_rt_")
    assert AccessToken.objects.get().resource == [RESOURCE]
    assert RefreshToken.objects.get().resource == [RESOURCE]


def test_nothing_usable_is_stored(session: Session) -> None:
    secrets = [session.code, session.tokens["access_token"], session.tokens["refresh_token"]]
    for model in (AccessToken, RefreshToken, Grant, IssuedCode):
        for row in model.objects.values_list():
            assert not any(secret in str(row) for secret in secrets)


def test_a_waiting_code_is_stored_as_a_digest(browser: Client, public: OAuthClient) -> None:
    code = flows.code_for(browser, public.client_id, CALLBACK, Pkce())
    rows = str(list(Grant.objects.values_list())) + str(list(IssuedCode.objects.values_list()))
    assert Grant.objects.count() == 1
    assert code not in rows
    assert code.removeprefix("mcpgw_ac_") not in rows


def test_answers_are_never_stored_by_caches(
    browser: Client, api: Client, public: OAuthClient
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    good = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    bad = flows.redeem(api, public.client_id, CALLBACK, "x", pkce)
    for answer in (good, bad):
        assert answer["Cache-Control"] == "no-store"
        assert answer["Pragma"] == "no-cache"


def test_a_replayed_code_ends_what_it_issued(
    api: Client, session: Session, told: list[dict[str, object]]
) -> None:
    again = flows.redeem(api, session.client_id, CALLBACK, session.code, session.pkce)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert not AccessToken.objects.exists()
    dead = flows.refresh(api, session.client_id, session.tokens["refresh_token"])
    assert dead.json()["error"] == "invalid_grant"
    assert "token.code_replayed" in [event["kind"] for event in told]


def test_who_repeats_a_used_code_makes_no_more_work_than_once(
    api: Client, session: Session, told: list[dict[str, object]]
) -> None:
    flushed: list[object] = []

    def hear(**facts: object) -> None:
        flushed.append(facts)

    changed.connect(hear)
    try:
        for _ in range(3):
            again = flows.redeem(api, session.client_id, CALLBACK, session.code, session.pkce)
            assert again.json()["error"] == "invalid_grant"
    finally:
        changed.disconnect(hear)
    # Each makes every process forget every token; a stranger with an old code must not.
    assert len(flushed) == 1
    assert [event["kind"] for event in told].count("token.code_replayed") == 1


def test_a_replayed_code_ends_rotated_successors_too(api: Client, session: Session) -> None:
    second = flows.refresh(api, session.client_id, session.tokens["refresh_token"]).json()
    flows.redeem(api, session.client_id, CALLBACK, session.code, session.pkce)
    assert not AccessToken.objects.exists()
    dead = flows.refresh(api, session.client_id, second["refresh_token"])
    assert dead.json()["error"] == "invalid_grant"


def test_a_replay_by_another_client_revokes_nothing(api: Client, session: Session) -> None:
    stranger = register(api)["client_id"]
    answer = flows.redeem(api, stranger, CALLBACK, session.code, session.pkce)
    assert answer.json()["error"] == "invalid_grant"
    assert AccessToken.objects.count() == 1


@pytest.mark.parametrize("code", ["mcpgw_ac_" + "A" * 43, "1", "x" * 5000, "ü"])
def test_a_made_up_code_is_refused_and_revokes_nothing(
    api: Client, session: Session, code: str
) -> None:
    answer = flows.redeem(api, session.client_id, CALLBACK, code, session.pkce)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert AccessToken.objects.count() == 1


def test_a_code_is_for_the_client_it_was_issued_to(
    browser: Client, api: Client, public: OAuthClient
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    stranger = register(api)["client_id"]
    assert flows.redeem(api, stranger, CALLBACK, code, pkce).json()["error"] == "invalid_grant"
    assert flows.redeem(api, public.client_id, CALLBACK, code, pkce).status_code == 200


def test_a_code_expires_after_a_minute(browser: Client, api: Client, public: OAuthClient) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    assert Grant.objects.get().expires - timezone.now() < timedelta(seconds=61)
    Grant.objects.update(expires=timezone.now() - timedelta(seconds=1))
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert answer.json()["error"] == "invalid_grant"


@pytest.mark.parametrize("verifier", [None, "", "wrong" * 10, "a" * 42, "a" * 129, "CHALLENGE"])
def test_a_wrong_verifier_leaves_the_code_to_its_owner(
    browser: Client, api: Client, public: OAuthClient, verifier: str | None
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    sent = pkce.challenge if verifier == "CHALLENGE" else verifier
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce, code_verifier=sent)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert flows.redeem(api, public.client_id, CALLBACK, code, pkce).status_code == 200


@pytest.mark.parametrize("verifier", ["short" * 8, "a" * 129, "a" * 42 + "!"])
def test_a_verifier_out_of_bounds_is_refused_though_it_fits_the_challenge(
    browser: Client, api: Client, public: OAuthClient, verifier: str
) -> None:
    # RFC 7636 4.1: what is short can be guessed.
    pkce = Pkce(verifier)
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_five_wrong_verifiers_use_the_code_up(
    browser: Client, api: Client, public: OAuthClient
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    for _ in range(5):
        flows.redeem(api, public.client_id, CALLBACK, code, Pkce())
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert answer.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "redirect_uri", [None, CALLBACK + "/", CALLBACK + "?a=1", "https://evil.example/callback"]
)
def test_another_redirect_uri_is_refused_without_using_the_code(
    browser: Client, api: Client, public: OAuthClient, redirect_uri: str | None
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce, redirect_uri=redirect_uri)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert flows.redeem(api, public.client_id, CALLBACK, code, pkce).status_code == 200


@pytest.mark.parametrize("redirect_uri", [None, CALLBACK])
def test_a_redirect_uri_left_out_before_may_be_left_out_again(
    browser: Client, api: Client, public: OAuthClient, redirect_uri: str | None
) -> None:
    pkce = Pkce()
    query = flows.request_of(public.client_id, "", pkce, redirect_uri=None)
    code = flows.answer_of(flows.press(browser, flows.open_page(browser, query)))["code"]
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce, redirect_uri=redirect_uri)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "resource",
    [
        [OTHER_RESOURCE],
        [RESOURCE, RESOURCE],
        [RESOURCE, OTHER_RESOURCE],
        ["nonsense"],
        ["https://evil.example/v1/mcp/tools"],
        [RESOURCE + "//"],
        [RESOURCE + "#f"],
    ],
)
def test_the_token_request_cannot_bring_another_resource(
    browser: Client, api: Client, public: OAuthClient, resource: list[str]
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce, resource=resource)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize("resource", [None, RESOURCE + "/"])
def test_the_resource_may_be_left_out_or_end_in_a_slash(
    browser: Client, api: Client, public: OAuthClient, resource: str | None
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce, resource=resource)
    assert answer.status_code == 200
    assert AccessToken.objects.get().resource == [RESOURCE]


def test_no_token_for_a_person_who_lost_access_meanwhile(
    browser: Client, api: Client, public: OAuthClient, resources: Resources
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    resources.barred.add(("alice", RESOURCE))
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert answer.json()["error"] == "invalid_grant"


def test_no_token_for_a_closed_account(
    browser: Client, api: Client, public: OAuthClient, alice: User
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    User.objects.filter(pk=alice.pk).update(is_active=False)
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert answer.json()["error"] == "invalid_grant"


def test_a_client_without_the_refresh_grant_gets_no_refresh_token(
    browser: Client, api: Client
) -> None:
    client_id = register(api, grant_types=["authorization_code"])["client_id"]
    pkce = Pkce()
    code = flows.code_for(browser, client_id, CALLBACK, pkce)
    tokens = flows.redeem(api, client_id, CALLBACK, code, pkce).json()
    assert "refresh_token" not in tokens
    assert not RefreshToken.objects.exists()
    # Its code can be replayed too, and that ends the access token.
    flows.redeem(api, client_id, CALLBACK, code, pkce)
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, "mcp:tools"),
        ("", "mcp:tools"),
        ("openid email offline_access profile", "mcp:tools offline_access"),
        ("mcp:tools admin superuser", "mcp:tools"),
        ("nonsense", "mcp:tools"),
    ],
)
def test_unknown_scopes_are_dropped_and_never_an_error(
    browser: Client, api: Client, public: OAuthClient, asked: str | None, granted: str
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce, scope=asked)
    tokens = flows.redeem(api, public.client_id, CALLBACK, code, pkce).json()
    assert tokens["scope"] == granted
    assert "refresh_token" in tokens


@pytest.mark.parametrize(
    "grant_type", ["password", "client_credentials", "implicit", "urn:x", "refresh_token "]
)
def test_other_grants_do_not_exist(api: Client, public: OAuthClient, grant_type: str) -> None:
    answer = flows.token_request(
        api, grant_type=grant_type, client_id=public.client_id, username="alice", password="x"
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")


def test_the_record_of_use_follows_the_token_endpoint(
    browser: Client, api: Client, public: OAuthClient
) -> None:
    before = time.time()
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    OAuthClient.objects.update(last_used_at=None)
    flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    public.refresh_from_db()
    assert public.last_used_at is not None
    assert public.last_used_at.timestamp() >= before
    assert bearer_tokens.cached(b"Bearer x", RESOURCE) is None
