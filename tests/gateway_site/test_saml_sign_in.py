"""People sign in by SAML; what is not signed, meant or fresh signs nobody in."""

from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from gateway_site import people_actions, saml_library
from gateway_site.models import AuditEvent
from tests.fakes.saml_provider import SHA1, SamlProvider
from tests.gateway_site.arriving import browser, signed_in

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not saml_library.is_there(), reason=saml_library.MISSING),
]
BASE = "/accounts/saml/company"


@pytest.fixture
def provider():
    attributes = {"email": ["ada@contoso.com"], "givenName": ["Ada"], "groups": ["staff", "x"]}
    with SamlProvider(attributes=attributes).serve() as provider:
        yield provider


@pytest.fixture
def company(provider, db) -> SocialApp:
    cache.clear()
    app = SocialApp(provider_id="company", name="Company")
    settings = {"preset": "saml", "server_url": f"{provider.url}/metadata.xml"}
    people_actions.save_identity_provider(app, {"settings": settings}, actor=None)
    return app


def leave(client: Client, going_to: str = "/connections/") -> str:
    sent = client.post(f"{BASE}/login/?next={going_to}")
    assert sent.status_code == 302, sent.content.decode()
    return sent.headers["Location"]


def post(client: Client, form: dict[str, str]) -> Any:
    """Come back as a browser does: the first request is from another site, without the session."""
    session = client.cookies.pop("gateway-session", None)
    answer = client.post(f"{BASE}/acs/", form)
    assert answer.status_code == 302
    if session is not None:
        client.cookies["gateway-session"] = session.value
    return client.get(answer.headers["Location"])


def arrive(client: Client, provider: SamlProvider) -> Any:
    return post(client, provider.answer_to(leave(client)))


def test_somebody_signs_in_and_has_their_groups(provider, company):
    staff = Group.objects.create(name="staff here")
    people_actions.set_group_mapping(company, [("staff", staff)], actor=None)
    client = browser()
    answer = arrive(client, provider)
    assert answer.headers["Location"] == "/connections/", answer.content.decode()
    ada = User.objects.get()
    assert (ada.email, ada.first_name) == ("ada@contoso.com", "Ada")
    assert list(ada.groups.all()) == [staff]
    provider.attributes["groups"] = ["x"]
    again = browser()
    arrive(again, provider)
    assert signed_in(again)
    assert User.objects.count() == 1
    assert not ada.groups.exists()


