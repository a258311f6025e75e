"""Whom an identity assertion is about, where each application sees another ``sub`` of a person."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.test import Client
from jwcrypto.jws import JWS
from oauth2_provider.models import AccessToken

from gateway_site import people_actions, saml_library
from gateway_site.models import AuditEvent
from oauthserver import actions, identity_assertions, issuer_subjects, trusted_issuers
from oauthserver.claim_paths import text_at
from oauthserver.identity_assertions import GRANT_TYPE, TYPE
from oauthserver.issuer_subjects import NOT_KNOWN
from oauthserver.models import IssuerSubject, TrustedIssuer, VouchedAccess
from tests.consent.people_and_servers import ORIGIN, REDIRECT, resource, server, upstream
from tests.fakes.openid_provider import OpenIdProvider
from tests.fakes.saml_provider import SamlProvider
from tests.gateway_site import test_saml_sign_in
from tests.gateway_site.arriving import arrive, browser, change, configured, signed_in
from tests.gateway_site.directory import OKTA_USER, Directory
from tests.oauthserver import flows
from tests.oauthserver.test_client_authentication import basic

pytestmark = pytest.mark.django_db
TENANT, OTHER_TENANT = (
    "8f6e2d1c-0000-4000-8000-000000000001",
    "8f6e2d1c-0000-4000-8000-000000000002",
)
GRACE, ADA = "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef", "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4f0"
BY_OID = {"person_claim": "oid", "tenant_claim": "tid"}
BY_ADDRESS = {"person_claim": "email", "domains": ["contoso.com"]}


@pytest.fixture
def provider(db: None) -> Iterator[OpenIdProvider]:
    with OpenIdProvider().serve() as provider:
        yield provider


@pytest.fixture
def company(provider: OpenIdProvider) -> SocialApp:
    return configured(provider)


def came(provider: OpenIdProvider, name: str, oid: str | None, **claims: Any) -> User:
    """Sign somebody in; the subject is one that only the gateway sees."""
    provider.subject = f"pairwise-{name}"
    provider.claims = {
        "preferred_username": name,
        "email": f"{name}@contoso.com",
        "email_verified": True,
        **({"oid": oid, "tid": TENANT} if oid else {}),
        **claims,
    }
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    return User.objects.get(socialaccount__uid=provider.subject)


class Vouching:
    """A provider that vouches for people to one client."""

    def __init__(self, provider: OpenIdProvider, **facts: Any) -> None:
        self.provider = provider
        server("tools", (upstream("weather"), True))
        self.client, secret = actions.preregister_client(
            name="Assistant", redirect_uris_allowed=[REDIRECT], confidential=True, actor=None
        )
        self.headers = basic(self.client.client_id, str(secret))
        self.trust(provider="company", jwks=self.keys(), **facts)

    def keys(self) -> dict[str, Any]:
        key = self.provider.signing_key.export_public(as_dict=True)
        return {"keys": [{name: key[name] for name in ("kty", "kid", "n", "e")}]}

    def trust(self, **facts: Any) -> None:
        trusted_issuers.trust(f"https://{self.provider.client_id}.example", facts, actor=None)

    def assertion(self, **claims: Any) -> str:
        """Sign one about somebody, whose subject there is the client's business alone."""
        now = int(time.time())
        said = {
            "iss": f"https://{self.provider.client_id}.example",
            "sub": "pairwise-for-another-application",
            "aud": ORIGIN,
            "client_id": self.client.client_id,
            "resource": resource("tools"),
            "scope": "mcp:tools",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + 300,
            **claims,
        }
        token = JWS(json.dumps({name: value for name, value in said.items() if value is not None}))
        head = {"alg": "RS256", "kid": self.provider.signing_key["kid"], "typ": TYPE}
        token.add_signature(self.provider.signing_key, None, json.dumps(head))
        return str(token.serialize(compact=True))

    def ask(self, **claims: Any) -> Any:
        return flows.token_request(
            Client(), self.headers, grant_type=GRANT_TYPE, assertion=self.assertion(**claims)
        )

    def person(self, **claims: Any) -> User:
        """Return whom the token that an assertion gives speaks for."""
        answer = self.ask(**claims)
        assert answer.status_code == 200, answer.content
        return AccessToken.objects.order_by("-pk")[0].user  # type: ignore[no-any-return]

    def refused(self, **claims: Any) -> tuple[str, str]:
        """Return what the client reads, and what the audit trail says."""
        before = AccessToken.objects.count()
        answer = self.ask(**claims)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert AccessToken.objects.count() == before
        event = AuditEvent.objects.filter(kind="token.vouching_refused").first()
        assert event is not None and event.target == self.client.client_id
        return answer.json()["error_description"], event.details["reason"]


