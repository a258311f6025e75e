"""Grants without a consent page: identity assertions of the company, and service accounts."""

import json
import logging
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from jwcrypto import jwk, jws
from oauth2_provider.models import AccessToken, RefreshToken

from gateway_site.logging_setup import PlainFormatter
from oauthserver import (
    actions,
    audience,
    bearer_tokens,
    expiry,
    service_accounts,
    trusted_issuers,
)
from oauthserver.client_assertions import ASSERTION_TYPE
from oauthserver.client_review import set_policy
from oauthserver.errors import ProtocolError
from oauthserver.identity_assertions import GRANT_TYPE, PROFILE, TYPE
from oauthserver.models import OAuthClient, ServiceAccount, TrustedIssuer
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK, Resources
from tests.oauthserver.document_host import DocumentHost
from tests.oauthserver.flows import BASE, OTHER_RESOURCE, RESOURCE
from tests.oauthserver.test_client_authentication import basic

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]

ISSUER = "https://idp.corp.example"
IDP = jwk.JWK.generate(kty="RSA", size=2048, kid="idp-1")
PROGRAM = jwk.JWK.generate(kty="EC", crv="P-256", kid="program-1")
STRANGER = jwk.JWK.generate(kty="RSA", size=2048, kid="idp-1")


def public(key: jwk.JWK) -> dict[str, Any]:
    return {"keys": [key.export_public(as_dict=True)]}


def signed(claims: dict[str, Any], key: jwk.JWK, **header: Any) -> str:
    algorithm = "RS256" if key["kty"] == "RSA" else "ES256"
    token = jws.JWS(json.dumps(claims))
    protected = {"alg": algorithm, "kid": key["kid"], **header}
    token.add_signature(key, None, json.dumps(protected))
    return str(token.serialize(compact=True))


class Company:
    """An identity provider that vouches for Alice, and a client with a secret."""

    def __init__(self, api: Client, alice: User) -> None:
        self.api = api
        self.client, secret = actions.preregister_client(
            name="Company assistant",
            redirect_uris_allowed=[CALLBACK],
            confidential=True,
            actor=None,
        )
        self.headers = basic(self.client.client_id, str(secret))
        values = {"provider": "corp", "jwks": public(IDP), "enabled": True}
        trusted_issuers.trust(ISSUER, values, actor=None)
        SocialAccount.objects.create(user=alice, provider="corp", uid="sub-of-alice")

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        good = {
            "iss": ISSUER,
            "sub": "sub-of-alice",
            "aud": BASE,
            "client_id": self.client.client_id,
            "resource": RESOURCE,
            "scope": "mcp:tools",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + 300,
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def ask(self, assertion: str | None = None, **fields: Any) -> Any:
        given = signed(self.claims(), IDP, typ=TYPE) if assertion is None else assertion
        return flows.token_request(
            self.api, self.headers, grant_type=GRANT_TYPE, assertion=given, **fields
        )

    def ask_with(self, key: jwk.JWK = IDP, typ: str = TYPE, **changes: Any) -> Any:
        return self.ask(signed(self.claims(**changes), key, typ=typ))


@pytest.fixture
def company(api: Client, alice: User) -> Company:
    return Company(api, alice)


def test_the_company_vouches_and_no_page_is_shown(
    company: Company, alice: User, told: list[dict[str, Any]]
) -> None:
    answer = company.ask()
    assert answer.status_code == 200, answer.content
    assert answer["Cache-Control"] == "no-store"
    tokens = answer.json()
    assert "refresh_token" not in tokens
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "mcp:tools")
    row = AccessToken.objects.get()
    assert (row.user, row.resource) == (alice, [RESOURCE])
    assert row.token == ""
    assert not RefreshToken.objects.exists()
    issued = told[-1]
    assert (issued["kind"], issued["user"]) == ("token.issued", alice)
    assert issued["details"]["issuer"] == ISSUER
    held = bearer_tokens.holder_for_any_resource([f"Bearer {tokens['access_token']}".encode()])
    assert isinstance(held, bearer_tokens.TokenHolder)
    assert (held.username, held.audience, held.service_account) == ("alice", RESOURCE, False)


