"""Administrators see every step of an attempt, and no secret of anybody's."""

import json
import logging
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from tests.fakes.authorization_server import Fault
from tests.upstreams.connecting import (
    FakeAuthorizationServer,
    account_of,
    approve,
    begin,
    browser_of,
    connect,
    expire,
    facts_of,
    person,
    query_of,
    upstream_at,
)
from upstreams import credentials, oauth_trace, trace_redaction
from upstreams.models import OAuthTrace, UpstreamClient

pytestmark = pytest.mark.django_db(transaction=True)


def secrets_of(server: FakeAuthorizationServer) -> list[str]:
    """Everything that must not be written down anywhere."""
    found = [*server.tokens, *server.refresh_tokens, *server.spent, *server.codes]
    for seen in server.requests:
        for name in ("code", "code_verifier", "refresh_token", "client_secret", "state", "token"):
            found += [seen.form[name]] if name in seen.form else []
            found += [seen.query[name]] if name in seen.query else []
        found.append(seen.headers.get("authorization", "").partition(" ")[2])
    found += [client.get("client_secret", "") for client in server.clients.values()]
    return [one for one in found if one]


def written() -> str:
    return json.dumps(list(OAuthTrace.objects.values_list("steps", "message", "failed_step")))


def test_a_connect_is_one_trace_from_discovery_to_the_tokens(server, protected) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    assert connect(browser_of(alice), upstream).status_code == 303
    trace = OAuthTrace.objects.get()
    assert (trace.user, trace.purpose, trace.outcome) == (alice, "connect", "ok")
    asked = " ".join(step.get("request", "") for step in trace.steps)
    for part in ("/mcp", "oauth-protected-resource", "oauth-authorization-server", "/register",
                 "/authorize", "/connect/callback", "/token"):  # fmt: skip
        assert part in asked, asked
    by_path = {step["request"].rpartition("/")[2]: step for step in trace.steps}
    assert by_path["token"]["sent"]["grant_type"] == "authorization_code"
    assert by_path["token"]["received"]["token_type"].lower() == "bearer"
    assert by_path["register"]["received"]["client_id"] == UpstreamClient.objects.get().client_id
    assert "not shown" in by_path["token"]["sent"]["code"]
    assert trace.steps[0]["answer_headers"]["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_no_secret_is_written_down(server, protected, method: str, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    server.changes["token_endpoint_auth_methods_supported"] = [method]
    alice, upstream = person(), upstream_at(protected.url)
    assert connect(browser_of(alice), upstream).status_code == 303
    expire()
    async_to_sync(credentials.credential_for)(alice.pk, facts_of(upstream))
    assert OAuthTrace.objects.filter(purpose="refresh", outcome="ok").exists()
    secrets, said = secrets_of(server), written()
    assert len(secrets) > 8
    assert [one for one in secrets if one in said] == []
    assert account_of(alice, upstream).sealed_secret not in said


def test_a_server_that_repeats_secrets_in_its_errors_gives_none_away(server, protected) -> None:
    browser, upstream = browser_of(person()), upstream_at(protected.url)
    address = begin(browser, upstream)
    callback = approve(address)
    code = query_of(callback)["code"]
    error = {"error": "invalid_grant", "error_description": f"code {code} is spent", "hint": code}
    server.token_faults = [Fault(400, json.dumps(error).encode(), content_type="application/json")]
    assert browser.get(callback).status_code == 502
    trace = OAuthTrace.objects.get()
    assert (trace.outcome, trace.failed_step) == ("failed", "token")
    last = [step for step in trace.steps if step.get("status") == 400][-1]
    assert last["received"]["error"] == "invalid_grant"
    assert "is spent" in last["received"]["error_description"]
    assert code not in written()


def test_an_attempt_that_failed_on_the_way_says_where(server, protected) -> None:
    server.registration_fault = Fault(500)
    upstream = upstream_at(protected.url)
    assert browser_of(person()).post(f"/connect/{upstream.key}/").status_code == 502
    trace = OAuthTrace.objects.get()
    assert (trace.outcome, trace.failed_step) == ("failed", "registration")
    assert trace.steps[-2]["status"] == 500 and trace.steps[-1]["title"] == "Failed"


def test_who_has_not_come_back_is_under_way_and_an_attack_is_a_failure(server, protected) -> None:
    upstream = upstream_at(protected.url)
    callback = approve(begin(browser_of(person("mallory")), upstream))
    assert OAuthTrace.objects.get().outcome == "under_way"
    browser_of(person("alice")).get(callback)
    trace = OAuthTrace.objects.get()
    assert (trace.outcome, trace.failed_step) == ("failed", "other_person")


def test_traces_are_bounded_in_number_and_age(server, protected, monkeypatch, settings) -> None:
    monkeypatch.setattr(oauth_trace, "MOST_TRACES", 3)
    upstream = upstream_at(protected.url)
    browser = browser_of(person())
    for _ in range(5):
        begin(browser, upstream)
    assert OAuthTrace.objects.count() == 3
    settings.OAUTH_TRACE_DAYS = 7
    OAuthTrace.objects.update(finished_at="2020-01-01T00:00:00Z")
    oauth_trace.remove_old_traces()
    assert not OAuthTrace.objects.exists()


async def test_a_trace_ends_after_so_many_steps_and_a_broken_store_breaks_nothing(
    monkeypatch,
) -> None:
    async with oauth_trace.recording("connect", 4711, None) as trace:
        for _ in range(oauth_trace.MOST_STEPS + 20):
            trace.note("x")
    assert len(trace.steps) == oauth_trace.MOST_STEPS


def test_administrators_read_it_beside_the_upstream_and_in_the_test(server, protected) -> None:
    admin = browser_of(person("root", is_staff=True, is_superuser=True))
    upstream = upstream_at(protected.url)
    connect(browser_of(person()), upstream)
    page = admin.get(f"/admin/upstreams/upstream/{upstream.pk}/change/").content.decode()
    assert f"/admin/upstreams/oauthtrace/?upstream__id__exact={upstream.pk}" in page
    trace = OAuthTrace.objects.get()
    shown = admin.get(f"/admin/upstreams/oauthtrace/{trace.pk}/change/").content.decode()
    assert "oauth-authorization-server" in shown and "not shown" in shown
    for secret in secrets_of(server):
        assert secret not in shown
    listed = admin.get("/admin/upstreams/oauthtrace/").content.decode()
    assert "Connecting an account" in listed
    tested = admin.post(f"/admin/upstreams/upstream/{upstream.pk}/test/").content.decode()
    assert "Requests and answers" in tested and "oauth-protected-resource" in tested
    assert admin.get("/admin/upstreams/oauthtrace/add/").status_code == 403
    viewer = browser_of(person("viewer", is_staff=True))
    assert viewer.get("/admin/upstreams/oauthtrace/").status_code == 403


@pytest.mark.parametrize(
    ("content", "kind", "shown"),
    [
        (b"<html>s3cret</html>", "text/html", {"(text/html)": "19 bytes, not shown"}),
        (b"[1]", "application/json", {"(application/json)": "3 bytes, not shown"}),
        (b'{"scope": "a b"}', "application/json", {"scope": "a b"}),
        (b'{"x": {"y": "s3cret"}}', "application/json", {"x": "(not shown, 15 characters)"}),
        (b'{"client_secret": "s3cret"}', "", {"client_secret": "(not shown, 6 characters)"}),
        (b"code=s3cret&scope=a", "application/x-www-form-urlencoded",
         {"code": "(not shown, 6 characters)", "scope": "a"}),
        (b"", "application/json", {}),
    ],
)  # fmt: skip
def test_a_body_shows_the_names_on_the_list_only(content: bytes, kind: str, shown: Any) -> None:
    assert trace_redaction.body(content, kind) == shown


def test_an_address_shows_neither_password_nor_query() -> None:
    seen = trace_redaction.address("https://alice:s3cret@x.example/a?key=s3cret")
    assert seen == "https://x.example/a?…"
    headers = trace_redaction.request_headers({"Authorization": "Basic s3cret", "X-Key": "s3cret"})
    assert "s3cret" not in json.dumps(headers) and headers["authorization"].startswith("Basic (")
    said = trace_redaction.challenge(
        'Bearer realm="x", resource_metadata="https://a/b", t="s3cret"'
    )
    assert said == 'Bearer realm="x", resource_metadata="https://a/b"'
