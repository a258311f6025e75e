"""Guessing at the token endpoint, whoever reads the stores, stores that are away, and clients
that leave or come from the gateway itself."""

# ruff: noqa: F811
import socket
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from oauth2_provider.models import get_access_token_model, get_refresh_token_model

from oauthserver import request_limits
from oauthserver.client_assertions import ASSERTION_TYPE
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, Resources, Session, register
from tests.oauthserver.flows import RESOURCE, Pkce
from tests.oauthserver.test_client_configuration import call
from tests.oauthserver.test_client_metadata_documents import ask
from tests.oauthserver.test_no_secret_is_told import Life
from tests.oauthserver.test_revocation_and_introspection import (  # noqa: F401
    confidential,
    introspect,
)
from tests.upstreams.test_no_secret_shows import rows

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]
GUESSES = {
    "code": {"grant_type": "authorization_code", "code": "mcpgw_ac_x", "code_verifier": "v" * 43},
    "refresh token": {"grant_type": "refresh_token", "refresh_token": "mcpgw_rt_x"},
    "client": {"client_id": "mcpgw_client_x"},
    "secret": {"client_secret": "mcpgw_cs_x"},
    "assertion": {"client_assertion": "e30.e30.e30", "client_assertion_type": ASSERTION_TYPE},
}