def test_it_is_advertised_only_while_somebody_is_trusted(company: Company) -> None:
    where = "/.well-known/oauth-authorization-server"
    document = company.api.get(where).json()
    assert document["authorization_grant_profiles_supported"] == [PROFILE]
    assert GRANT_TYPE in document["grant_types_supported"]
    trusted_issuers.drop(TrustedIssuer.objects.get(), actor=None)
    document = company.api.get(where).json()
    assert "authorization_grant_profiles_supported" not in document
    assert GRANT_TYPE not in document["grant_types_supported"]
    assert company.ask().json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "https://other.example"},
        {"aud": [BASE, "https://other.example"]},
        {"aud": f"{BASE}/"},
        {"aud": f"{BASE}/oauth/token"},
        {"client_id": "another"},
        {"client_id": None},
        {"exp": 1},
        {"exp": None},
        {"exp": int(time.time()) + 10**7},
        {"exp": "soon"},
        {"iat": int(time.time()) + 5000},
        {"nbf": int(time.time()) + 5000},
        {"jti": None},
        {"jti": ""},
        {"sub": None},
        {"sub": "sub-of-nobody"},
        {"sub": "alice@example.com"},
        {"sub": "a\u0000"},
        {"resource": None},
        {"resource": [RESOURCE, OTHER_RESOURCE]},
        {"resource": "https://other.example/v1/mcp/tools"},
        {"resource": f"{BASE}/v1/mcp/unknown"},
    ],
)
def test_an_assertion_with_anything_wrong_gives_nothing(
    company: Company, changes: dict[str, Any]
) -> None:
    answer = company.ask_with(**changes)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "", "OAUTH-ID-JAG+JWT", f"application/{TYPE}"])
def test_the_type_is_exact(company: Company, typ: str) -> None:
    assert company.ask_with(typ=typ).json()["error"] == "invalid_grant"


def test_other_keys_and_algorithms_are_refused(company: Company) -> None:
    assert company.ask_with(key=STRANGER).json()["error"] == "invalid_grant"
    secret = jwk.JWK.generate(kty="oct", size=256, kid="idp-1")
    token = jws.JWS(json.dumps(company.claims()))
    token.add_signature(secret, None, json.dumps({"alg": "HS256", "kid": "idp-1", "typ": TYPE}))
    assert company.ask(token.serialize(compact=True)).json()["error"] == "invalid_grant"
    head, body, _ = signed(company.claims(), IDP, typ=TYPE).split(".")
    for broken in (f"{head}.{body}.", "a.b.c", "x", "." * 2, "y" * 9000):
        assert company.ask(broken).json()["error"] == "invalid_grant"
    assert company.ask("").json()["error"] == "invalid_request"


def test_an_assertion_works_once(company: Company) -> None:
    assertion = signed(company.claims(), IDP, typ=TYPE)
    assert company.ask(assertion).status_code == 200
    assert company.ask(assertion).json()["error"] == "invalid_grant"


