"""Single logout with a SAML provider, begun here and begun there; what is not signed ends nothing.

Also ``ForceAuthn``: a provider that is asked to have somebody sign in again has to have done it.
"""

import base64
import textwrap
import time
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from lxml import etree

from gateway_site import people_actions, saml_library, sign_in_secrets
from gateway_site.models import AuditEvent
from tests.consent.people_and_servers import authorize_address, oauth_client, server, upstream
from tests.fakes import saml_logout
from tests.fakes.saml_provider import SHA1, SamlProvider
from tests.gateway_site.arriving import browser, signed_in
from tests.gateway_site.test_saml_sign_in import BASE, arrive, leave, post

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not saml_library.is_there(), reason=saml_library.MISSING),
]
SLS = f"{BASE}/sls/"
HERE = f"http://localhost:8000{SLS}"


@pytest.fixture
def provider():
    with SamlProvider(attributes={"email": ["ada@contoso.com"]}).serve() as provider:
        yield provider


def set_up(provider: SamlProvider, **settings: Any) -> SocialApp:
    cache.clear()
    app = SocialApp(provider_id="company", name="Company")
    settings = {"preset": "saml", "server_url": f"{provider.url}/metadata.xml", **settings}
    people_actions.save_identity_provider(app, {"settings": settings}, actor=None)
    return app


@pytest.fixture
def company(provider, db) -> SocialApp:
    return set_up(provider, sign_out_there=True)


def certificate() -> str:
    """Return the certificate in the gateway's own metadata, as the provider reads it."""
    root = etree.fromstring(browser().get(f"{BASE}/metadata/").content)
    found = root.findtext(".//{http://www.w3.org/2000/09/xmldsig#}X509Certificate")
    text = "\n".join(textwrap.wrap("".join(found.split()), 64))
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"


def here(provider: SamlProvider, **options: Any) -> Client:
    for name, value in options.items():
        setattr(provider, name, value)
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    return client


def still_in(client: Client) -> bool:
    return bool(client.get("/connections/").status_code == 200)


def texts(client: Client) -> str:
    return client.get("/accounts/login/").content.decode()


# Begun here ------------------------------------------------------------------------
def ask(client: Client, how: str = "/accounts/logout/", **form: str) -> str:
    answer = client.post(how, form)
    assert answer.status_code == 302
    return str(answer.headers["Location"])


def test_signing_out_here_signs_out_at_the_provider_and_its_answer_is_told(provider, company):
    client = here(provider, session="s<1>".replace("<", "&lt;").replace(">", "&gt;"))
    address = ask(client)
    assert not still_in(client)
    assert address.startswith(f"{provider.url}/slo?")
    asked = saml_logout.read(address, certificate())
    assert asked.findtext("{*}NameID") == "ada-1"
    assert asked.findtext("{*}SessionIndex") == "s<1>"
    assert asked.get("Destination") == f"{provider.url}/slo"
    answer = saml_logout.response(provider, HERE, asked.get("ID"))
    back = client.get(f"{SLS}?{saml_logout.by_redirect(answer)}")
    assert back.headers["Location"] == "/accounts/login/"
    assert "You are signed out here and at Company." in texts(client)


def test_signing_out_everywhere_signs_out_at_the_provider_too(provider, company):
    client = here(provider)
    address = ask(client, "/accounts/sessions/", end="everything")
    assert saml_logout.read(address, certificate()).findtext("{*}NameID") == "ada-1"
    assert not still_in(client)
    assert "every assistant has to be let in again" in texts(client)


