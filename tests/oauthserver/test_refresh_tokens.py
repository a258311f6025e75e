"""Refreshing: rotation, lost answers, replays, and what ends a family."""

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import AccessToken, RefreshToken

from oauthserver import bearer_tokens, rotation_answers
from oauthserver.bearer_tokens import TokenHolder
from oauthserver.models import RotationAnswer
from tests.oauthserver import flows
from tests.oauthserver.conftest import Resources, Session, register
from tests.oauthserver.flows import OTHER_RESOURCE, RESOURCE

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]


def first(session: Session) -> str:
    return str(session.tokens["refresh_token"])


def test_a_refresh_rotates_both_tokens_and_keeps_resource_and_scope(
    api: Client, session: Session
) -> None:
    answer = flows.refresh(api, session.client_id, first(session))
    assert answer.status_code == 200
    tokens = answer.json()
    assert tokens["refresh_token"] != first(session)
    assert tokens["access_token"] != session.tokens["access_token"]
    assert tokens["scope"] == session.tokens["scope"]
    assert tokens["expires_in"] == 3600
    assert AccessToken.objects.latest("pk").resource == [RESOURCE]


def test_a_lost_answer_is_given_again(api: Client, session: Session) -> None:
    lost = flows.refresh(api, session.client_id, first(session)).json()
    again = flows.refresh(api, session.client_id, first(session))
    assert again.status_code == 200
    assert again.json()["refresh_token"] == lost["refresh_token"]
    assert again.json()["access_token"] == lost["access_token"]
    assert again.json()["scope"] == lost["scope"]
    assert 3595 <= again.json()["expires_in"] <= 3600
    assert RefreshToken.objects.count() == 2
    assert flows.refresh(api, session.client_id, lost["refresh_token"]).status_code == 200


def test_a_refresh_token_used_after_its_successor_ends_the_family(
    api: Client, session: Session, told: list[dict[str, object]]
) -> None:
    second = flows.refresh(api, session.client_id, first(session)).json()
    third = flows.refresh(api, session.client_id, second["refresh_token"]).json()
    replayed = flows.refresh(api, session.client_id, first(session))
    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")
    dead = flows.refresh(api, session.client_id, third["refresh_token"])
    assert dead.json()["error"] == "invalid_grant"
    assert not AccessToken.objects.exists()
    assert "token.refresh_replayed" in [event["kind"] for event in told]


def test_the_window_for_lost_answers_is_a_minute(api: Client, session: Session) -> None:
    flows.refresh(api, session.client_id, first(session))
    left = RotationAnswer.objects.get().until - timezone.now()
    assert timedelta(seconds=55) < left <= timedelta(seconds=60)
    RotationAnswer.objects.update(until=timezone.now() - timedelta(seconds=1))
    late = flows.refresh(api, session.client_id, first(session))
    assert late.json()["error"] == "invalid_grant"
    assert not AccessToken.objects.exists()


def test_the_remembered_answer_opens_only_with_the_old_token(api: Client, session: Session) -> None:
    tokens = flows.refresh(api, session.client_id, first(session)).json()
    row = RotationAnswer.objects.get()
    assert tokens["access_token"] not in str(bytes.fromhex(row.sealed))
    # The same row under another token's digest, as an attacker with the database could write it.
    foreign = "mcpgw_rt_" + "x" * 43
    row.checksum = rotation_answers.digest(foreign)
    row.save()
    assert rotation_answers.recall(foreign) is None
    assert json.dumps(tokens["access_token"]) not in row.sealed


def test_the_old_access_token_lives_on_for_calls_under_way(api: Client, session: Session) -> None:
    flows.refresh(api, session.client_id, first(session))
    old = AccessToken.objects.earliest("pk")
    assert timedelta(0) < old.expires - timezone.now() <= timedelta(seconds=60)


def test_an_unused_refresh_token_ends_after_thirty_days(api: Client, session: Session) -> None:
    RefreshToken.objects.update(created=timezone.now() - timedelta(days=29, hours=23))
    alive = flows.refresh(api, session.client_id, first(session))
    assert alive.status_code == 200
    RefreshToken.objects.update(created=timezone.now() - timedelta(days=30, seconds=1))
    late = flows.refresh(api, session.client_id, alive.json()["refresh_token"])
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")