@pytest.fixture
def entra(provider: OpenIdProvider, company: SocialApp) -> Vouching:
    return Vouching(provider, **BY_OID)


def test_a_person_is_found_by_the_claim_that_is_the_same_for_every_application(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    grace, ada = came(provider, "grace", GRACE), came(provider, "ada", ADA)
    assert entra.person(oid=GRACE, tid=TENANT) == grace
    assert entra.person(oid=ADA, tid=TENANT) == ada
    assert VouchedAccess.objects.count() == 2


def test_the_subject_finds_nobody_where_another_claim_does(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    came(provider, "grace", GRACE)
    words, reason = entra.refused(sub="pairwise-grace")
    assert "it has no text as 'oid'" in words and reason == "claim missing"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"oid": GRACE}, "tenant missing"),
        ({"oid": GRACE, "tid": ""}, "tenant missing"),
        ({"oid": GRACE, "tid": OTHER_TENANT}, "unknown"),
        ({"oid": GRACE, "tid": TENANT.upper()}, "unknown"),
        ({"oid": GRACE.upper(), "tid": TENANT}, "unknown"),
        ({"oid": f"{GRACE} ", "tid": TENANT}, "unknown"),
        ({"oid": "nobody", "tid": TENANT}, "unknown"),
        ({"oid": [GRACE, ADA], "tid": TENANT}, "claim missing"),
        ({"oid": {"is": GRACE}, "tid": TENANT}, "claim missing"),
        ({"oid": "x" * 256, "tid": TENANT}, "claim missing"),
        ({"oid": 7, "tid": TENANT}, "claim missing"),
        ({"oid": True, "tid": TENANT}, "claim missing"),
        ({"tid": TENANT, "email": "grace@contoso.com", "email_verified": True}, "claim missing"),
        ({"oid": GRACE, "tid": TENANT, "sub": None}, "claim missing"),
    ],
)
def test_who_is_not_named_exactly_is_not_found(
    provider: OpenIdProvider, entra: Vouching, claims: dict[str, Any], reason: str
) -> None:
    came(provider, "grace", GRACE)
    assert entra.refused(**claims)[1] == reason


