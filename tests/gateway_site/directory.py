"""A company's directory that provisions people by SCIM, with the requests of real ones."""

import json
from typing import Any

from django.test import Client

from gateway_site.scim import tokens

SCIM = "application/scim+json"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


class Directory:
    """A directory that speaks SCIM with the gateway."""

    def __init__(self, name: str = "entra") -> None:
        _, self.token = tokens.create(name, actor=None)
        self.client = Client()

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} | more.pop("headers", {})
        data = json.dumps(body) if body is not None else ""
        answer = self.client.generic(
            method, f"/scim/v2/{path}", data, more.pop("content_type", SCIM), headers=headers
        )
        if answer.content:
            assert answer.headers["Content-Type"] == SCIM
            answer.said = answer.json()
        return answer

    def patch(self, path: str, *operations: dict[str, Any]) -> Any:
        return self("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)})

    def found(self, text: str) -> list[str]:
        kind, _, query = text.partition("?")
        path = f"{kind}?filter={query.replace(' ', '%20')}"
        return [one["id"] for one in self("GET", path).said["Resources"]]


ENTRA_USER = {
    "schemas": [USER, ENTERPRISE],
    "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
    "userName": "Ada.Lovelace@contoso.com",
    "active": True,
    "displayName": "Ada Lovelace",
    "emails": [{"primary": True, "type": "work", "value": "ada@contoso.com"}],
    "meta": {"resourceType": "User"},
    "name": {"formatted": "Ada Lovelace", "familyName": "Lovelace", "givenName": "Ada"},
    "title": "Countess",
    ENTERPRISE: {"department": "Engines"},
}
OKTA_USER = {
    "schemas": [USER],
    "userName": "grace@contoso.com",
    "name": {"givenName": "Grace", "familyName": "Hopper"},
    "emails": [{"primary": True, "value": "grace@contoso.com", "type": "work"}],
    "displayName": "Grace Hopper",
    "locale": "en-US",
    "externalId": "00ujl29u0le5T6Aj10h7",
    "groups": [],
    "password": "1mz050nq",
    "active": True,
}