def test_an_assertion_that_cannot_be_noted_as_used_gives_nothing(company: Company) -> None:
    """(2.5 S16)"""

    def down(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "usedassertion" in sql:
            raise OperationalError("connection lost")
        return execute(sql, params, many, context)

    assertion = signed(company.claims(), IDP, typ=TYPE)
    with connection.execute_wrapper(down):
        answer = company.ask(assertion)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert not AccessToken.objects.exists()
    assert company.ask(assertion).status_code == 200


def test_an_assertion_is_never_written_down(
    company: Company, caplog: pytest.LogCaptureFixture, told: list[dict[str, Any]]
) -> None:
    """(d18)"""
    caplog.set_level(logging.DEBUG)
    good = signed(company.claims(), IDP, typ=TYPE)
    bad = signed(company.claims(aud="https://other.example"), IDP, typ=TYPE)
    for assertion in (good, good, bad, f"{good}x"):
        answer = company.ask(assertion)
        assert assertion.rpartition(".")[2] not in answer.content.decode()
    written = "\n".join(map(PlainFormatter().format, caplog.records)) + repr(told)
    assert "token.issued" in written
    for assertion in (good, bad):
        assert [part for part in assertion.split(".")[1:] if part in written] == []


def test_the_request_may_repeat_the_resource_only(company: Company) -> None:
    assert company.ask(resource=RESOURCE).status_code == 200
    assert company.ask(resource=OTHER_RESOURCE).json()["error"] == "invalid_target"
    both = company.ask(resource=[RESOURCE, OTHER_RESOURCE])
    assert both.json()["error"] == "invalid_target"


def test_access_rules_decide_as_always(company: Company, resources: Resources, alice: User) -> None:
    resources.barred.add(("alice", RESOURCE))
    refused = company.ask()
    assert refused.json()["error"] == "invalid_grant"
    resources.barred.clear()
    User.objects.filter(pk=alice.pk).update(is_active=False)
    closed = company.ask()
    assert closed.json() == refused.json()


def test_a_switched_off_issuer_or_a_client_without_proof_gets_nothing(
    company: Company, api: Client, public: OAuthClient
) -> None:
    assertion = signed(company.claims(client_id=public.client_id), IDP, typ=TYPE)
    answer = flows.token_request(
        api, grant_type=GRANT_TYPE, assertion=assertion, client_id=public.client_id
    )
    assert answer.json()["error"] == "unauthorized_client"
    TrustedIssuer.objects.update(enabled=False)
    assert company.ask().json()["error"] == "unsupported_grant_type"


def test_a_client_that_may_prove_itself_has_to(company: Company, api: Client) -> None:
    """ChatGPT's document names ``none`` beside ``private_key_jwt``."""
    name = "https://chat.example/client.json"
    OAuthClient.objects.create(
        client_id=name,
        name="Chat",
        registration_source="cimd",
        authorization_grant_type="authorization-code",
        jwks=public(PROGRAM),
        token_endpoint_auth_method="private_key_jwt",
        metadata={"auth_methods": ["none", "private_key_jwt"]},
        cimd_expires_at=timezone.now() + timedelta(days=1),
    )

    def ask(**proof: str) -> Any:
        vouching = signed(company.claims(client_id=name), IDP, typ=TYPE)
        return flows.token_request(api, grant_type=GRANT_TYPE, assertion=vouching, **proof)

    assert ask(client_id=name).json()["error"] == "unauthorized_client"
    now = int(time.time())
    claims = {"iss": name, "sub": name, "aud": BASE, "exp": now + 60, "jti": uuid.uuid4().hex}
    proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed(claims, PROGRAM)}
    answer = ask(**proof)
    assert answer.status_code == 200, answer.content


@pytest.fixture
def newcomer(company: Company, host: DocumentHost) -> Callable[..., Any]:
    """Ask as a client with a metadata document that nobody has brought here before."""
    name = f"{host.base}/new.json"
    document = {
        "client_id": name,
        "client_name": "Newcomer",
        "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": public(PROGRAM),
    }
    host.publish("/new.json", document)

    def ask(
        issued_with: jwk.JWK = IDP,
        proven_with: jwk.JWK = PROGRAM,
        about: str = name,
        at: str = "/oauth/token",
    ) -> Any:
        vouching = signed(company.claims(client_id=about), issued_with, typ=TYPE)
        now = int(time.time())
        claims = {"iss": name, "sub": name, "aud": BASE, "exp": now + 60, "jti": uuid.uuid4().hex}
        proof = {
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": signed(claims, proven_with),
        }
        asked = {"grant_type": GRANT_TYPE, "assertion": vouching, "client_id": name}
        return flows.form_request(company.api, at, token="x", **asked, **proof)

    return ask


def test_the_first_employee_with_a_new_client_needs_no_page_either(
    newcomer: Callable[..., Any], host: DocumentHost, alice: User
) -> None:
    answer = newcomer()
    assert answer.status_code == 200, answer.content
    row = OAuthClient.objects.get(name="Newcomer")
    assert (row.registration_source, row.approved_at is not None) == ("cimd", True)
    assert AccessToken.objects.get().user == alice
    assert newcomer().status_code == 200
    assert host.asked == ["/new.json"]


@pytest.mark.parametrize("place", ["/oauth/revoke", "/oauth/introspect"])
def test_a_new_client_has_nothing_to_revoke_or_to_ask_about(
    newcomer: Callable[..., Any], host: DocumentHost, place: str
) -> None:
    answer = newcomer(at=place)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert host.asked == []


def test_nobody_but_the_company_has_a_strangers_document_fetched(
    newcomer: Callable[..., Any], host: DocumentHost
) -> None:
    for one in ({"issued_with": STRANGER}, {"about": f"{host.base}/other.json"}):
        answer = newcomer(**one)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert host.asked == []


def test_a_new_client_has_to_prove_itself_and_leaves_nothing_behind_if_it_cannot(
    newcomer: Callable[..., Any],
) -> None:
    other = jwk.JWK.generate(kty="EC", crv="P-256", kid="program-1")
    answer = newcomer(proven_with=other)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert not OAuthClient.objects.filter(name="Newcomer").exists()