WRONG = {
    "unsigned": {"signs": "nothing"},
    "only the response is signed": {"signs": "response"},
    "signed by another": {"key": "other"},
    "signed with SHA-1": {"algorithm": SHA1},
    "for another audience": {"audience": "https://other.example"},
    "of another issuer": {"issuer": "https://other.example"},
    "sent elsewhere": {"destination": "https://other.example/acs/"},
    "expired": {"minutes": -60},
    "of the future": {"minutes": 60},
    "an assertion that answers no request": {"asserts_request": False},
    "an answer to another request": {"in_response_to": "ONELOGIN_0000"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_an_assertion_that_is_wrong_signs_nobody_in(provider, company, wrong):
    for name, value in wrong.items():
        setattr(provider, name, value)
    client = browser()
    answer = arrive(client, provider)
    assert answer.status_code in (401, 403)
    assert not signed_in(client)
    assert not User.objects.exists()
    assert AuditEvent.objects.filter(kind="person.provider_failed").exists()


def test_an_assertion_is_good_once_and_in_the_browser_it_was_asked_for(provider, company):
    client, stranger = browser(), browser()
    form = provider.answer_to(leave(client))
    assert post(stranger, form).status_code == 401
    assert not signed_in(stranger)
    post(client, form)
    assert signed_in(client)
    client.post("/accounts/logout/")
    assert post(client, form).status_code == 401
    assert not signed_in(client)


def test_a_changed_assertion_is_refused(provider, company):
    import base64

    client = browser()
    form = provider.answer_to(leave(client))
    changed = base64.b64decode(form["SAMLResponse"]).replace(b"ada@contoso.com", b"eve@contoso.com")
    assert post(client, {"SAMLResponse": base64.b64encode(changed).decode()}).status_code == 401
    assert not signed_in(client)


@pytest.mark.parametrize("value", ["", "x", "PGE+", "!!!", "PCFET0NUWVBFIGEgW108YS8+"])
def test_what_is_no_answer_is_refused(provider, company, value):
    client = browser()
    leave(client)
    assert post(client, {"SAMLResponse": value}).status_code == 401
    assert not signed_in(client)


def test_what_anybody_sends_as_an_answer_is_small_and_kept_for_minutes(provider, company):
    stranger = browser()
    form = {"SAMLResponse": "x" * 1000}
    assert stranger.post(f"{BASE}/acs/", form).status_code == 302
    (kept,) = Session.objects.all()
    assert kept.expire_date < timezone.now() + timedelta(minutes=11)
    kept.delete()
    for wrong in ({}, {"SAMLResponse": "x" * 300_000}, {**form, "RelayState": "x" * 300_000}):
        refused = stranger.post(f"{BASE}/acs/", wrong)
        assert refused.status_code == 401 and "did not work" in refused.content.decode()
    assert stranger.get(f"{BASE}/acs/").status_code == 405
    assert stranger.post("/accounts/saml/nobody/acs/", form).status_code == 404
    assert not Session.objects.exists()


def test_groups_that_entra_names_elsewhere_are_unknown_and_said_to_be(provider, company):
    name = "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups"
    company.settings = {**company.settings, "groups_claim": name}
    company.save()
    link = "http://schemas.microsoft.com/claims/groups.link"
    provider.attributes = {"email": ["ada@contoso.com"], link: ["https://graph.windows.net/x"]}
    arrive(browser(), provider)
    assert AuditEvent.objects.filter(kind="person.groups_unknown").exists()


def test_domains_and_groups_are_asked_for_here_too(provider, company):
    settings = {**company.settings, "allowed_domains": ["contoso.com"], "allowed_groups": ["staff"]}
    people_actions.save_identity_provider(company, {"settings": settings}, actor=None)
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    provider.attributes["groups"] = ["x"]
    client = browser()
    assert arrive(client, provider).status_code == 403
    assert not signed_in(client)


def test_addresses_are_below_the_public_one_whatever_the_host(provider, company, settings):
    settings.ALLOWED_HOSTS = ["*"]
    stranger = Client(SERVER_NAME="evil.example")
    text = stranger.get(f"{BASE}/metadata/").content.decode()
    assert 'entityID="http://localhost:8000/accounts/saml/company/metadata/"' in text
    assert "http://localhost:8000/accounts/saml/company/acs/" in text
    assert 'WantAssertionsSigned="true"' in text
    assert "evil" not in text


def test_metadata_that_is_none_is_said_to_the_administrator(provider, company, admin_client):
    def steps() -> dict[str, tuple[str, str]]:
        place = f"/admin/socialaccount/socialapp/{company.pk}/test/"
        found = admin_client.post(place, {"step": "check"}).context["steps"]
        return {step.title: (step.state, step.text) for step in found}

    good = steps()
    assert good["Signing certificates"] == ("ok", "1 published.")
    assert provider.url in good["Metadata"][1]
    company.settings["server_url"] = "http://127.0.0.1:9/metadata.xml"
    company.save()
    assert steps()["Metadata"][0] == "failed"
    assert browser().post(f"{BASE}/login/").status_code == 401


def test_the_admin_sets_saml_up_with_one_address(admin_client):
    form = {
        "preset": "saml",
        "server_url": "https://login.contoso.com/federationmetadata.xml?appid=1",
        "group_mappings-TOTAL_FORMS": "0",
        "group_mappings-INITIAL_FORMS": "0",
    }
    answer = admin_client.post("/admin/socialaccount/socialapp/add/", form)
    assert answer.status_code == 302, answer.context["errors"]
    app = SocialApp.objects.get()
    assert (app.provider, app.provider_id, app.client_id) == ("saml", "saml", "saml")
    page = admin_client.get(f"/admin/socialaccount/socialapp/{app.pk}/change/").content.decode()
    assert "http://localhost:8000/accounts/saml/saml/acs/" in page


def test_without_the_library_saml_is_refused_with_a_hint(admin_client, monkeypatch):
    monkeypatch.setattr(saml_library, "is_there", lambda: False)
    form = {"preset": "saml", "server_url": "https://login.contoso.com/metadata.xml"}
    form |= {"group_mappings-TOTAL_FORMS": "0", "group_mappings-INITIAL_FORMS": "0"}
    answer = admin_client.post("/admin/socialaccount/socialapp/add/", form)
    assert "SAML needs python3-saml" in answer.content.decode()
    assert not SocialApp.objects.exists()