@pytest.mark.parametrize("by_form", [False, True])
@pytest.mark.parametrize(
    "wrong", ["unsigned", "another key", "another request", "no request", "it failed", "twice"]
)
def test_an_answer_that_proves_nothing_is_said_to_the_person(provider, company, wrong, by_form):
    client = here(provider)
    asked = saml_logout.read(ask(client), certificate()).get("ID")
    if wrong == "another request":
        asked = "ONELOGIN_0000"
    if wrong == "no request":
        client = browser()
    status = saml_logout.RESPONDER if wrong == "it failed" else saml_logout.SUCCESS
    answer = saml_logout.response(provider, HERE, asked, status)
    key = {"unsigned": None, "another key": "other"}.get(wrong, "idp")

    def send() -> Any:
        if by_form:
            return client.post(SLS, saml_logout.by_form(answer, key=key))
        return client.get(f"{SLS}?{saml_logout.by_redirect(answer, key=key)}")

    if wrong == "twice":
        send()
        texts(client)
    assert send().headers["Location"] == "/accounts/login/"
    assert "did not confirm that you are signed out there" in texts(client)
    assert AuditEvent.objects.filter(kind="person.provider_failed").exists()


def test_a_link_with_an_answer_tells_nobody_who_is_signed_in_that_they_are_not(provider, company):
    client = here(provider)
    page = client.get(f"{SLS}?SAMLResponse=x")
    assert page.status_code == 400
    assert "This did not sign you out" in page.content.decode()
    assert still_in(client)


def test_a_planted_answer_does_not_spoil_the_real_one(provider, company):
    client = here(provider)
    asked = saml_logout.read(ask(client), certificate()).get("ID")
    client.get(f"{SLS}?SAMLResponse=x")
    texts(client)
    client.get(f"{SLS}?{saml_logout.by_redirect(saml_logout.response(provider, HERE, asked))}")
    assert "You are signed out here and at Company." in texts(client)


def test_a_provider_without_logout_is_not_gone_to(provider):
    provider.offers_logout = False
    set_up(provider, sign_out_there=True)
    assert ask(here(provider)) == "/"


def test_without_the_setting_signing_out_stays_here(provider):
    set_up(provider)
    assert ask(here(provider)) == "/"


def test_a_provider_that_cannot_be_reached_keeps_nobody_signed_in(provider, company):
    client = here(provider)
    cache.clear()
    company.settings = {**company.settings, "server_url": "http://127.0.0.1:9/metadata.xml"}
    company.save()
    assert ask(client) == "/"
    assert not still_in(client)
    assert "Company could not be asked to sign you out there" in texts(client)


def test_metadata_that_the_library_chokes_on_signs_out_here_and_says_so(provider, company):
    client = here(provider)
    provider.logout_address = "http://"
    cache.clear()
    assert ask(client) == "/"
    assert not still_in(client)
    assert "Company could not be asked to sign you out there" in texts(client)
    event = AuditEvent.objects.get(kind="person.provider_failed")
    assert event.details["while"] == "signing out" and "its metadata" in event.details["reason"]
    again = client.post(f"{BASE}/login/")
    assert again.status_code == 401 and "did not work" in again.content.decode()


# Begun there -----------------------------------------------------------------------
@pytest.mark.parametrize("by_form", [False, True])
def test_the_provider_ends_the_session_it_names_in_whatever_browser(provider, company, by_form):
    one, two = here(provider, session="one"), here(provider, session="two")
    message = saml_logout.request(provider, HERE, sessions=("one",))
    stranger = browser()
    if by_form:
        answer = stranger.post(SLS, {**saml_logout.by_form(message), "RelayState": "r&1"})
    else:
        answer = stranger.get(f"{SLS}?{saml_logout.by_redirect(message, relay_state='r&1')}")
    address = answer.headers["Location"]
    assert address.startswith(f"{provider.url}/slo-done?")
    assert parse_qs(urlsplit(address).query)["RelayState"] == ["r&1"]
    said = saml_logout.read(address, certificate())
    assert said.get("InResponseTo") == etree.fromstring(message).get("ID")
    assert said.find(".//{*}StatusCode").get("Value") == saml_logout.SUCCESS
    assert not still_in(one)
    assert still_in(two)
    event = AuditEvent.objects.filter(kind="person.session_ended").latest("pk")
    assert event.details == {"sessions": 1, "by": "saml:company"}


