"""A whole life of a client, and nothing it held as a secret in any log line or audit event."""

import json
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import OperationalError, connection
from django.test import Client
from jwcrypto import jwk, jws

from gateway_site.logging_setup import PlainFormatter
from oauthserver.client_assertions import ASSERTION_TYPE
from oauthserver.models import OAuthClient
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, register
from tests.oauthserver.flows import BASE, Pkce
from tests.oauthserver.test_client_authentication import basic

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]

KEY = jwk.JWK.generate(kty="EC", crv="P-256", kid="k-1")
STATE = "state-that-only-the-client-knows"


@contextmanager
def store_down() -> Iterator[None]:
    """Fail every statement as a database does that went away in the middle of one."""

    def down(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError(f"connection lost while sending {sql}")

    with connection.execute_wrapper(down):
        yield


def assertion(client_id: str) -> str:
    now = int(time.time())
    claims = {"iss": client_id, "sub": client_id, "aud": BASE, "exp": now + 60}
    token = jws.JWS(json.dumps({**claims, "jti": uuid.uuid4().hex}))
    token.add_signature(KEY, None, json.dumps({"alg": "ES256", "kid": "k-1"}))
    return str(token.serialize(compact=True))


class Life:
    """What a client with a secret does from its registration to its end."""

    def __init__(self, browser: Client, api: Client) -> None:
        self.browser, self.api = browser, api
        self.secrets: set[str] = {STATE}
        self.registered = register(api, token_endpoint_auth_method="client_secret_basic")
        self.client_id = self.registered["client_id"]
        self.proof = basic(self.client_id, self.registered["client_secret"])
        self.keep(self.registered, "client_secret", "registration_access_token")

    def keep(self, answered: dict[str, Any], *names: str) -> None:
        self.secrets |= {answered[name] for name in names if name in answered}

    def form(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        answered = flows.form_request(self.api, path, headers or self.proof, **fields)
        if answered.status_code == 200:
            self.keep(answered.json(), "access_token", "refresh_token")
        return answered

    def redeem(self, code: str, verifier: str, **more: Any) -> Any:
        fields = {"code": code, "redirect_uri": CALLBACK, "code_verifier": verifier}
        return self.form("/oauth/token", grant_type="authorization_code", **fields, **more)

    def refresh(self, token: str) -> Any:
        return self.form("/oauth/token", grant_type="refresh_token", refresh_token=token)

    def agree(self) -> tuple[str, str]:
        pkce = Pkce()
        page = flows.open_page(
            self.browser, flows.request_of(self.client_id, CALLBACK, pkce, state=STATE)
        )
        self.secrets |= {pkce.verifier, page.context["transaction"]}
        code = parse_qs(urlsplit(flows.press(self.browser, page)["Location"]).query)["code"][0]
        self.secrets.add(code)
        return code, pkce.verifier

    def live(self) -> None:
        code, verifier = self.agree()
        wrong = Pkce().verifier
        self.secrets.add(wrong)
        assert self.redeem(code, wrong).status_code == 400
        with store_down():
            assert self.redeem(code, verifier).status_code == 503
        first = self.redeem(code, verifier).json()
        with store_down():
            assert self.refresh(first["refresh_token"]).status_code == 503
        second = self.refresh(first["refresh_token"]).json()
        third = self.refresh(second["refresh_token"]).json()
        assert self.form("/oauth/introspect", token=third["access_token"]).json()["active"]
        assert self.refresh(first["refresh_token"]).status_code == 400
        code, verifier = self.agree()
        last = self.redeem(code, verifier).json()
        assert self.redeem(code, verifier).status_code == 400
        assert self.form("/oauth/revoke", token=last["refresh_token"]).status_code == 200
        self.fail_to_prove()
        self.manage()

    def fail_to_prove(self) -> None:
        wrong = f"{self.registered['client_secret']}-of-somebody"
        self.secrets.add(wrong)
        for headers in (basic(self.client_id, wrong), {"Authorization": f"Basic {wrong}"}):
            assert self.form("/oauth/token", headers, grant_type="x").status_code == 401
        signed = assertion(self.client_id)
        self.secrets.add(signed)
        fields = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
        answered = flows.form_request(self.api, "/oauth/token", **fields, grant_type="x")
        assert answered.status_code == 401

    def manage(self) -> None:
        where = f"/oauth/register/{self.client_id}"
        bearer = {"Authorization": f"Bearer {self.registered['registration_access_token']}"}
        wanted = {"client_id": self.client_id, "redirect_uris": [CALLBACK], "client_name": "New"}
        changed = self.api.put(where, wanted, content_type="application/json", headers=bearer)
        assert changed.status_code == 200, changed.content
        self.keep(changed.json(), "client_secret", "registration_access_token")
        assert self.api.get(where, headers=bearer).status_code == 200
        assert self.api.delete(where, headers=bearer).status_code == 204
        assert self.api.get(where, headers=bearer).status_code == 401


def test_s6_no_secret_of_a_clients_life_is_logged_or_audited(
    browser: Client, api: Client, caplog: pytest.LogCaptureFixture, told: list[dict[str, Any]]
) -> None:
    caplog.set_level(logging.DEBUG)
    life = Life(browser, api)
    life.live()
    assert not OAuthClient.objects.exists()
    usual = [record for record in caplog.records if record.levelno >= logging.INFO]
    plain = logging.Formatter("%(name)s %(message)s")
    # What libraries say while somebody looks for a fault goes through the product's formatter.
    everything = [*map(plain.format, usual), *map(PlainFormatter().format, caplog.records)]
    text = "\n".join(everything) + repr(told)
    assert "A store failed at /oauth/token" in text
    assert len(life.secrets) > 15
    assert [secret for secret in life.secrets if secret in text] == []
    kinds = [event["kind"] for event in told]
    for kind in (
        "client.registered",
        "token.issued",
        "token.refresh_replayed",
        "token.code_replayed",
        "token.revoked",
        "client.proof_refused",
        "client.changed",
        "client.deleted",
    ):
        assert kind in kinds