def test_a_new_client_that_the_policy_keeps_waiting_stands_in_the_queue(
    newcomer: Callable[..., Any],
) -> None:
    set_policy({"documents": "approval"}, actor=None)
    answer = newcomer()
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
    row = OAuthClient.objects.get(name="Newcomer")
    assert (row.review, row.review_asked_by) == ("waiting", "alice")
    assert not AccessToken.objects.exists()


def test_scopes_are_what_both_name(company: Company, resources: Resources) -> None:
    wide = audience.Resource(RESOURCE, "tools", "Tools", ("mcp:tools.write",))
    resources.known[RESOURCE] = wide
    assert company.ask_with(scope="mcp:tools mcp:tools.write").json()["scope"] == (
        "mcp:tools mcp:tools.write"
    )
    assert company.ask_with(scope="mcp:tools").json()["scope"] == "mcp:tools"
    narrow = signed(company.claims(scope="mcp:tools"), IDP, typ=TYPE)
    assert company.ask(narrow, scope="mcp:tools mcp:tools.write").json()["scope"] == "mcp:tools"


def test_keys_at_a_url_are_fetched_and_follow_a_rotation(
    company: Company, host: DocumentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = host.publish("/keys", public(IDP))
    trusted_issuers.trust(ISSUER, {"jwks_uri": url, "jwks": None}, actor=None)
    assert company.ask().status_code == 200
    assert company.ask().status_code == 200
    assert host.asked == ["/keys"]
    rotated = jwk.JWK.generate(kty="RSA", size=2048, kid="idp-2")
    host.publish("/keys", public(rotated))
    assert company.ask_with(key=rotated).status_code == 200


@pytest.mark.parametrize(
    "values",
    [
        {"provider": ""},
        {"jwks": None},
        {"jwks_uri": "https://idp.corp.example/keys"},
        {"jwks": None, "jwks_uri": "http://idp.corp.example/keys"},
        {"jwks": {"keys": [IDP.export_private(as_dict=True)]}},
    ],
)
def test_an_issuer_is_checked_before_it_is_trusted(values: dict[str, Any]) -> None:
    good = {"provider": "corp", "jwks": public(IDP), "enabled": True}
    with pytest.raises(ValidationError):
        trusted_issuers.trust(ISSUER, {**good, **values}, actor=None)
    with pytest.raises(ValidationError):
        trusted_issuers.trust("http://idp.corp.example", good, actor=None)


# Machine access ---------------------------------------------------------------------------


@pytest.fixture
def account(db: None) -> ServiceAccount:
    set_policy({"machine_access": True}, actor=None)
    return service_accounts.create(
        "Nightly report", resources=[RESOURCE], jwks=public(PROGRAM), actor=None
    )


@pytest.fixture
def sign_on(api: Client, account: ServiceAccount) -> Callable[..., Any]:
    def ask(key: jwk.JWK = PROGRAM, **fields: Any) -> Any:
        now = int(time.time())
        name = account.client.client_id
        claims = {"iss": name, "sub": name, "aud": BASE, "exp": now + 60, "jti": uuid.uuid4().hex}
        assertion = signed(claims, key)
        proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        asked = {"grant_type": "client_credentials", **proof, **fields}
        return flows.token_request(api, **asked)

    return ask


def test_a_service_account_gets_a_token_for_what_was_chosen(
    account: ServiceAccount, sign_on: Callable[..., Any], told: list[dict[str, Any]]
) -> None:
    answer = sign_on()
    assert answer.status_code == 200, answer.content
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope"}
    held = bearer_tokens.holder_for_any_resource(
        [f"Bearer {answer.json()['access_token']}".encode()]
    )
    assert isinstance(held, bearer_tokens.TokenHolder)
    assert (held.audience, held.service_account) == (RESOURCE, True)
    assert held.user_id == account.user_id
    assert told[-1]["details"]["grant"] == "client credentials"


def test_it_names_a_resource_and_gets_no_other(sign_on: Callable[..., Any]) -> None:
    assert sign_on(resource=RESOURCE).status_code == 200
    for other in (OTHER_RESOURCE, f"{BASE}/v1/mcp/unknown", [RESOURCE, OTHER_RESOURCE]):
        assert sign_on(resource=other).json()["error"] == "invalid_target"


def test_with_several_it_has_to_say_which(
    account: ServiceAccount, sign_on: Callable[..., Any]
) -> None:
    service_accounts.change(
        account, resources=[RESOURCE, OTHER_RESOURCE], jwks=public(PROGRAM), actor=None
    )
    assert sign_on().json()["error"] == "invalid_target"
    assert sign_on(resource=OTHER_RESOURCE).status_code == 200


def test_machine_access_is_off_until_an_administrator_says_otherwise(
    api: Client, sign_on: Callable[..., Any]
) -> None:
    where = "/.well-known/oauth-authorization-server"
    assert "client_credentials" in api.get(where).json()["grant_types_supported"]
    set_policy({"machine_access": False}, actor=None)
    assert "client_credentials" not in api.get(where).json()["grant_types_supported"]
    assert sign_on().json()["error"] == "unsupported_grant_type"


def test_switching_machine_access_off_ends_what_programs_hold_and_nothing_else(
    api: Client, company: Company, sign_on: Callable[..., Any]
) -> None:
    program, person = (
        [f"Bearer {one.json()['access_token']}".encode()] for one in (sign_on(), company.ask())
    )
    set_policy({"advice": "Ask.", "machine_access": True}, actor=None)
    assert isinstance(bearer_tokens.holder_for_any_resource(program), bearer_tokens.TokenHolder)
    set_policy({"machine_access": False}, actor=None)
    assert isinstance(bearer_tokens.holder_for_any_resource(program), bearer_tokens.TokenRefusal)
    assert isinstance(bearer_tokens.holder_for_any_resource(person), bearer_tokens.TokenHolder)
    set_policy({"machine_access": True}, actor=None)
    assert isinstance(bearer_tokens.holder_for_any_resource(program), bearer_tokens.TokenRefusal)


def test_a_service_account_is_vouched_for_nobody(
    company: Company, account: ServiceAccount, sign_on: Callable[..., Any]
) -> None:
    name = account.client.client_id
    vouching = signed(company.claims(client_id=name), IDP, typ=TYPE)
    refused = sign_on(grant_type=GRANT_TYPE, assertion=vouching)
    assert (refused.status_code, refused.json()["error"]) == (400, "unauthorized_client")
    assert not AccessToken.objects.exists()


def test_only_its_own_account_makes_a_programs_token_one_of_a_program(
    account: ServiceAccount, alice: User, sign_on: Callable[..., Any]
) -> None:
    token = [f"Bearer {sign_on().json()['access_token']}".encode()]
    AccessToken.objects.update(user=alice)
    held = bearer_tokens.holder_for_any_resource(token)
    assert isinstance(held, bearer_tokens.TokenHolder)
    assert (held.username, held.service_account) == ("alice", False)


def test_other_clients_and_other_keys_get_nothing(
    api: Client, company: Company, sign_on: Callable[..., Any]
) -> None:
    mine = flows.token_request(api, company.headers, grant_type="client_credentials")
    assert mine.json()["error"] == "unauthorized_client"
    other = jwk.JWK.generate(kty="EC", crv="P-256", kid="program-1")
    assert sign_on(key=other).status_code == 401


def test_what_is_taken_away_ends_at_once(
    account: ServiceAccount, sign_on: Callable[..., Any]
) -> None:
    service_accounts.change(
        account, resources=[RESOURCE, OTHER_RESOURCE], jwks=public(PROGRAM), actor=None
    )
    sign_on(resource=RESOURCE)
    sign_on(resource=OTHER_RESOURCE)
    service_accounts.change(account, resources=[RESOURCE], jwks=public(PROGRAM), actor=None)
    assert AccessToken.objects.get().resource == [RESOURCE]
    other = jwk.JWK.generate(kty="EC", crv="P-256", kid="program-2")
    service_accounts.change(account, resources=[RESOURCE], jwks=public(other), actor=None)
    assert not AccessToken.objects.exists()
    assert sign_on().status_code == 401
    service_accounts.delete(account, actor=None)
    assert not User.objects.filter(username__startswith="service-").exists()


def test_deleting_its_client_leaves_no_account_behind(
    account: ServiceAccount, sign_on: Callable[..., Any], told: list[dict[str, Any]]
) -> None:
    sign_on(resource=RESOURCE)
    actions.delete_client(account.client, actor=None)
    assert not User.objects.filter(pk=account.user_id).exists()
    assert not OAuthClient.objects.exists()
    assert not AccessToken.objects.exists()
    assert told[-1]["kind"] == "client.service_account_deleted"
    assert told[-1]["details"]["account"] == account.user.username
    # The name is free again: nothing of the first one is left.
    name = account.client.client_id
    keys = public(PROGRAM)
    service_accounts.create("Report", resources=[RESOURCE], jwks=keys, client_id=name, actor=None)


def test_a_client_through_which_the_company_vouched_is_not_forgotten_after_a_day(
    company: Company,
) -> None:
    rows = OAuthClient.objects.filter(pk=company.client.pk)
    rows.update(registration_source="dcr", approved_at=None)
    assert company.ask().status_code == 200
    rows.update(created=timezone.now() - timedelta(days=3))
    rows.update(last_used_at=timezone.now() - timedelta(days=3))
    expiry.remove_expired()
    assert company.ask().status_code == 200


def test_it_cannot_sign_in_or_take_part_in_the_other_flows(
    account: ServiceAccount, browser: Client
) -> None:
    assert not account.user.has_usable_password()
    query = flows.request_of(account.client.client_id, CALLBACK, flows.Pkce())
    assert flows.open_page(browser, query).status_code == 400


@pytest.mark.parametrize(
    "values",
    [
        {"resources": []},
        {"resources": ["https://other.example/"]},
        {"resources": [f"{RESOURCE}/"]},
        {"jwks": None},
        {"jwks_uri": "https://x.example/keys"},
        {"jwks": {"keys": [PROGRAM.export_private(as_dict=True)]}},
    ],
)
def test_an_account_is_checked_before_it_is_made(values: dict[str, Any]) -> None:
    good: dict[str, Any] = {"resources": [RESOURCE], "jwks": public(PROGRAM), "actor": None}
    with pytest.raises(ProtocolError):
        service_accounts.create("Report", **{**good, **values})
    assert not User.objects.filter(username__startswith="service-").exists()


@pytest.mark.urls("tests.oauthserver.admin_addresses")
def test_an_administrator_makes_both_in_the_admin(
    api: Client, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, Any]]
) -> None:
    from allauth.socialaccount.models import SocialApp

    boss = User.objects.create_superuser("boss", "boss@corp.example", "pw-of-boss")
    api.force_login(boss, "django.contrib.auth.backends.ModelBackend")
    empty = api.get("/admin/oauthserver/trustedissuer/add/").content.decode()
    assert "There is none yet" in empty and "null" not in empty.partition('name="jwks"')[2][:200]
    SocialApp.objects.create(provider="openid_connect", provider_id="corp", name="Corp")
    sent = {"issuer": ISSUER, "provider": "corp", "jwks": json.dumps(public(IDP)), "enabled": "on"}
    made = api.post("/admin/oauthserver/trustedissuer/add/", sent)
    assert made.status_code == 302, made.context["errors"]
    issuer = TrustedIssuer.objects.get()
    page = f"/admin/oauthserver/trustedissuer/{issuer.pk}/change/"
    changed = api.post(page, {"provider": "corp", "jwks_uri": "https://idp.corp.example/k"})
    assert changed.status_code == 302, changed.context["errors"]
    issuer.refresh_from_db()
    assert (issuer.enabled, issuer.jwks, issuer.issuer) == (False, None, ISSUER)
    sent = {"name": "Report", "chosen": [RESOURCE], "jwks": json.dumps(public(PROGRAM))}
    made = api.post("/admin/oauthserver/serviceaccount/add/", sent)
    assert made.status_code == 302, made.context["errors"]
    account = ServiceAccount.objects.get()
    shown = api.get(f"/admin/oauthserver/serviceaccount/{account.pk}/change/")
    assert account.client.client_id in shown.content.decode()
    # Its client can only be switched: what it is stands on the account's page.
    page = f"/admin/oauthserver/oauthclient/{account.client_id}/change/"
    assert api.post(page, {}).status_code == 302
    assert not OAuthClient.objects.get(pk=account.client_id).enabled
    assert api.post(page, {"enabled": "on"}).status_code == 302
    refused = api.post("/admin/oauthserver/serviceaccount/add/", {**sent, "jwks": ""})
    assert refused.status_code == 200
    gone = api.post(f"/admin/oauthserver/serviceaccount/{account.pk}/delete/", {"post": "yes"})
    assert gone.status_code == 302
    kinds = [event["kind"] for event in told]
    assert kinds == [
        "client.issuer_trusted",
        "client.issuer_trusted",
        "client.service_account_made",
        "client.disabled",
        "client.enabled",
        "client.service_account_deleted",
    ]