def test_a_claim_of_another_provider_names_nobody(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    """Whoever runs another provider writes any oid and tid into its tokens."""
    came(provider, "grace", GRACE)
    with OpenIdProvider(client_id="other").serve() as other:
        configured(other, "elsewhere")
        other.subject = "s-9"
        other.claims = {"preferred_username": "mallory", "oid": GRACE, "tid": TENANT}
        client = browser()
        arrive(client, other, "elsewhere")
        assert signed_in(client)
    assert entra.person(oid=GRACE, tid=TENANT).username == "grace"
    # And an issuer whose people sign in there names none of this provider's.
    stranger = TrustedIssuer.objects.get()
    entra.trust(provider="elsewhere")
    assert entra.person(oid=GRACE, tid=TENANT).username == "mallory"
    SocialAccount.objects.filter(provider="elsewhere").delete()
    assert entra.refused(oid=GRACE, tid=TENANT)[1] == "unknown"
    assert not IssuerSubject.objects.filter(issuer=stranger).exists()


def test_two_people_with_one_name_are_nobody(provider: OpenIdProvider, entra: Vouching) -> None:
    came(provider, "grace", GRACE)
    came(provider, "mallory", GRACE)
    words, reason = entra.refused(oid=GRACE, tid=TENANT)
    assert reason == "several people" and "more than one person" in words
    User.objects.get(username="mallory").delete()
    assert entra.person(oid=GRACE, tid=TENANT).username == "grace"


def test_two_accounts_of_one_person_are_one_person(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    grace = came(provider, "grace", GRACE)
    second = SocialAccount.objects.create(
        user=grace,
        provider="company",
        uid="second",
        extra_data={"id_token": {"oid": GRACE, "tid": TENANT}},
    )
    issuer_subjects.learn(second)
    assert entra.person(oid=GRACE, tid=TENANT) == grace


def test_a_subject_of_somebody_else_beside_the_claim_makes_it_nobodys(
    provider: OpenIdProvider, company: SocialApp
) -> None:
    vouching = Vouching(provider, person_claim="employee")
    came(provider, "grace", None, employee="e-1")
    came(provider, "ada", None, employee="e-2")
    assert vouching.person(employee="e-1").username == "grace"
    assert vouching.refused(employee="e-1", sub="pairwise-ada")[1] == "several people"


def test_a_claim_that_changes_counts_from_the_next_sign_in_on_and_is_written_down(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    grace = came(provider, "grace", GRACE)
    assert entra.person(oid=GRACE, tid=TENANT) == grace
    came(provider, "grace", ADA)
    assert entra.refused(oid=GRACE, tid=TENANT)[1] == "unknown"
    assert entra.person(oid=ADA, tid=TENANT) == grace
    event = AuditEvent.objects.get(kind="person.issuer_subject_changed")
    assert (event.target, event.details["before"], event.details["after"]) == (
        "grace",
        f"{GRACE} of {TENANT}",
        f"{ADA} of {TENANT}",
    )
    came(provider, "grace", None)
    assert entra.refused(oid=ADA, tid=TENANT)[1] == "unknown"
    assert AuditEvent.objects.filter(kind="person.issuer_subject_changed").count() == 2


def test_a_tenant_that_changes_at_a_sign_in_is_told_apart_in_the_audit_trail(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    came(provider, "grace", GRACE)
    came(provider, "grace", GRACE, tid=OTHER_TENANT)
    event = AuditEvent.objects.get(kind="person.issuer_subject_changed")
    assert TENANT in event.details["before"]
    assert OTHER_TENANT in event.details["after"]


def test_a_claim_that_is_no_text_names_nobody_and_keeps_nobody_from_signing_in(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    unusable: list[Any] = [7, ["one", "two"], {"a": "b"}, "x" * 256]
    for said in unusable:
        came(provider, "grace", said)
        assert not IssuerSubject.objects.exists(), said
    for text in ("half of a letter\ud800", "nothing\x00"):
        assert text_at({"oid": text}, "oid") == "", "no database keeps it"


def test_what_the_signed_token_says_comes_before_userinfo(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    provider.userinfo = {"sub": "pairwise-grace", "oid": ADA, "tid": TENANT}
    grace = came(provider, "grace", GRACE)
    assert entra.person(oid=GRACE, tid=TENANT) == grace
    assert entra.refused(oid=ADA, tid=TENANT)[1] == "unknown"


def test_a_tenant_of_one_answer_does_not_complete_a_claim_of_the_other(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    provider.userinfo = {"sub": "pairwise-grace", "tid": TENANT}
    came(provider, "grace", GRACE, tid=None)
    assert entra.refused(oid=GRACE, tid=TENANT)[1] == "unknown"


def test_people_who_signed_in_before_the_claim_was_chosen_are_found_at_once(
    provider: OpenIdProvider, company: SocialApp
) -> None:
    grace = came(provider, "grace", GRACE)
    vouching = Vouching(provider)
    assert vouching.refused(oid=GRACE, tid=TENANT)[1] == "unknown"
    assert vouching.person(sub="pairwise-grace") == grace
    vouching.trust(**BY_OID)
    assert not AccessToken.objects.exists(), "another way to name people ends what the old one gave"
    assert vouching.person(oid=GRACE, tid=TENANT) == grace
    vouching.trust(person_claim="employee", tenant_claim="")
    assert vouching.refused(employee=GRACE)[1] == "unknown"
    assert not IssuerSubject.objects.exists()


def test_a_changed_trust_is_not_outrun_by_a_request_under_way(
    provider: OpenIdProvider, entra: Vouching, monkeypatch: pytest.MonkeyPatch
) -> None:
    came(provider, "grace", GRACE)
    check: Callable[..., Any] = identity_assertions.check

    def changed_meanwhile(*given: Any) -> Any:
        vouched = check(*given)
        entra.trust(person_claim="employee", tenant_claim="")
        return vouched

    monkeypatch.setattr(identity_assertions, "check", changed_meanwhile)
    answer = entra.ask(oid=GRACE, tid=TENANT)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert not AccessToken.objects.exists()


def test_a_name_that_passes_to_another_person_is_not_outrun_either(
    provider: OpenIdProvider, entra: Vouching, monkeypatch: pytest.MonkeyPatch
) -> None:
    came(provider, "grace", GRACE)
    ada = came(provider, "ada", ADA)
    check: Callable[..., Any] = identity_assertions.check

    def passed_on(*given: Any) -> Any:
        vouched = check(*given)
        IssuerSubject.objects.filter(value=GRACE).update(value="gone")
        IssuerSubject.objects.filter(account__user=ada).update(value=GRACE)
        return vouched

    monkeypatch.setattr(identity_assertions, "check", passed_on)
    answer = entra.ask(oid=GRACE, tid=TENANT)
    assert answer.json()["error_description"] == NOT_KNOWN
    assert not AccessToken.objects.exists()


# aud_sub -----------------------------------------------------------------------------------
def test_the_gateways_own_name_for_a_person_comes_first(
    provider: OpenIdProvider, company: SocialApp
) -> None:
    vouching = Vouching(provider)
    grace = came(provider, "grace", None)
    own = Directory()("GET", "Users").said["Resources"][0]["id"]
    assert vouching.person(aud_sub=own) == grace
    assert vouching.person(aud_sub=own, sub="pairwise-grace") == grace


@pytest.mark.parametrize("facts", [{}, BY_OID])
def test_the_gateways_own_name_and_another_persons_claim_are_nobody(
    provider: OpenIdProvider, company: SocialApp, facts: dict[str, str]
) -> None:
    vouching = Vouching(provider, **facts)
    grace = came(provider, "grace", GRACE)
    came(provider, "ada", ADA)
    of_ada = {"oid": ADA, "tid": TENANT, "sub": "pairwise-ada"}
    assert vouching.refused(aud_sub=str(grace.pk), **of_ada)[1] == "several people"


@pytest.mark.parametrize(
    "own", ["", "0", "grace", "grace@contoso.com", " 1", "9" * 19, "-1", "\u0661"]
)
def test_an_own_name_of_nobody_is_not_made_good_by_the_subject(
    provider: OpenIdProvider, company: SocialApp, own: str
) -> None:
    vouching = Vouching(provider)
    came(provider, "grace", None)
    assert vouching.refused(aud_sub=own, sub="pairwise-grace") == (NOT_KNOWN, "unknown")


def test_an_issuer_names_nobody_who_never_signed_in_with_its_provider(
    provider: OpenIdProvider, company: SocialApp, admin_user: User
) -> None:
    vouching = Vouching(provider)
    by_directory = Directory()("POST", "Users", OKTA_USER).said["id"]
    for somebody in (str(admin_user.pk), by_directory):
        assert vouching.refused(aud_sub=somebody) == (NOT_KNOWN, "unknown")


def test_who_is_unknown_and_who_may_not_read_alike(
    provider: OpenIdProvider, entra: Vouching
) -> None:
    grace = came(provider, "grace", GRACE)
    unknown = entra.ask(oid="nobody", tid=TENANT)
    people_actions.save_person(grace, {"is_active": False}, actor=None)
    closed = entra.ask(oid=GRACE, tid=TENANT)
    assert (unknown.status_code, unknown.content) == (closed.status_code, closed.content)
    reasons = AuditEvent.objects.filter(kind="token.vouching_refused").order_by("pk")
    assert [event.details["reason"] for event in reasons] == ["unknown", "no access"]


# email -------------------------------------------------------------------------------------
@pytest.fixture
def by_address(provider: OpenIdProvider, company: SocialApp) -> Vouching:
    return Vouching(provider, **BY_ADDRESS)


def test_an_address_names_somebody_where_an_administrator_chose_that(
    provider: OpenIdProvider, by_address: Vouching
) -> None:
    grace = came(provider, "grace", None)
    assert by_address.person(email="Grace@Contoso.com", email_verified=True) == grace


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"email": "grace@contoso.com"}, "address not verified"),
        ({"email": "grace@contoso.com", "email_verified": False}, "address not verified"),
        ({"email": "grace@contoso.com", "email_verified": "true"}, "address not verified"),
        ({"email": "grace@contoso.com", "email_verified": 1}, "address not verified"),
        ({"email": "grace@evil.example", "email_verified": True}, "domain"),
        ({"email": "grace@contoso.com.evil.example", "email_verified": True}, "domain"),
        ({"email": "grace@evil.example@contoso.com", "email_verified": True}, "unknown"),
        ({"email": "@contoso.com", "email_verified": True}, "domain"),
        ({"email": "gr\u0131ce@contoso.com", "email_verified": True}, "domain"),
        ({"email_verified": True}, "claim missing"),
    ],
)
def test_an_address_that_is_not_vouched_for_names_nobody(
    provider: OpenIdProvider, by_address: Vouching, claims: dict[str, Any], reason: str
) -> None:
    came(provider, "grace", None)
    assert by_address.refused(**claims)[1] == reason


@pytest.mark.parametrize(
    "said",
    [
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"email": "grace@evil.example"},
    ],
)
def test_an_address_that_was_not_vouched_for_at_sign_in_is_nobodys(
    provider: OpenIdProvider, by_address: Vouching, said: dict[str, Any]
) -> None:
    """Who types somebody else's address at a provider must not get what is theirs."""
    came(provider, "grace", None, **said)
    assert by_address.refused(email="grace@contoso.com", email_verified=True)[1] == "unknown"


def test_addresses_follow_what_is_trusted_at_the_provider(
    provider: OpenIdProvider, company: SocialApp, by_address: Vouching
) -> None:
    change(company, verified_email=True)
    grace = came(provider, "grace", None, email_verified=None)
    asked = {"email": "grace@contoso.com", "email_verified": True}
    assert by_address.person(**asked) == grace
    change(company, verified_email=False)
    assert by_address.refused(**asked)[1] == "unknown"


def test_an_address_that_was_given_to_somebody_else_is_nobodys(
    provider: OpenIdProvider, by_address: Vouching
) -> None:
    came(provider, "grace", None)
    provider.subject = "the next Grace"
    SocialAccount.objects.create(
        user=User.objects.create_user("grace2"), provider="company", uid=provider.subject
    )
    arrive(browser(), provider)
    reason = by_address.refused(email="grace@contoso.com", email_verified=True)[1]
    assert reason == "several people"


# Other names, SAML, and what administrators see --------------------------------------------
def test_claims_may_be_called_differently_in_sign_ins_and_stand_inside_others(
    provider: OpenIdProvider, company: SocialApp
) -> None:
    vouching = Vouching(
        provider,
        person_claim="sub_id.nameid",
        tenant_claim="tenant",
        sign_in_claim="oid",
        sign_in_tenant_claim="tid",
    )
    grace = came(provider, "grace", GRACE)
    assert vouching.person(sub_id={"nameid": GRACE}, tenant=TENANT) == grace
    assert vouching.refused(sub_id={"nameid": GRACE}, tenant=OTHER_TENANT)[1] == "unknown"


@pytest.mark.skipif(not saml_library.is_there(), reason=saml_library.MISSING)
def test_a_person_of_a_saml_provider_is_found_by_an_attribute_or_their_name_there(
    provider: OpenIdProvider,
) -> None:
    place = "http://schemas.microsoft.com/identity/claims/objectidentifier"
    attributes = {"email": ["ada@contoso.com"], place: [ADA], "sub": ["somebody else"]}
    with SamlProvider(attributes=attributes).serve() as saml:
        app = SocialApp(provider_id="company", name="Company")
        stored = {"preset": "saml", "server_url": f"{saml.url}/metadata.xml"}
        people_actions.save_identity_provider(app, {"settings": stored}, actor=None)
        vouching = Vouching(provider, person_claim="employee", sign_in_claim=place)
        client = browser()
        test_saml_sign_in.arrive(client, saml)
        assert signed_in(client)
    ada = SocialAccount.objects.get()
    assert vouching.person(employee=ADA) == ada.user
    vouching.trust(person_claim="sub_id.nameid", sign_in_claim="sub")
    assert vouching.person(sub_id={"nameid": ada.uid}) == ada.user
    assert vouching.refused(sub_id={"nameid": "somebody else"})[1] == "unknown"


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"person_claim": ""}, "person_claim"),
        ({"person_claim": "oid"}, "tenant_claim"),
        ({"person_claim": "preferred_username"}, "person_claim"),
        ({"person_claim": "upn"}, "person_claim"),
        ({"person_claim": "email"}, "domains"),
        ({"person_claim": "email", "domains": ["contoso"]}, "domains"),
        ({"person_claim": "email", "domains": ["a@contoso.com"]}, "domains"),
        ({"person_claim": "email", "domains": ["contoso.com; contoso.de"]}, "domains"),
        ({"person_claim": "email", "domains": ["*.contoso.com"]}, "domains"),
        ({"person_claim": "email", "domains": [".contoso.com"]}, "domains"),
        ({"person_claim": "Email"}, "person_claim"),
        ({"person_claim": "sub_id.email"}, "person_claim"),
        ({"person_claim": "profile.UPN"}, "person_claim"),
        ({"person_claim": " employee"}, "person_claim"),
        ({"person_claim": "e" * 201}, "person_claim"),
        ({"person_claim": "employee", "tenant_claim": "t" * 201}, "tenant_claim"),
        (
            {"person_claim": "employee", "sign_in_claim": "https://example.com/claims/upn"},
            "sign_in_claim",
        ),
        ({**BY_ADDRESS, "sign_in_claim": "mail"}, "sign_in_claim"),
        ({"person_claim": "employee", "sign_in_claim": "email"}, "sign_in_claim"),
        ({"person_claim": "employee", "sign_in_claim": "nickname"}, "sign_in_claim"),
        ({"sign_in_tenant_claim": "tid"}, "tenant_claim"),
        ({"domains": ["contoso.com"]}, "domains"),
    ],
)
def test_what_people_change_or_share_is_not_taken_for_a_name(
    provider: OpenIdProvider, entra: Vouching, facts: dict[str, Any], field: str
) -> None:
    plain: dict[str, Any] = {"person_claim": "sub", "tenant_claim": "", "domains": []}
    with pytest.raises(ValidationError) as refused:
        entra.trust(**{**plain, **facts})
    assert field in refused.value.message_dict
    assert TrustedIssuer.objects.get().person_claim == "oid"


