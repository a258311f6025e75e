"""What people and programs see when a request fails (security.md 235, 236)."""

from collections.abc import Iterator

import pytest
from django.core.cache import cache
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import include, path

from tests.consent.people_and_servers import browser_of, person

pytestmark = pytest.mark.django_db


def fail(request: HttpRequest, kind: str) -> None:
    raise {
        "500": RuntimeError("secret detail"),
        "403": PermissionDenied("You need the group Finance for this."),
        "400": SuspiciousOperation("secret detail"),
    }[kind]


urlpatterns = [path("fail/<str:kind>", fail), path("", include("gateway_site.urls"))]
handler400 = "gateway_site.error_pages.bad_request"
handler403 = "gateway_site.error_pages.permission_denied"
handler404 = "gateway_site.error_pages.page_not_found"
handler500 = "gateway_site.error_pages.server_error"
with_failures = override_settings(ROOT_URLCONF=__name__)


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/fail/500", 500, "a fault on our side"),
        ("/fail/403", 403, "You need the group Finance for this."),
        ("/fail/400", 400, "could not be read"),
        ("/nowhere", 404, "There is nothing here"),
    ],
)
@with_failures
def test_error_page_says_what_happened_and_what_to_do(address, status, words):
    browser = Client(raise_request_exception=False, headers={"accept": "text/html"})
    page = browser.get(address)
    body = page.content.decode()
    assert page.status_code == status
    assert words in body
    assert page["X-Request-Id"] in body
    assert "secret detail" not in body
    assert "Traceback" not in body
    assert "no-store" in page["Cache-Control"]
    assert "default-src 'none'" in page["Content-Security-Policy"]


@with_failures
def test_programs_get_json():
    answer = Client(raise_request_exception=False).get("/fail/500")
    assert answer.status_code == 500
    assert answer.json()["error"] == "server_error"
    assert answer.json()["request_id"] == answer["X-Request-Id"]


@with_failures
def test_page_for_a_fault_needs_no_database(django_db_blocker):
    """The database may be what failed."""
    browser = Client(raise_request_exception=False, headers={"accept": "text/html"})
    with django_db_blocker.block():
        page = browser.get("/fail/500")
    assert page.status_code == 500
    assert b"The gateway ran into a problem" in page.content


def test_stale_form_is_explained():
    page = browser_of(person(), enforce_csrf_checks=True).post("/accounts/logout/")
    assert page.status_code == 403
    assert "This form is no longer valid" in page.content.decode()


def test_signed_in_person_keeps_the_navigation_on_error_pages():
    body = browser_of(person()).get("/nowhere").content.decode()
    assert "Connections" in body
    assert "Sign out" in body


@pytest.fixture
def counted_anew() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def test_signing_in_too_often_is_answered_by_a_page_like_the_others(counted_anew):
    browser = Client(headers={"accept": "text/html"})
    for _ in range(31):
        page = browser.post("/accounts/login/", {"login": "maria", "password": "wrong"})
    body = page.content.decode()
    assert page.status_code == 429
    assert int(page["Retry-After"]) == 60
    assert "That was too often" in body
    assert "Wait a minute" in body
    assert page["X-Request-Id"] in body