def test_a_request_without_a_session_ends_all_of_the_person_and_nobody_elses(provider, company):
    clients = [here(provider, session="one"), here(provider, session="two")]
    provider.attributes["email"] = ["grace@contoso.com"]
    other = here(provider, name_id="grace-1", session="one")
    message = saml_logout.request(provider, HERE)
    answer = clients[0].get(f"{SLS}?{saml_logout.by_redirect(message)}")
    assert answer.status_code == 302
    assert not any(still_in(client) for client in clients)
    assert still_in(other)


def test_another_provider_ends_nothing_here(provider, company):
    client = here(provider)
    with SamlProvider(attributes={}).serve() as other:
        app = SocialApp(provider_id="other", name="Other")
        settings = {"preset": "saml", "server_url": f"{other.url}/metadata.xml"}
        people_actions.save_identity_provider(app, {"settings": settings}, actor=None)
        place = "/accounts/saml/other/sls/"
        message = saml_logout.request(other, f"http://localhost:8000{place}")
        answer = browser().get(f"{place}?{saml_logout.by_redirect(message)}")
        assert answer.status_code == 302
    assert still_in(client)


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "unsigned": ({}, {"key": None}),
    "signed by another": ({}, {"key": "other"}),
    "signed with SHA-1": ({}, {"algorithm": SHA1}),
    "too old": ({"minutes": -10}, {}),
    "of the future": ({"minutes": 10}, {}),
    "expired": ({"expired": True}, {}),
    "of another issuer": ({"issuer": "https://other.example"}, {}),
    "naming nobody": ({"name_id": ""}, {}),
}


@pytest.mark.parametrize("by_form", [False, True])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_request_that_is_wrong_ends_nothing(provider, company, wrong, by_form):
    client = here(provider)
    message = saml_logout.request(provider, HERE, **wrong[0])
    if by_form:
        answer = client.post(SLS, saml_logout.by_form(message, **wrong[1]))
    else:
        answer = client.get(f"{SLS}?{saml_logout.by_redirect(message, **wrong[1])}")
    assert answer.status_code == 400
    assert "You are still signed in here" in answer.content.decode()
    assert still_in(client)
    assert AuditEvent.objects.filter(kind="person.provider_failed").exists()


@pytest.mark.parametrize("by_form", [False, True])
def test_a_request_for_another_address_or_sent_twice_ends_nothing(provider, company, by_form):
    def send(message: str) -> int:
        if by_form:
            return browser().post(SLS, saml_logout.by_form(message)).status_code
        return browser().get(f"{SLS}?{saml_logout.by_redirect(message)}").status_code

    client = here(provider)
    assert send(saml_logout.request(provider, "https://other.example/sls/")) == 400
    assert still_in(client)
    message = saml_logout.request(provider, HERE)
    assert send(message) == 302
    client = here(provider)
    assert send(message) == 400
    assert still_in(client)


def test_what_was_not_signed_is_not_read(provider, company):
    client = here(provider, name_id="grace-1")
    good = saml_logout.by_redirect(saml_logout.request(provider, HERE, name_id="nobody"))
    evil = saml_logout.by_redirect(saml_logout.request(provider, HERE, name_id="grace-1"), key=None)
    for query in (f"{good}&{evil}", f"{evil}&{good}", f"{good}&{evil.replace('SAMLR', 'SAML%52')}"):
        assert client.get(f"{SLS}?{query}").status_code == 400
        assert still_in(client)
    signed = base64.b64decode(
        saml_logout.by_form(saml_logout.request(provider, HERE, name_id="nobody"))["SAMLRequest"]
    ).decode()
    inner = signed.partition("?>")[2] or signed
    identifier = etree.fromstring(signed.encode()).get("ID")
    outer = saml_logout.request(provider, HERE, name_id="grace-1")
    for wrapped in (
        signed.replace("nobody", "grace-1"),
        outer.replace("</samlp:LogoutRequest>", f"{inner}</samlp:LogoutRequest>"),
        outer.replace(etree.fromstring(outer).get("ID"), identifier).replace(
            "</samlp:LogoutRequest>",
            f"<samlp:Extensions>{inner}</samlp:Extensions></samlp:LogoutRequest>",
        ),
    ):
        form = {"SAMLRequest": base64.b64encode(wrapped.encode()).decode()}
        assert client.post(SLS, form).status_code == 400
        assert still_in(client)


