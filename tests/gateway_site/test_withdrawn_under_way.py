"""A request that is under way while access is withdrawn leaves nothing that lives.

Each withdrawal happens at the two decisive moments: after the request has proven whom it comes
from, and after its token or code is written but before that is committed. Afterwards what was
withdrawn is given back, and what the request brought must still be dead.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.db import connections
from django.db.models.signals import post_save
from django.test import Client
from jwcrypto import jwk, jws
from oauth2_provider.models import AccessToken

from consent import decisions
from consent.models import ConsentRecord
from gateway_site import people_actions
from gateway_site.models import AuditEvent
from oauthserver import actions, bearer_tokens, client_review, service_accounts, trusted_issuers
from oauthserver.authorization import AuthorizationRequestView
from oauthserver.bearer_tokens import TokenRefusal
from oauthserver.client_assertions import ASSERTION_TYPE
from oauthserver.identity_assertions import GRANT_TYPE, TYPE
from oauthserver.models import IssuedCode, OAuthClient, ServiceAccount, TrustedIssuer
from tests.consent.people_and_servers import (
    ORIGIN,
    REDIRECT,
    authorize_address,
    browser_of,
    oauth_client,
    person,
    resource,
    server,
    upstream,
)
from tests.consent.test_consent_page import answer, ticket_on
from tests.oauthserver import flows
from tests.oauthserver.flows import Pkce
from tests.oauthserver.test_client_authentication import basic

pytestmark = pytest.mark.django_db(transaction=True)

ISSUER = "https://idp.corp.example"
KEY = jwk.JWK.generate(kty="EC", crv="P-256", kid="key-1")
OTHER_KEY = jwk.JWK.generate(kty="EC", crv="P-256", kid="key-2")
# As long as a withdrawal is given to reach the row that it then has to wait for.
MOMENT = 0.3


def public(key: jwk.JWK) -> dict[str, Any]:
    return {"keys": [key.export_public(as_dict=True)]}


def signed(claims: dict[str, Any], **header: Any) -> str:
    now = int(time.time())
    token = jws.JWS(json.dumps({"jti": uuid.uuid4().hex, "iat": now, "exp": now + 300, **claims}))
    token.add_signature(KEY, None, json.dumps({"alg": "ES256", "kid": "key-1", **header}))
    return str(token.serialize(compact=True))


class Company:
    """A person, what they agreed to, and every way to tokens there is."""

    def __init__(self) -> None:
        self.api = Client()
        self.server = server("tools", (upstream("wiki"), True))
        server("other", (upstream("else"), True))
        self.user = person()
        self.client = oauth_client(source="dcr")
        self.pkce = Pkce()
        self.tokens: dict[str, Any] = {}
        trusted_issuers.trust(
            ISSUER, {"provider": "corp", "jwks": public(KEY), "enabled": True}, actor=None
        )
        SocialAccount.objects.create(user=self.user, provider="corp", uid="maria-1")
        client_review.set_policy({"machine_access": True}, actor=None)

    def address(self) -> str:
        return authorize_address(self.client, "tools", code_challenge=self.pkce.challenge)

    def new_code(self) -> str:
        self.pkce = Pkce()
        return flows.answer_of(answer(browser_of(self.user), self.address()))["code"]

    def redemption(self) -> Callable[[], Any]:
        code, pkce, client_id = self.new_code(), self.pkce, self.client.client_id
        return lambda: flows.redeem(
            self.api, client_id, REDIRECT, code, pkce, resource=resource("tools")
        )

    def refresh(self) -> Callable[[], Any]:
        token = self.redemption()().json()["refresh_token"]
        return lambda: flows.refresh(self.api, self.client.client_id, token)

    def vouched(self) -> Callable[[], Any]:
        self.client, secret = actions.preregister_client(
            name="Assistant", redirect_uris_allowed=[REDIRECT], confidential=True, actor=None
        )
        assertion = signed(
            {
                "iss": ISSUER,
                "sub": "maria-1",
                "aud": ORIGIN,
                "scope": "mcp:tools",
                "client_id": self.client.client_id,
                "resource": resource("tools"),
            },
            typ=TYPE,
        )
        headers = basic(self.client.client_id, str(secret))
        return lambda: flows.token_request(
            self.api, headers, grant_type=GRANT_TYPE, assertion=assertion
        )

    def machine(self) -> Callable[[], Any]:
        account = service_accounts.create(
            "Nightly",
            resources=[resource("tools"), resource("other")],
            jwks=public(KEY),
            actor=None,
        )
        self.client, self.user = account.client, account.user
        name = self.client.client_id
        assertion = signed({"iss": name, "sub": name, "aud": ORIGIN})
        return lambda: flows.token_request(
            self.api,
            grant_type="client_credentials",
            client_assertion_type=ASSERTION_TYPE,
            client_assertion=assertion,
            resource=resource("tools"),
        )


def _client_off(company: Company) -> None:
    actions.set_client_enabled(company.client, False, actor=None)


def _client_on(company: Company) -> None:
    actions.set_client_enabled(company.client, True, actor=None)


def _client_refused(company: Company) -> None:
    client_review.review_client(company.client, False, actor=None)


def _client_approved(company: Company) -> None:
    client_review.review_client(company.client, True, actor=None)


def _client_deleted(company: Company) -> None:
    actions.delete_client(OAuthClient.objects.get(pk=company.client.pk), actor=None)


def _person_off(company: Company) -> None:
    fresh = User.objects.get(pk=company.user.pk)
    people_actions.save_person(fresh, {"is_active": False}, actor=None)


def _person_on(company: Company) -> None:
    fresh = User.objects.get(pk=company.user.pk)
    people_actions.save_person(fresh, {"is_active": True}, actor=None)


def _person_deleted(company: Company) -> None:
    people_actions.delete_person(User.objects.get(pk=company.user.pk), actor=None)


def _signed_out(company: Company) -> None:
    people_actions.end_access(User.objects.get(pk=company.user.pk), actor=None)


def _consent_revoked(company: Company) -> None:
    decisions.revoke(ConsentRecord.objects.get(client=company.client), actor=company.user)


def _machines_off(company: Company) -> None:
    client_review.set_policy({"machine_access": False}, actor=None)


def _machines_on(company: Company) -> None:
    client_review.set_policy({"machine_access": True}, actor=None)


def _account_changed(company: Company, resources: list[str], key: jwk.JWK) -> None:
    account = ServiceAccount.objects.get(client=company.client)
    service_accounts.change(account, resources=resources, jwks=public(key), actor=None)


def _resource_lost(company: Company) -> None:
    _account_changed(company, [resource("other")], KEY)


def _resource_back(company: Company) -> None:
    _account_changed(company, [resource("tools"), resource("other")], KEY)


def _other_keys(company: Company) -> None:
    _account_changed(company, [resource("tools"), resource("other")], OTHER_KEY)


def _issuer_off(company: Company) -> None:
    trusted_issuers.trust(ISSUER, {"enabled": False}, actor=None)


def _issuer_on(company: Company) -> None:
    trusted_issuers.trust(ISSUER, {"enabled": True}, actor=None)


def _issuer_dropped(company: Company) -> None:
    trusted_issuers.drop(TrustedIssuer.objects.get(issuer=ISSUER), actor=None)


def _nothing(company: Company) -> None:
    """What was deleted does not come back."""


Step = Callable[[Company], None]
CLIENT: list[tuple[Step, Step]] = [
    (_client_off, _client_on),
    (_client_refused, _client_approved),
    (_client_deleted, _nothing),
]
PERSON: list[tuple[Step, Step]] = [(_person_off, _person_on), (_person_deleted, _nothing)]
WITHDRAWALS: dict[str, list[tuple[Step, Step]]] = {
    "redemption": [*CLIENT, *PERSON, (_signed_out, _nothing), (_consent_revoked, _nothing)],
    "refresh": [*CLIENT, *PERSON, (_signed_out, _nothing), (_consent_revoked, _nothing)],
    "vouched": [*CLIENT, *PERSON, (_issuer_off, _issuer_on), (_issuer_dropped, _nothing)],
    "machine": [
        *CLIENT,
        *PERSON,
        (_machines_off, _machines_on),
        (_resource_lost, _resource_back),
        (_other_keys, _nothing),
    ],
}
PAIRS = [
    pytest.param(grant, *steps, id=f"{grant}{steps[0].__name__}")
    for grant, pairs in WITHDRAWALS.items()
    for steps in pairs
]
# A code or refresh token is ended itself, which the room's own tests show; once is enough here.
BEFORE = [
    pair
    for pair in PAIRS
    if not str(pair.id).startswith(("redemption", "refresh")) or str(pair.id).endswith("client_off")
]


class Elsewhere:
    """A withdrawal in another thread, and how it ended."""

    def __init__(self, step: Step, company: Company) -> None:
        self.step, self.company = step, company
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.step(self.company)
        except BaseException as failure:
            self.failure = failure
        finally:
            connections.close_all()

    def begin(self, patience: float) -> None:
        self.thread.start()
        self.thread.join(patience)

    def finish(self) -> None:
        self.thread.join(50)
        assert not self.thread.is_alive(), "the withdrawal hangs"
        if self.failure is not None:
            raise self.failure


def first_time(model: Any, step: Callable[[], None]) -> Callable[[], None]:
    """Call ``step`` once, when a row is made, inside its transaction; returns how to stop."""
    seen: list[Any] = []

    def made(sender: Any, created: bool = False, **_: Any) -> None:
        if created and not seen:
            seen.append(sender)
            step()

    post_save.connect(made, sender=model, weak=False)
    return lambda: post_save.disconnect(made, sender=model) and None


def assert_dead(company: Company, answered: Any, client_id: str) -> None:
    if answered.status_code != 200:
        assert answered.status_code in (400, 401), answered.content
        return
    tokens = answered.json()
    bearer_tokens.forget()
    header = f"Bearer {tokens['access_token']}".encode()
    assert isinstance(bearer_tokens.holder_for_any_resource([header]), TokenRefusal)
    if "refresh_token" in tokens:
        again = flows.refresh(company.api, client_id, tokens["refresh_token"])
        assert again.status_code in (400, 401)


@pytest.mark.parametrize(("grant", "withdraw", "give_back"), BEFORE)
def test_withdrawn_before_the_token_is_made(
    grant: str, withdraw: Step, give_back: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oauthserver import token_endpoint

    company = Company()
    ask = getattr(company, grant)()
    client_id = company.client.client_id
    proven = token_endpoint.authenticated_client

    def then_withdrawn(*arguments: Any, **named: Any) -> OAuthClient:
        found = proven(*arguments, **named)
        withdraw(company)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(token_endpoint, "authenticated_client", then_withdrawn)
        answered = ask()
    give_back(company)
    assert answered.status_code in (400, 401), answered.content
    assert_dead(company, answered, client_id)
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize(("grant", "withdraw", "give_back"), PAIRS)
def test_withdrawn_while_the_token_is_written(grant: str, withdraw: Step, give_back: Step) -> None:
    company = Company()
    ask = getattr(company, grant)()
    client_id = company.client.client_id
    withdrawal = Elsewhere(withdraw, company)
    stop = first_time(AccessToken, lambda: withdrawal.begin(MOMENT))
    try:
        answered = ask()
    finally:
        stop()
    withdrawal.finish()
    give_back(company)
    assert_dead(company, answered, client_id)
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize("moment", ["before the code is made", "while the code is written"])
@pytest.mark.parametrize(
    ("withdraw", "give_back"), [*CLIENT, *PERSON], ids=lambda step: step.__name__
)
def test_withdrawn_while_a_person_agrees(
    moment: str, withdraw: Step, give_back: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = Company()
    company.pkce = Pkce()
    address, client_id = company.address(), company.client.client_id
    browser = browser_of(company.user)
    page = browser.get(address)
    withdrawal = Elsewhere(withdraw, company)
    issue = AuthorizationRequestView._issue

    def after_withdrawal(*arguments: Any) -> str:
        withdrawal.begin(50)
        return issue(*arguments)

    stop: Callable[[], Any] = first_time(IssuedCode, lambda: withdrawal.begin(MOMENT))
    if moment.startswith("before"):
        stop()
        monkeypatch.setattr(AuthorizationRequestView, "_issue", after_withdrawal)
    try:
        agreed = browser.post(address, {"transaction": ticket_on(page), "allow": "yes"})
    finally:
        with suppress(Exception):
            stop()
    withdrawal.finish()
    give_back(company)
    if moment.startswith("before"):
        assert agreed.status_code == 400, agreed.content
        assert b"a moment ago" in agreed.content
        return
    code = flows.answer_of(agreed)["code"]
    answered = flows.redeem(
        company.api, client_id, REDIRECT, code, company.pkce, resource=resource("tools")
    )
    assert_dead(company, answered, client_id)


def test_a_refresh_that_is_rotated_again_at_once_ends_with_its_family() -> None:
    company = Company()
    client_id = company.client.client_id
    first = company.redemption()().json()["refresh_token"]
    second = flows.refresh(company.api, client_id, first).json()["refresh_token"]
    third = flows.refresh(company.api, client_id, second).json()["refresh_token"]
    # The first comes back after its successor was used, while the third is rotated.
    replay = Elsewhere(lambda _: flows.refresh(Client(), client_id, first) and None, company)
    stop = first_time(AccessToken, lambda: replay.begin(MOMENT))
    try:
        answered = flows.refresh(company.api, client_id, third)
    finally:
        stop()
    replay.finish()
    assert_dead(company, answered, client_id)
    assert not AccessToken.objects.exists()


def test_a_deleted_person_of_a_service_account_takes_its_client_along() -> None:
    company = Company()
    assert company.machine()().status_code == 200
    people_actions.delete_person(company.user, actor=None)
    assert not OAuthClient.objects.filter(pk=company.client.pk).exists()
    assert not User.objects.filter(username__startswith="service-").exists()
    kinds = set(AuditEvent.objects.values_list("kind", flat=True))
    assert {"client.service_account_deleted", "person.deleted"} <= kinds
