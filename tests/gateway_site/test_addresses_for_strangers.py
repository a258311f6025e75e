"""What other origins, clients' tokens and strangers find at the addresses beside the endpoint."""

# ruff: noqa: F811
from datetime import timedelta
from itertools import product

from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from oauthserver.models import OAuthClient
from oauthserver.token_values import new_access_token
from tests.gateway_site.test_operations_addresses import administrator  # noqa: F401


def test_120_a_clients_token_opens_nothing_that_is_for_administrators(administrator):
    root = User.objects.get(username="root")
    client = OAuthClient.objects.create(
        client_id="c",
        client_type="public",
        authorization_grant_type="authorization-code",
        redirect_uris="https://c.example/cb",
    )
    token = new_access_token()
    get_access_token_model().objects.create(
        user=root,
        application=client,
        token=token,
        expires=timezone.now() + timedelta(hours=1),
        scope="mcp:tools",
        resource=["http://localhost:8000/v1/mcp/team"],
    )
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("/api/v1/", "/api/v1/upstreams/", "/scim/v2/Users", "/scim/v2/Groups", "/metrics"):
        assert Client().get(path, headers=headers).status_code in (401, 403), path
        assert Client().post(path, {}, headers=headers).status_code in (401, 403, 405), path
    for path in ("/admin/", "/admin/auth/user/", "/connections/", "/accounts/sessions/"):
        answer = Client().get(path, headers=headers)
        assert answer.status_code == 302, path
        assert "/login/" in answer.headers["Location"]


OPEN_TO_EVERY_ORIGIN = (
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-protected-resource/v1/mcp/nothing",
)
PAGES_AND_PROGRAMS = [
    *("/oauth/authorize?client_id=x", "/oauth/token", "/oauth/register", "/oauth/register/x"),
    *("/oauth/revoke", "/oauth/introspect", "/connections/", "/connect/x/", "/connect/callback"),
    *("/accounts/login/", "/accounts/sessions/", "/admin/", "/admin/login/", "/admin/auth/user/"),
    *("/api/v1/", "/api/v1/upstreams/", "/scim/v2/Users", "/metrics", "/", "/nowhere"),
]


def test_8_no_page_and_no_endpoint_is_open_to_other_origins(administrator):
    asking = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-csrftoken",
    }
    for path, browser in product(PAGES_AND_PROGRAMS, (Client(), administrator)):
        for method in ("options", "get", "post"):
            answer = getattr(browser, method)(path, headers=asking)
            told = [name for name in answer.headers if name.startswith("Access-Control-")]
            assert told == [], (path, method, told)


def test_8_what_is_open_to_every_origin_takes_nobodys_cookies(administrator):
    for path in OPEN_TO_EVERY_ORIGIN:
        for method in ("options", "get"):
            answer = getattr(administrator, method)(path, headers={"Origin": "https://evil"})
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert "Set-Cookie" not in answer.headers
            assert not answer.cookies


NOT_THERE = (
    *("/internal/", "/internal/health", "/debug", "/debug/pprof/", "/__debug__/", "/rpc", "/env"),
    *("/api/schema/", "/api/docs/", "/docs", "/openapi.json", "/swagger/", "/graphql", "/static/"),
    *("/.env", "/.git/config", "/gateway.sqlite3", "/v1/", "/v1/mcp", "/oauth/applications/"),
    *("/oauth/authorized_tokens/", "/oauth/device/", "/oauth/device-authorization/"),
)


def test_128_nothing_else_answers(db):
    for path in NOT_THERE:
        answer = Client().get(path)
        assert answer.status_code in (401, 403, 404), path
        for word in ("Traceback", "DJANGO", "urlpatterns", "openapi", "SECRET"):
            assert word not in answer.content.decode(), path


def test_128_probes_say_only_how_it_stands(db):
    assert Client().get("/healthz").content == b"ok\n"
    assert Client().get("/readyz").json() == {"ready": True}
    for path in ("/metrics", "/api/v1/", "/admin/upstreams/upstream/"):
        assert Client().get(path).status_code in (302, 403)
