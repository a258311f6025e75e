"""The well-known documents: one issuer, exact resources, nothing from the Host header."""

import json
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from oauthserver.discovery_views import resource_metadata_url
from tests.oauthserver.conftest import Resources
from tests.oauthserver.flows import BASE, RESOURCE

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]

PRM = "/.well-known/oauth-protected-resource"
SERVER_DOCUMENTS = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/v1/mcp/tools",
    "/.well-known/openid-configuration",
    "/.well-known/openid-configuration/v1/mcp/tools",
    "/v1/mcp/tools/.well-known/openid-configuration",
]


def test_a_resource_describes_itself(api: Client) -> None:
    response = api.get(f"{PRM}/v1/mcp/tools")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response["Access-Control-Allow-Origin"] == "*"
    assert response.json() == {
        "resource": RESOURCE,
        "authorization_servers": [BASE],
        "scopes_supported": ["mcp:tools"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Tools",
    }
    assert api.get(f"{PRM}/v1/mcp/tools/").json() == response.json()
    assert resource_metadata_url(RESOURCE) == f"{BASE}{PRM}/v1/mcp/tools"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/mcp/",
        "/v1/mcp/unknown",
        "/v1/mcp/tools//",
        "/v1/mcp/tool",
        "/v1/mcp/toolss",
        "/v1/mcp/TOOLS",
        "/v1/mcp/%2e%2e",
        "/v1/mcp/..%2ftools",
        "/v1/mcp/x/..%2ftools",
        "/v1/mcp/tools%00b",
        "/v1/mcp/tools%0a",
        "/v1/mcp/admin",
        "/v1/mcp/%EF%BC%A1",
        "/v1/mcp/" + "a" * 600,
        "/v1/mcp/<script>",
        "/x/v1/mcp/tools",
        "/http://evil.example/v1/mcp/tools",
    ],
)
def test_unknown_resources_all_get_one_404(api: Client, path: str) -> None:
    response = api.get(PRM + path)
    assert response.status_code == 404
    assert "<script>" not in response.content.decode()
    # The first two do not even reach this room.
    if path not in ("/", "/v1/mcp/tools%0a"):
        assert response.json() == {"error": "not_found"}


@pytest.mark.parametrize("path", SERVER_DOCUMENTS)
def test_the_server_describes_itself_the_same_everywhere(api: Client, path: str) -> None:
    response = api.get(path)
    assert response.status_code == 200
    assert response["Access-Control-Allow-Origin"] == "*"
    document = response.json()
    assert document == api.get(SERVER_DOCUMENTS[0]).json()
    assert document["issuer"] == BASE
    assert document["issuer"] == api.get(f"{PRM}/v1/mcp/tools").json()["authorization_servers"][0]
    for name, value in document.items():
        if name.endswith("_endpoint"):
            assert value.startswith(f"{BASE}/oauth/"), name
    assert document["registration_endpoint"] == f"{BASE}/oauth/register"
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["response_types_supported"] == ["code"]
    assert document["grant_types_supported"] == ["authorization_code", "refresh_token"]
    assert set(document["token_endpoint_auth_methods_supported"]) == {
        "none",
        "private_key_jwt",
        "client_secret_basic",
        "client_secret_post",
    }
    assert document["client_id_metadata_document_supported"] is True
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["scopes_supported"] == ["mcp:tools", "offline_access"]
    assert "userinfo_endpoint" not in document
    assert "jwks_uri" not in document


@pytest.mark.parametrize("path", ["/v1/mcp/unknown", "/v1/mcp/tools//", "/other"])
def test_the_server_is_not_described_for_unknown_paths(api: Client, path: str) -> None:
    assert api.get(SERVER_DOCUMENTS[0] + path).status_code == 404
    assert api.get(SERVER_DOCUMENTS[2] + path).status_code == 404
    assert api.get(path + SERVER_DOCUMENTS[2]).status_code == 404


@pytest.mark.parametrize("path", [*SERVER_DOCUMENTS, f"{PRM}/v1/mcp/tools"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"X-Forwarded-Host": "evil.example"},
        {"Forwarded": "host=evil.example"},
        {"X-Original-Host": "evil.example"},
        {"X-Forwarded-Proto": "evil"},
    ],
    ids=str,
)
def test_no_document_believes_the_request_about_the_host(
    api: Client, path: str, headers: dict[str, str], settings: Any
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    response = api.get(path, headers=headers)
    assert response.status_code == 200
    assert "evil" not in response.content.decode()
    assert "evil" not in str(response.headers)
    assert response.json() == api.get(path).json()


@pytest.mark.parametrize("path", [SERVER_DOCUMENTS[0], f"{PRM}/v1/mcp/tools"])
def test_browsers_may_ask_first(api: Client, path: str) -> None:
    response = api.options(path, headers={"Origin": "https://any.example"})
    assert response.status_code == 204
    assert response["Access-Control-Allow-Origin"] == "*"
    assert "MCP-Protocol-Version" in response["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in response
    assert api.post(path).status_code == 405


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["token", "register", "revoke", "introspect", "authorize"])
def test_nothing_else_is_open_to_other_origins(api: Client, path: str) -> None:
    for method in ("get", "post", "options"):
        response = getattr(api, method)(f"/oauth/{path}", headers={"Origin": "https://evil"})
        assert "Access-Control-Allow-Origin" not in response


def test_a_resource_that_is_switched_off_disappears(api: Client, resources: Resources) -> None:
    resources.known.clear()
    assert api.get(f"{PRM}/v1/mcp/tools").status_code == 404


@pytest.mark.parametrize("path", SERVER_DOCUMENTS)
def test_a_database_that_is_down_is_said_to_be(api: Client, path: str) -> None:
    def down(*args: Any) -> Any:
        raise OperationalError("connection refused")

    with connection.execute_wrapper(down):
        response = api.get(path)
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert response.json()["error"] == "temporarily_unavailable"
    assert response["Access-Control-Allow-Origin"] == "*"
    assert response["Cache-Control"] == "no-store"
    assert api.get(path).status_code == 200


def test_documents_are_small_json_without_null(api: Client) -> None:
    text = api.get(SERVER_DOCUMENTS[0]).content.decode()
    assert len(text) < 4096
    assert None not in json.loads(text).values()
