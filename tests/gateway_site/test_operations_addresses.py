"""Health, metrics, headers and the other addresses that programs ask for."""

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from gateway_site import health_views, metrics
from gateway_site.models import SiteProfile

PAGES = [
    "/",
    "/connections/",
    "/accounts/login/",
    "/accounts/password/reset/",
    "/admin/login/",
    "/nowhere",
]


@pytest.fixture
def administrator(db) -> Client:
    user = User.objects.create_superuser("root", "root@example.com", "correct horse battery")
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def test_the_process_answers_probes_under_any_host(db):
    for path in ("/healthz", "/readyz"):
        assert Client(SERVER_NAME="10.1.2.3").get(path).status_code == 200


def test_other_pages_refuse_foreign_hosts(db):
    assert Client(SERVER_NAME="evil.example").get("/accounts/login/").status_code == 400


def test_a_node_without_its_database_is_not_ready_and_says_little(db, monkeypatch):
    monkeypatch.setattr(health_views, "_database_state", lambda: "database")
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "waiting_for": "database"}
    assert Client().get("/healthz").status_code == 200


def test_a_node_that_stops_is_not_ready(db, monkeypatch):
    monkeypatch.setattr(health_views, "_stopping", True)
    assert Client().get("/readyz").status_code == 503


def test_metrics_are_for_administrators_and_the_token(administrator, settings):
    assert Client().get("/metrics").status_code == 403
    assert administrator.get("/metrics").status_code == 200
    settings.METRICS_TOKEN = "a-long-metrics-token"
    headers = {"Authorization": "Bearer a-long-metrics-token"}
    assert Client().get("/metrics", headers=headers).status_code == 200
    assert Client().get("/metrics", headers={"Authorization": "Bearer x"}).status_code == 403


def test_an_empty_metrics_token_opens_nothing(db, settings):
    settings.METRICS_TOKEN = ""
    assert Client().get("/metrics", headers={"Authorization": "Bearer "}).status_code == 403


def test_calls_are_counted(administrator):
    metrics.count_calls("team", "tools/call", "ok", [0.2])
    body = administrator.get("/metrics").content.decode()
    assert 'gateway_calls_total{method="tools/call",outcome="ok",virtual_mcp="team"}' in body


def test_how_long_calls_took_is_a_histogram(administrator):
    metrics.count_calls("timed", "tools/call", "ok", [0.005, 0.0051, 0.2])
    metrics.count_calls("timed", "tools/call", "failed", [61.0])
    lines = administrator.get("/metrics").content.decode().splitlines()
    labels = 'method="tools/call",virtual_mcp="timed"'
    counted = {
        line.partition(" ")[0]: float(line.partition(" ")[2])
        for line in lines
        if line.startswith("gateway_call_seconds") and 'virtual_mcp="timed"' in line
    }
    up_to = {"0.005": 1, "0.01": 2, "0.1": 2, "0.25": 3, "1.0": 3, "60.0": 3, "+Inf": 4}
    for bound, count in up_to.items():
        assert [n for name, n in counted.items() if f'le="{bound}"' in name] == [count]
    assert counted[f"gateway_call_seconds_count{{{labels}}}"] == 4
    assert counted[f"gateway_call_seconds_sum{{{labels}}}"] == pytest.approx(61.2101)
    assert "# TYPE gateway_call_seconds histogram" in lines


def test_what_clients_invent_makes_no_new_series(administrator):
    metrics.count_calls("team", "invented/by-a-client", "error -32601", [0.0])
    body = administrator.get("/metrics").content.decode()
    assert 'method="other"' in body
    assert "invented" not in body


@pytest.mark.parametrize("path", PAGES)
def test_every_page_carries_the_headers(administrator, path):
    answer = administrator.get(path, headers={"Accept": "text/html"})
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] in ("same-origin", "no-referrer")
    assert "camera=()" in answer.headers["Permissions-Policy"]
    assert "no-store" in answer.headers["Cache-Control"]
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-Id"])
    assert "Server" not in answer.headers


def test_a_callers_request_id_is_kept_if_it_is_harmless(db):
    answer = Client().get("/accounts/login/", headers={"X-Request-Id": "trace-0001.a"})
    assert answer.headers["X-Request-Id"] == "trace-0001.a"
    forged = Client().get("/accounts/login/", headers={"X-Request-Id": "a b\u2028c" * 9})
    assert re.fullmatch(r"[0-9a-f]{16}", forged.headers["X-Request-Id"])


def test_the_openai_challenge_is_the_token_and_nothing_else(db):
    assert Client().get("/.well-known/openai-apps-challenge").status_code == 404
    SiteProfile.objects.create(openai_apps_challenge="  token-123 \n")
    answer = Client().get("/.well-known/openai-apps-challenge")
    assert answer.content == b"token-123"
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_people_do_not_enter_their_own_addresses(administrator):
    assert administrator.get("/accounts/email/").status_code == 403
    answer = administrator.post("/accounts/email/", {"action_add": "", "email": "x@example.com"})
    assert answer.status_code == 403


def test_rest_is_read_only_and_for_staff(administrator):
    assert Client().get("/api/v1/upstreams/").status_code == 403
    assert administrator.get("/api/v1/upstreams/").json()["results"] == []
    assert administrator.post("/api/v1/upstreams/", {"key": "x"}).status_code == 405
    assert administrator.get("/api/v1/virtual-mcps/").json()["results"] == []