@pytest.mark.parametrize("kind", GUESSES)
def test_115_guesses_of_every_kind_are_slowed_down(
    api: Client, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = request_limits.Limit("failed-token-requests", 5, 5, 100)
    monkeypatch.setattr(request_limits, "FAILED_TOKEN_REQUESTS", few)
    known = register(api)["client_id"]
    body = {"client_id": known, "grant_type": "refresh_token", **GUESSES[kind]}
    statuses = []
    for _ in range(7):
        with CaptureQueriesContext(connection) as asked:
            answer = flows.token_request(api, **body)
        statuses.append(answer.status_code)
        # Each looks for one row by what is indexed, however many rows there are.
        assert len(asked) <= 8
        assert not any("LIKE" in query["sql"] for query in asked)
    assert statuses[4] in (400, 401)
    assert statuses[-1] == 429
    assert 0 < int(answer["Retry-After"]) <= request_limits.WINDOW_SECONDS


def test_115_a_guess_that_is_somebody_elses_looks_like_any_other(
    browser: Client, api: Client
) -> None:
    owner, stranger = register(api)["client_id"], register(api)["client_id"]
    pkce = Pkce()
    code = flows.code_for(browser, owner, CALLBACK, pkce)
    tokens = flows.redeem(api, owner, CALLBACK, code, pkce).json()
    waiting = flows.code_for(browser, owner, CALLBACK, pkce)
    codes = ("mcpgw_ac_" + "A" * 43, waiting, code, "x")
    told = {flows.redeem(api, stranger, CALLBACK, one, pkce).content for one in codes}
    assert len(told) == 1
    guesses = ("mcpgw_rt_" + "A" * 43, tokens["refresh_token"], tokens["access_token"], "x")
    assert len({flows.refresh(api, stranger, one).content for one in guesses}) == 1
    assert flows.refresh(api, owner, tokens["refresh_token"]).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_116_whoever_reads_the_database_and_the_cache_finds_nothing_to_use(
    browser: Client, api: Client
) -> None:
    life = Life(browser, api)
    code, verifier = life.agree()
    first = life.redeem(code, verifier).json()
    second = life.refresh(first["refresh_token"]).json()
    again = life.refresh(first["refresh_token"]).json()
    assert again["refresh_token"] == second["refresh_token"]
    waiting, right = life.agree()
    assert life.redeem(waiting, "w" * 43).status_code == 400
    kept = getattr(cache._connections[cache._alias], "_cache", {})
    found = rows() + repr(kept)
    assert life.client_id in found
    assert len(life.secrets) >= 11
    # Nor the random part alone, behind another name.
    parts = life.secrets | {secret.rpartition("_")[2] for secret in life.secrets}
    assert [part for part in parts if len(part) > 20 and part in found] == []
    assert life.redeem(waiting, right).status_code == 200


def test_110_a_cache_that_is_down_makes_nobody_throw_a_token_away(
    api: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*args: object, **kwargs: object) -> None:
        raise ConnectionError("redis is away")

    token = session.tokens["refresh_token"]
    with monkeypatch.context() as broken:
        for name in ("get", "add", "incr", "set"):
            broken.setattr(cache, name, down)
        answer = flows.refresh(api, session.client_id, token)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert int(answer["Retry-After"]) > 0
    assert "redis" not in answer.content.decode()
    assert flows.refresh(api, session.client_id, token).status_code == 200


def test_22_a_client_that_removes_itself_takes_what_it_holds_along(
    api: Client, browser: Client
) -> None:
    made, pkce = register(api), Pkce()
    code = flows.code_for(browser, made["client_id"], CALLBACK, pkce)
    tokens = flows.redeem(api, made["client_id"], CALLBACK, code, pkce).json()
    waiting = flows.code_for(browser, made["client_id"], CALLBACK, pkce)
    removed = call(api, "DELETE", made["client_id"], made["registration_access_token"])
    assert removed.status_code == 204
    assert not get_access_token_model().objects.exists()
    assert not get_refresh_token_model().objects.filter(revoked=None).exists()
    for dead in (
        flows.refresh(api, made["client_id"], tokens["refresh_token"]),
        flows.redeem(api, made["client_id"], CALLBACK, waiting, pkce),
    ):
        assert (dead.status_code, dead.json()["error"]) == (401, "invalid_client")


def test_44_the_gateways_own_document_is_nobodys_client(
    browser: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: looked_up.append(a) or [])
    settings.PUBLIC_URL = "https://gw.example"
    for host in ("gw.example", "GW.example", "gw.example:443", "gw.example."):
        page = ask(browser, f"https://{host}/.well-known/oauth-client/gateway.json")
        assert page.status_code == 400
    assert looked_up == []


@pytest.mark.parametrize("signing", [True, False])
def test_1_every_address_in_the_metadata_is_of_the_issuers_own_origin(
    api: Client, settings: Any, signing: bool
) -> None:
    settings.PUBLIC_URL = "https://gw.example"
    settings.OIDC_RSA_PRIVATE_KEY = "a key" if signing else ""
    for path in ("oauth-authorization-server", "openid-configuration"):
        document = api.get(f"/.well-known/{path}").json()
        assert document["issuer"] == "https://gw.example"
        addresses = {n: v for n, v in document.items() if n.endswith(("_endpoint", "_uri"))}
        assert len(addresses) == (7 if signing else 5)
        for name, value in addresses.items():
            assert value.startswith("https://gw.example/oauth/"), name


def test_21_a_flood_from_everywhere_leaves_the_vendors_addresses_their_share(
    api: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GATEWAY_SHARED_EGRESS = ["198.51.100.0/24"]
    few = request_limits.Limit("registrations", 3, 4, 8)
    monkeypatch.setattr(request_limits, "REGISTRATIONS", few)

    def sent(address: str) -> int:
        document = {"redirect_uris": [CALLBACK]}
        kind = "application/json"
        answer = api.post("/oauth/register", document, content_type=kind, REMOTE_ADDR=address)
        return answer.status_code

    flood = [sent(f"203.0.113.{number}") for number in range(12)]
    assert flood == [201] * 8 + [429] * 4
    # Somebody who has many addresses must not keep everybody's assistant from registering.
    assert [sent("198.51.100.7") for _ in range(5)] == [201] * 4 + [429]
    assert [sent(f"198.51.100.{number}") for number in range(20, 26)] == [201] * 4 + [429] * 2


def test_a_token_that_opens_nothing_any_more_is_inactive(
    api: Client, confidential: tuple[dict[str, str], dict[str, Any]], resources: Resources
) -> None:
    header, tokens = confidential
    token = tokens["access_token"]
    resources.barred.add(("alice", RESOURCE))
    assert introspect(api, header, token).json() == {"active": False}
    resources.barred.clear()
    assert introspect(api, header, token).json()["active"] is True
    gone = resources.known.pop(RESOURCE)
    assert introspect(api, header, token).json() == {"active": False}
    resources.known[RESOURCE] = gone
    User.objects.update(is_active=False)
    assert introspect(api, header, token).json() == {"active": False}
