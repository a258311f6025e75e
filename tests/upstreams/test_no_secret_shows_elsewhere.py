"""No secret in what programs, operators and people in trouble are shown (S6)."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import include, path

from gateway_site.logging_setup import JsonFormatter, PlainFormatter
from gateway_site.models import AuditEvent
from tests.upstreams.connecting import browser_of, person
from upstreams import sealed_secrets
from upstreams.models import Upstream

pytestmark = pytest.mark.django_db

CANARY = "canary-elsewhere-0123456789"
SECRETS = {
    name: f"canary-{name.lower()}-0123456789-0123456789-0123456789"
    for name in ("PERSON", "PROVIDER", "DIRECTORY", "FIXED", "HEADER", "CLIENT", "COMPANY", "APP")
}
FILE = """
users: [{username: ada, password: env:PERSON}]
identity_providers:
  - {id: company, name: Company, server_url: "https://login.example", client_id: gw,
     client_secret: env:PROVIDER}
scim_tokens: [{name: directory, secret: env:DIRECTORY}]
upstreams:
  - {key: fixed, url: "https://f.example/mcp", credential: fixed, secret: env:FIXED,
     headers: {X-Extra: env:HEADER}}
  - {key: oauth, url: "https://o.example/mcp", credential: user_oauth,
     oauth: {client_id: gw, client_secret: env:CLIENT}}
  - {key: company, url: "https://c.example/mcp", credential: enterprise,
     enterprise: {token_url: "https://login.example/token", client_id: gw,
                  client_secret: env:COMPANY}}
virtual_mcps: [{slug: team, audience: everyone, upstreams: [fixed, oauth, company]}]
clients: [{client_id: app, redirect_uris: ["https://a.example/back"], secret: env:APP}]
"""


def fail(request: HttpRequest) -> HttpResponse:
    """Fail with a secret in a variable and, in the forms in which they occur, in the message."""
    credential = CANARY
    raise RuntimeError(
        f"upstream refused Authorization: Bearer {credential}, client_secret={credential}, "
        f"{json.dumps({'refresh_token': credential})}"
    )


urlpatterns = [path("fail/", fail), path("", include("gateway_site.urls"))]
handler500 = "gateway_site.error_pages.server_error"


@pytest.fixture
def applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Try the file, then apply it, then apply it with other secrets; returns what was said."""
    file, out = tmp_path / "gateway.yaml", StringIO()
    file.write_text(FILE)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    call_command("gateway_apply", str(file), "--dry-run", stdout=out, stderr=out)
    assert not Upstream.objects.exists() and not AuditEvent.objects.exists()
    call_command("gateway_apply", str(file), stdout=out, stderr=out)
    fixed = Upstream.objects.get(key="fixed")
    assert sealed_secrets.open_fixed(fixed) == SECRETS["FIXED"]
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, f"{value}-new")
    call_command("gateway_apply", str(file), "--dry-run", stdout=out, stderr=out)
    return out.getvalue()


def test_s6_what_applying_a_file_says_has_no_secret(applied: str) -> None:
    assert "upstream fixed (secret" in applied
    assert "7 would change, 1 as before." in applied
    assert not [value for value in SECRETS.values() if value in applied]


@pytest.mark.parametrize(
    "text",
    [
        "users: [{username: ada, password: %s}]",
        "upstreams: [{key: a, url: 'https://a.example', credential: %s}]",
        "upstreams: [{key: a, url: 'https://a.example', credential: fixed, secret: %s}]",
        "upstreams: [{key: a, url: 'https://a.example', headers: {X-Key: %s}}]",
        "upstreams: [{key: a, url: 'https://me:%s@a.example/'}]",
        "upstreams: [{key: a, url: 'https://a.example', oauth: {auth_method: %s}}]",
        "scim_tokens: [{name: a, secret: [%s]}]",
        "users: [{username: ada, password: '%s}]",
        "users: [{username: ada, password: *%s}]",
        "users: [{username: ada, active: %s}]",
    ],
)
def test_s6_a_secret_in_the_file_itself_is_refused_without_quoting_it(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text % CANARY)
    with pytest.raises(CommandError) as refused:
        call_command("gateway_apply", str(file), "--dry-run")
    assert "Nothing was changed" in str(refused.value)
    assert CANARY not in str(refused.value)


def test_s6_the_administration_api_shows_no_secret(applied: str) -> None:
    admin = browser_of(person("root", is_staff=True, is_superuser=True))
    answers = [
        admin.get(address)
        for address in (
            "/api/v1/",
            "/api/v1/upstreams/",
            "/api/v1/virtual-mcps/",
            "/api/v1/virtual-mcps/team/",
            *(f"/api/v1/upstreams/{key}/" for key in ("fixed", "oauth", "company")),
        )
    ]
    assert {answer.status_code for answer in answers} == {200}
    shown = "\n".join(answer.content.decode() for answer in answers)
    assert "https://f.example/mcp" in shown
    sealed = [
        value
        for row in Upstream.objects.values()
        for name, value in row.items()
        if name.startswith("sealed_") and isinstance(value, str) and value
    ]
    assert len(sealed) >= 3
    assert not [value for value in (*SECRETS.values(), *sealed) if value in shown]


@pytest.mark.parametrize("accepted", ["text/html", "application/json"])
@override_settings(ROOT_URLCONF=__name__)
def test_s6_a_failure_shows_no_secret_to_anybody(accepted: str, caplog) -> None:
    browser = Client(raise_request_exception=False, headers={"accept": accepted})
    browser.force_login(person("root", is_staff=True, is_superuser=True))
    answer = browser.get("/fail/")
    assert answer.status_code == 500
    assert CANARY not in answer.content.decode() + str(answer.headers)
    (record,) = [one for one in caplog.records if one.exc_info]
    for formatter in (PlainFormatter(), JsonFormatter()):
        line = formatter.format(record)
        assert "upstream refused" in line
        assert CANARY not in line