def test_an_administrator_chooses_the_claim_and_sees_whom_it_finds(
    provider: OpenIdProvider, company: SocialApp, admin_client: Client
) -> None:
    vouching = Vouching(provider)
    came(provider, "grace", GRACE)
    came(provider, "ada", None)
    issuer = TrustedIssuer.objects.get()
    page = f"/admin/oauthserver/trustedissuer/{issuer.pk}/change/"
    assert "2 of 2 who have signed in" in admin_client.get(page).content.decode()
    form = {"provider": "company", "jwks": json.dumps(vouching.keys()), "enabled": "on"}
    refused = admin_client.post(page, {**form, "person_claim": "oid"})
    assert "unique within a tenant only" in refused.content.decode()
    saved = admin_client.post(page, {**form, "person_claim": "oid", "tenant_claim": "tid"})
    assert saved.status_code == 302, saved.context["errors"]
    assert "1 of 2 who have signed in" in admin_client.get(page).content.decode()
    assert vouching.person(oid=GRACE, tid=TENANT).username == "grace"
    event = AuditEvent.objects.filter(kind="client.issuer_trusted").first()
    assert event is not None and event.details["members"] == ["person_claim", "tenant_claim"]
    by_mail = {**form, "person_claim": "email", "domains": "Contoso.com, contoso.de"}
    assert admin_client.post(page, by_mail).status_code == 302
    issuer.refresh_from_db()
    assert issuer.domains == ["contoso.com", "contoso.de"]
    assert "contoso.com, contoso.de" in admin_client.get(page).content.decode()