def test_each_use_starts_the_thirty_days_again(api: Client, session: Session) -> None:
    token = first(session)
    for _ in range(3):
        RefreshToken.objects.update(created=timezone.now() - timedelta(days=29))
        AccessToken.objects.update(expires=timezone.now() - timedelta(days=28))
        answer = flows.refresh(api, session.client_id, token)
        assert answer.status_code == 200
        token = answer.json()["refresh_token"]


@pytest.mark.parametrize("resource", [[OTHER_RESOURCE], [RESOURCE, RESOURCE], ["x"]])
def test_a_refresh_cannot_change_the_resource(
    api: Client, session: Session, resource: list[str]
) -> None:
    answer = flows.refresh(api, session.client_id, first(session), resource=resource)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")
    # The token was not used up by the mistake.
    good = flows.refresh(api, session.client_id, first(session), resource=RESOURCE)
    assert good.status_code == 200


@pytest.mark.parametrize("scope", ["openid", "mcp:tools everything", "nothing-known"])
def test_a_refresh_ignores_the_scope_parameter(api: Client, session: Session, scope: str) -> None:
    answer = flows.refresh(api, session.client_id, first(session), scope=scope)
    assert answer.json()["scope"] == "mcp:tools"


def test_another_clients_refresh_token_is_refused_and_stays_alive(
    api: Client, session: Session
) -> None:
    stranger = register(api)["client_id"]
    assert flows.refresh(api, stranger, first(session)).json()["error"] == "invalid_grant"
    assert flows.refresh(api, session.client_id, first(session)).status_code == 200


@pytest.mark.parametrize("kind", ["access_token", "code", "nonsense", "long", "odd"])
def test_only_a_refresh_token_refreshes(api: Client, session: Session, kind: str) -> None:
    presented = {
        "access_token": session.tokens["access_token"],
        "code": session.code,
        "nonsense": "abc",
        "long": "mcpgw_rt_" + "a" * 8000,
        "odd": "mcpgw_rt_ü\n",
    }[kind]
    answer = flows.refresh(api, session.client_id, presented)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert AccessToken.objects.count() == 1


def test_losing_access_stops_refreshing_until_it_comes_back(
    api: Client, session: Session, resources: Resources
) -> None:
    resources.barred.add(("alice", RESOURCE))
    answer = flows.refresh(api, session.client_id, first(session))
    assert answer.json()["error"] == "invalid_grant"
    resources.barred.clear()
    assert flows.refresh(api, session.client_id, first(session)).status_code == 200


def test_a_closed_account_cannot_refresh(api: Client, session: Session, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)
    answer = flows.refresh(api, session.client_id, first(session))
    assert answer.json()["error"] == "invalid_grant"


def test_a_lost_answer_is_not_given_again_once_the_person_lost_access(
    api: Client, session: Session, resources: Resources
) -> None:
    flows.refresh(api, session.client_id, first(session))
    resources.barred.add(("alice", RESOURCE))
    again = flows.refresh(api, session.client_id, first(session))
    assert again.json()["error"] == "invalid_grant"


@pytest.mark.django_db(transaction=True)
async def test_a_replay_is_noticed_by_the_bearer_check_at_once(session_async: Session) -> None:
    session = session_async
    header = b"Bearer " + session.tokens["access_token"].encode()
    assert isinstance(await bearer_tokens.authenticate([header], RESOURCE), TokenHolder)
    assert bearer_tokens.cached(header, RESOURCE) is not None
    from asgiref.sync import sync_to_async

    def replay() -> None:
        api = Client()
        second = flows.refresh(api, session.client_id, first(session)).json()
        flows.refresh(api, session.client_id, second["refresh_token"])
        flows.refresh(api, session.client_id, first(session))

    await sync_to_async(replay, thread_sensitive=False)()
    assert bearer_tokens.cached(header, RESOURCE) is None
    refused = await bearer_tokens.authenticate([header], RESOURCE)
    assert not isinstance(refused, TokenHolder)
