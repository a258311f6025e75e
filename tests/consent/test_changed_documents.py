"""A client's document that changes after people agreed (security.md 40), through every door."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from gateway_site.models import AuditEvent
from oauthserver.models import OAuthClient
from tests.consent.people_and_servers import browser_of, person, resource, server, upstream
from tests.consent.test_consent_page import answer, text_of
from tests.fakes.asgi_server import authority
from tests.oauthserver import flows
from tests.oauthserver.document_host import DocumentHost, document_host
from tests.oauthserver.flows import Pkce
from tests.oauthserver.real_documents import CHATGPT, at

pytestmark = pytest.mark.django_db
REDIRECT = CHATGPT["redirect_uris"][0]
OTHER = "https://chatgpt.com/another_oauth_redirect"


@pytest.fixture
def host(settings: Any) -> Iterator[DocumentHost]:
    settings.GATEWAY_EXTRA_CA_BUNDLE = str(authority().ca_file)
    settings.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA = True
    cache.clear()
    with document_host() as made:
        yield made
    cache.clear()


class Agreed:
    """A person who agreed to a client as its document described it, and what the client got."""

    def __init__(self, host: DocumentHost) -> None:
        self.host = host
        self.document = at(host.base, CHATGPT)
        self.client_id = str(self.document["client_id"])
        self.publish()
        server("tools", (upstream("wiki"), True))
        self.browser, self.api, pkce = browser_of(person()), Client(), Pkce()
        self.address = "/oauth/authorize?" + urlencode(
            {
                "response_type": "code",
                "client_id": self.client_id,
                "redirect_uri": REDIRECT,
                "code_challenge": pkce.challenge,
                "code_challenge_method": "S256",
                "resource": resource("tools"),
            }
        )
        code = flows.answer_of(answer(self.browser, self.address))["code"]
        target = resource("tools")
        given = flows.redeem(self.api, self.client_id, REDIRECT, code, pkce, resource=target)
        assert given.status_code == 200, given.content
        self.token = given.json()["refresh_token"]

    def publish(self, **changes: Any) -> None:
        path = self.client_id.removeprefix(self.host.base)
        self.host.publish(path, self.document | changes)

    def change(self, **changes: Any) -> None:
        """Publish another document, and let the lifetime of the one before pass."""
        self.publish(**changes)
        OAuthClient.objects.update(cimd_expires_at=timezone.now() - timedelta(seconds=1))
        cache.clear()

    def refresh(self) -> Any:
        answered = flows.refresh(self.api, self.client_id, self.token)
        if answered.status_code == 200:
            self.token = answered.json()["refresh_token"]
        return answered


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_name": "ChatGPT Premium"}, "calls itself ChatGPT Premium now"),
        ({"redirect_uris": [REDIRECT, "https://evil.example/cb"]}, "evil.example"),
    ],
)
def test_40_another_identity_is_asked_about_before_anything_is_renewed(
    host: DocumentHost, changes: dict[str, Any], words: str
) -> None:
    agreed = Agreed(host)
    agreed.change(**changes)
    refused = agreed.refresh()
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert words in refused.json()["error_description"]
    assert words in text_of(agreed.browser.get(agreed.address))
    told = AuditEvent.objects.get(kind="client.metadata_changed")
    assert told.target == agreed.client_id
    assert "code" in flows.answer_of(answer(agreed.browser, agreed.address))
    assert agreed.refresh().status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"logo_uri": "https://pictures.example/other.png"},
        {"jwks_uri": "https://keys.example/jwks.json"},
        {"client_uri": "https://other.example/"},
    ],
)
def test_40_other_keys_and_pictures_are_told_and_sign_nobody_out(
    host: DocumentHost, changes: dict[str, Any]
) -> None:
    agreed = Agreed(host)
    agreed.change(**changes)
    assert agreed.refresh().status_code == 200
    told = AuditEvent.objects.get(kind="client.metadata_changed")
    assert told.details["members"] == list(changes)
    # A code is given on the page only, whatever changed or did not.
    page = agreed.browser.get(agreed.address)
    assert page.status_code == 200
    assert "pictures.example" not in page.content.decode()


def test_40_a_redirect_that_is_gone_is_refused_as_soon_as_the_lifetime_has_passed(
    host: DocumentHost,
) -> None:
    agreed = Agreed(host)
    agreed.publish(redirect_uris=[OTHER])
    assert agreed.browser.get(agreed.address).status_code == 200
    page = agreed.browser.get(agreed.address)
    agreed.change(redirect_uris=[OTHER])
    # Not even the page that is open still leads there.
    pressed = answer(agreed.browser, agreed.address, page=page)
    assert pressed.status_code == 400
    assert "Location" not in pressed