@pytest.mark.parametrize("value", ["", "x", "PGE+", "!!!", "PCFET0NUWVBFIGEgW108YS8+", "A" * 200])
def test_what_is_no_message_is_refused(provider, company, value):
    client = here(provider)
    assert client.get(SLS, {"SAMLRequest": value}).status_code == 400
    assert client.post(SLS, {"SAMLRequest": value}).status_code == 400
    assert client.get(SLS).status_code == 400
    assert client.put(SLS).status_code == 405
    assert still_in(client)


def test_a_message_that_unpacks_to_much_is_not_unpacked(provider, company):
    message = saml_logout.request(provider, HERE, name_id="a" * 5_000_000)
    assert browser().get(f"{SLS}?{saml_logout.by_redirect(message)}").status_code == 400


# The key ---------------------------------------------------------------------------
def test_the_key_stays_and_is_sealed_again_with_the_others(provider, company):
    before = certificate()
    company.refresh_from_db()
    sealed = company.settings["sealed_saml_key"]
    assert "PRIVATE" not in str(company.settings)
    assert sign_in_secrets.reseal() == 1
    company.refresh_from_db()
    assert company.settings["sealed_saml_key"] != sealed
    assert certificate() == before
    people_actions.save_identity_provider(company, {"name": "Contoso"}, actor=None)
    assert certificate() == before


def test_sign_in_requests_are_signed_for_a_provider_that_wants_that(provider):
    set_up(provider)
    assert "Signature=" not in leave(browser())
    provider.wants_signed_requests = True
    cache.clear()
    address = leave(browser())
    assert saml_logout.read(address, certificate()).tag.endswith("AuthnRequest")


# Signing in again ------------------------------------------------------------------
def forced(provider: SamlProvider) -> bool:
    return 'ForceAuthn="true"' in provider.asked[-1]


def test_an_administrator_signs_in_again_there_for_what_changes_something(
    provider, company, settings
):
    settings.GATEWAY_SENSITIVE_MINUTES = 10
    client = here(provider, signed_in_before=30)
    assert not forced(provider)
    ada = User.objects.get()
    ada.is_staff = ada.is_superuser = True
    ada.save()
    place = "/admin/auth/user/add/"
    sent = client.get(place)
    assert sent.headers["Location"].startswith(f"{BASE}/login/?next=")
    form = provider.answer_to(leave(client, place))
    assert forced(provider)
    refused = post(client, form)
    assert refused.status_code == 403
    assert "did not ask you to sign in again" in refused.content.decode()
    assert client.get(place).status_code == 302
    provider.signed_in_before = 0
    assert arrive(client, provider).status_code == 302
    assert client.get(place).status_code == 200


@pytest.mark.parametrize(
    ("demand", "wanted"), [("prompt=login", True), ("max_age=0", True), ("", False)]
)
def test_what_a_client_demands_of_the_sign_in_goes_to_the_provider(
    provider, company, demand, wanted
):
    server("tools", (upstream("tools"), True))
    address = authorize_address(oauth_client(), "tools")
    client = here(provider)
    asked = client.get(f"{address}&{demand}")
    if not wanted:
        assert asked.status_code == 200
        return
    going_to = parse_qs(urlsplit(asked.headers["Location"]).query)["next"][0]
    sent = client.post(f"{BASE}/login/?{urlencode({'next': going_to})}")
    form = provider.answer_to(sent.headers["Location"])
    assert forced(provider)
    assert post(client, form).headers["Location"] == going_to
    assert client.get(going_to).status_code == 200
    assert time.time() - client.session["identity.proved_at"] < 120
