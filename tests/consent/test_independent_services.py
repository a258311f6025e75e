"""One service that is down takes neither the others nor the client's tokens with it."""

import pytest
from oauth2_provider.models import get_refresh_token_model

from tests.consent.people_and_servers import (
    authorize_address,
    browser_of,
    connect,
    oauth_client,
    person,
    server,
    upstream,
)
from tests.consent.test_consent_grows import Connected
from tests.consent.test_consent_page import answer, text_of
from upstreams.models import CredentialKind, UpstreamAccount

pytestmark = pytest.mark.django_db
KEY = CredentialKind.USER_KEY


def test_85_one_service_that_cannot_be_connected_leaves_the_others_and_says_which() -> None:
    alice = person()
    wiki, mail, chat = (upstream(key, KEY) for key in ("wiki", "mail", "chat"))
    server("team", (wiki, True), (mail, True), (chat, False))
    connect(alice, wiki)
    address = authorize_address(oauth_client(), "team")
    browser = browser_of(alice)
    shown = text_of(browser.get(address))
    assert "Connect Mail first." in shown
    assert UpstreamAccount.objects.filter(upstream=wiki).exists()
    assert answer(browser, address).status_code == 409
    # The optional one holds up nobody, the required one does until it is connected.
    connect(alice, mail)
    assert answer(browser, address).status_code == 302


def test_112_a_refresh_does_not_ask_whether_services_are_connected() -> None:
    connected = Connected()
    one = connected.server.choices.get().upstream
    type(one).objects.update(credential_kind=KEY)
    connect(connected.user, type(one).objects.get(pk=one.pk))
    UpstreamAccount.objects.all().delete()
    assert connected.refresh()[0] == 200
    assert get_refresh_token_model().objects.filter(revoked=None).count() == 1
