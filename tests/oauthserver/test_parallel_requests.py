"""Equal requests at the same moment: exactly one makes something new, none is an error 500."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.test import Client
from oauth2_provider.models import AccessToken, RefreshToken

from oauthserver import actions
from oauthserver.models import IssuedCode, OAuthClient
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, Session
from tests.oauthserver.flows import Pkce
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls("tests.oauthserver.addresses"),
]


def at_once(number: int, step: Callable[[], Any]) -> list[Any]:
    """Run ``step`` in so many threads, all released at the same moment."""
    barrier, results = threading.Barrier(number), []

    def run() -> None:
        try:
            barrier.wait(PATIENCE)
            results.append(step())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert len(results) == number, "a thread died or hangs"
    return results


@pytest.mark.parametrize("round_", range(3))
def test_a_code_redeemed_sixteen_times_at_once_gives_exactly_one_answer(
    browser: Client, public: OAuthClient, round_: int
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    answers = at_once(16, lambda: flows.redeem(Client(), public.client_id, CALLBACK, code, pkce))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [400] * 15
    errors = {answer.json().get("error") for answer in answers if answer.status_code == 400}
    assert errors == {"invalid_grant"}
    # The fifteen were replays: what the first got has ended (RFC 6749 4.1.2).
    assert IssuedCode.objects.get().redeemed_at is not None
    assert not RefreshToken.objects.filter(revoked__isnull=True).exists()


@pytest.mark.parametrize("round_", range(3))
def test_a_refresh_token_used_eight_times_at_once_gives_one_successor(
    session: Session, round_: int
) -> None:
    token = session.tokens["refresh_token"]
    answers = at_once(8, lambda: flows.refresh(Client(), session.client_id, token))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert RefreshToken.objects.count() == 2
    successor = answers[0].json()["refresh_token"]
    assert flows.refresh(Client(), session.client_id, successor).status_code == 200


def test_different_clients_at_once_all_succeed(browser: Client, public: OAuthClient) -> None:
    waiting = []
    for _ in range(8):
        pkce = Pkce()
        waiting.append((flows.code_for(browser, public.client_id, CALLBACK, pkce), pkce))

    def step() -> Any:
        code, pkce = waiting.pop()
        return flows.redeem(Client(), public.client_id, CALLBACK, code, pkce)

    answers = at_once(8, step)
    assert [answer.status_code for answer in answers] == [200] * 8
    assert AccessToken.objects.count() == 8


def test_two_presses_of_one_button_make_one_code(browser: Client, public: OAuthClient) -> None:
    page = flows.open_page(browser, flows.request_of(public.client_id, CALLBACK, Pkce()))
    answers = at_once(2, lambda: flows.press(browser, page))
    assert sorted(answer.status_code for answer in answers) == [302, 400]
    assert IssuedCode.objects.count() == 1


@pytest.mark.parametrize("round_", range(3))
def test_a_refresh_during_a_revocation_leaves_nothing_alive(session: Session, round_: int) -> None:
    token = session.tokens["refresh_token"]
    client = OAuthClient.objects.get(client_id=session.client_id)
    steps: list[Callable[[], Any]] = [
        lambda: flows.refresh(Client(), session.client_id, token),
        lambda: actions.revoke_tokens(actor=None, client=client),
    ]
    results = at_once(2, lambda: steps.pop()())
    answers = [result for result in results if not isinstance(result, int)]
    assert not AccessToken.objects.exists()
    successor = answers[0].json().get("refresh_token", token)
    for one in (successor, token):
        refused = flows.refresh(Client(), session.client_id, one)
        assert refused.json()["error"] == "invalid_grant"


@pytest.mark.parametrize("round_", range(3))
def test_a_redemption_during_a_revocation_leaves_nothing_alive(
    browser: Client, public: OAuthClient, round_: int
) -> None:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    steps: list[Callable[[], Any]] = [
        lambda: flows.redeem(Client(), public.client_id, CALLBACK, code, pkce),
        lambda: actions.revoke_tokens(actor=None, client=public),
    ]
    results = at_once(2, lambda: steps.pop()())
    assert not AccessToken.objects.exists()
    for answer in results:
        if not isinstance(answer, int) and answer.status_code == 200:
            token = answer.json()["refresh_token"]
            dead = flows.refresh(Client(), public.client_id, token)
            assert dead.json()["error"] == "invalid_grant"


@pytest.mark.parametrize("fault", ["_rotate", "_create_family_member"])
def test_a_crash_in_the_middle_of_a_rotation_leaves_the_old_token_working(
    session: Session, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    from oauthserver.token_policy import GatewayOAuth2Validator

    def crash(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection lost")

    with monkeypatch.context() as broken:
        broken.setattr(GatewayOAuth2Validator, fault, crash)
        answer = flows.refresh(Client(), session.client_id, session.tokens["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert "Retry-After" in answer
    assert "connection" not in answer.content.decode()
    again = flows.refresh(Client(), session.client_id, session.tokens["refresh_token"])
    assert again.status_code == 200


def test_a_crash_after_the_rotation_leaves_the_new_token_reachable(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oauthserver import token_endpoint

    def crash(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection lost")

    with monkeypatch.context() as broken:
        broken.setattr(token_endpoint.bearer_tokens, "note_client_use", crash)
        answer = flows.refresh(Client(), session.client_id, session.tokens["refresh_token"])
    assert answer.status_code == 503
    again = flows.refresh(Client(), session.client_id, session.tokens["refresh_token"])
    assert again.status_code == 200
    assert RefreshToken.objects.count() == 2
    successor = again.json()["refresh_token"]
    assert flows.refresh(Client(), session.client_id, successor).status_code == 200


def test_a_code_survives_a_crash_of_its_redemption(
    browser: Client, public: OAuthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oauthserver.token_policy import GatewayOAuth2Validator

    def crash(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection lost")

    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    with monkeypatch.context() as broken:
        broken.setattr(GatewayOAuth2Validator, "_create_family_member", crash)
        answer = flows.redeem(Client(), public.client_id, CALLBACK, code, pkce)
    assert answer.status_code == 503
    assert flows.redeem(Client(), public.client_id, CALLBACK, code, pkce).status_code == 200
