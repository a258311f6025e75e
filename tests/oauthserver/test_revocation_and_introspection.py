"""Ending and describing tokens: one's own only."""

from typing import Any

import pytest
from django.test import Client
from oauth2_provider.models import AccessToken

from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, Session, register
from tests.oauthserver.flows import BASE, RESOURCE, Pkce
from tests.oauthserver.test_client_authentication import basic

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]


def revoke(api: Client, client_id: str, token: str, **more: Any) -> Any:
    return flows.form_request(api, "/oauth/revoke", client_id=client_id, token=token, **more)


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "nonsense"])
def test_a_client_ends_its_own_token_with_its_family(
    api: Client, session: Session, kind: str, hint: str | None
) -> None:
    response = revoke(api, session.client_id, session.tokens[kind], token_type_hint=hint)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert not AccessToken.objects.exists()
    dead = flows.refresh(api, session.client_id, session.tokens["refresh_token"])
    assert dead.json()["error"] == "invalid_grant"


def test_a_rotated_token_still_ends_its_family(api: Client, session: Session) -> None:
    second = flows.refresh(api, session.client_id, session.tokens["refresh_token"]).json()
    revoke(api, session.client_id, session.tokens["refresh_token"])
    assert not AccessToken.objects.exists()
    dead = flows.refresh(api, session.client_id, second["refresh_token"])
    assert dead.json()["error"] == "invalid_grant"


def test_a_lost_answer_is_not_given_again_after_a_revocation(api: Client, session: Session) -> None:
    flows.refresh(api, session.client_id, session.tokens["refresh_token"])
    revoke(api, session.client_id, session.tokens["refresh_token"])
    again = flows.refresh(api, session.client_id, session.tokens["refresh_token"])
    assert again.json()["error"] == "invalid_grant"


@pytest.mark.parametrize("token", ["unknown", "mcpgw_rt_x", "x" * 9000, "\u00fc"])
def test_an_unknown_token_is_no_error(api: Client, session: Session, token: str) -> None:
    assert revoke(api, session.client_id, token).status_code == 200
    assert AccessToken.objects.count() == 1


def test_another_clients_token_stays_alive(api: Client, session: Session) -> None:
    stranger = register(api)["client_id"]
    for kind in ("access_token", "refresh_token"):
        assert revoke(api, stranger, session.tokens[kind]).status_code == 200
    assert AccessToken.objects.count() == 1
    alive = flows.refresh(api, session.client_id, session.tokens["refresh_token"])
    assert alive.status_code == 200


def test_revocation_needs_a_client_and_a_token(api: Client, session: Session) -> None:
    assert revoke(api, "unknown", session.tokens["access_token"]).status_code == 401
    assert revoke(api, session.client_id, "").json()["error"] == "invalid_request"
    assert AccessToken.objects.count() == 1


@pytest.fixture
def confidential(browser: Client, api: Client) -> tuple[dict[str, str], dict[str, Any]]:
    """A confidential client's header and its tokens."""
    client = register(api, token_endpoint_auth_method="client_secret_basic")
    header = basic(client["client_id"], client["client_secret"])
    pkce = Pkce()
    code = flows.code_for(browser, client["client_id"], CALLBACK, pkce)
    fields = {"code": code, "redirect_uri": CALLBACK, "code_verifier": pkce.verifier}
    answer = flows.token_request(api, header, grant_type="authorization_code", **fields)
    return header, answer.json()


def introspect(api: Client, header: dict[str, str], token: str) -> Any:
    return flows.form_request(api, "/oauth/introspect", header, token=token)


def test_a_confidential_client_sees_its_own_token(
    api: Client, confidential: tuple[dict[str, str], dict[str, Any]]
) -> None:
    header, tokens = confidential
    response = introspect(api, header, tokens["access_token"])
    assert response["Cache-Control"] == "no-store"
    facts = response.json()
    assert facts["active"] is True
    assert (facts["username"], facts["aud"], facts["iss"]) == ("alice", RESOURCE, BASE)
    assert (facts["scope"], facts["token_type"]) == ("mcp:tools", "Bearer")
    assert facts["exp"] - facts["iat"] == pytest.approx(3600, abs=2)


def test_anything_else_is_inactive_and_nothing_more(
    api: Client, session: Session, confidential: tuple[dict[str, str], dict[str, Any]]
) -> None:
    header, tokens = confidential
    for token in (session.tokens["access_token"], tokens["refresh_token"], "unknown", "\u00fc"):
        assert introspect(api, header, token).json() == {"active": False}
    AccessToken.objects.all().delete()
    assert introspect(api, header, tokens["access_token"]).json() == {"active": False}


def test_a_public_client_may_not_introspect(api: Client, session: Session) -> None:
    response = flows.form_request(
        api,
        "/oauth/introspect",
        client_id=session.client_id,
        token=session.tokens["access_token"],
    )
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert api.get(f"/oauth/introspect?token={session.tokens['access_token']}").status_code == 405
