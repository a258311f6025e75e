"""The company's sign-in by SAML with a provider that nobody of this project wrote.

The provider is ``samlify`` as a process, the gateway another one. Each reads the other's metadata.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fakes.asgi_server import serve
from tests.fakes.browser import Browser, Page
from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.saml_identity_provider import SamlIdentityProvider, saml_identity_provider
from tests.journeys.test_identity_provider import Company, settings, signed_in
from tests.running_gateway import running_gateway

pytestmark = [pytest.mark.npm, pytest.mark.timeout(240)]


@dataclass
class SamlCompany(Company):
    """The gateway with the company's SAML provider."""

    provider: SamlIdentityProvider

    def arrive(self, browser: Browser, login: str) -> str:
        """Sign in by the provider's button; returns the text of the page where that ends."""
        browser.open(f"{self.gateway.url}/accounts/login/")
        browser.press("Continue with Company")
        return self.sign_in_there(browser, login).text

    @staticmethod
    def sign_in_there(browser: Browser, login: str) -> Page:
        """Do what a person does on the provider's pages."""
        browser.press("Sign-in", login=login)
        return browser.press("Continue")


@pytest.fixture(scope="module")
def company() -> Iterator[SamlCompany]:
    with saml_identity_provider() as provider, serve(FakeUpstream()) as upstream:
        configuration = settings(provider, f"{upstream}/mcp")
        configuration["identity_providers"] = [
            {
                "id": "company",
                "name": "Company",
                "preset": "saml",
                "server_url": f"{provider.url}/metadata",
                "group_mapping": {"engineering": "Engineers"},
                "sign_out_there": True,
            }
        ]
        with running_gateway(configuration) as gateway:
            provider.know_gateway(gateway.url)
            yield SamlCompany(gateway, provider)


def test_people_come_in_with_their_groups_by_a_signed_request_and_a_signed_assertion(
    company,
) -> None:
    company.provider.person("grace", "all staff", "engineering")
    browser = company.browser()
    text = company.arrive(browser, "grace")
    seen = company.provider.seen()
    assert seen["errors"] == [], text
    assert signed_in(company, browser), text
    assert seen["asked"][0]["assertionConsumerServiceUrl"].startswith(company.gateway.url)
    assert company.client_of(browser).names()


def test_somebody_without_the_group_comes_in_and_sees_nothing(company) -> None:
    company.provider.person("heidi", "sales")
    browser = company.browser()
    company.arrive(browser, "heidi")
    assert signed_in(company, browser)
    page = browser.open(f"{company.gateway.url}/")
    assert "Team" not in page.text.split("Sign out")[-1], page.text


def test_signing_out_here_signs_out_there_and_its_answer_is_believed(company) -> None:
    company.provider.person("mallory", "engineering")
    browser = company.browser()
    company.arrive(browser, "mallory")
    browser.open(f"{company.gateway.url}/accounts/logout/")
    company.provider.seen()
    page = browser.press("Sign out")
    seen = company.provider.seen()
    assert seen["errors"] == [], page.text
    assert [one["nameID"] for one in seen["asked"]] == ["mallory"]
    assert page.url.startswith(f"{company.gateway.url}/accounts/login/"), page.url
    assert "signed out" in page.text
    assert not signed_in(company, browser)


def test_signing_out_there_ends_the_session_here_and_the_provider_believes_the_answer(
    company,
) -> None:
    company.provider.person("niaj", "engineering")
    company.provider.person("olivia", "engineering")
    browser, other = company.browser(), company.browser()
    company.arrive(browser, "niaj")
    company.arrive(other, "olivia")
    company.provider.seen()
    page = browser.open(company.provider.sign_out_link("niaj"))
    seen = company.provider.seen()
    assert seen["errors"] == [], page.text
    assert len(seen["answered"]) == 1 and "Signed out everywhere" in page.text
    assert not signed_in(company, browser)
    assert signed_in(company, other)
