"""The documents that describe this SCIM service (RFC 7643 5 to 8)."""

from typing import Any

from gateway_site.scim.requests import GROUP_SCHEMA, MOST_PER_PAGE, USER_SCHEMA

LIST_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:ListResponse"


def list_of(resources: list[Any], *, total: int, start: int) -> dict[str, Any]:
    """Return resources as a list answer (RFC 7644 3.4.2)."""
    return {
        "schemas": [LIST_SCHEMA],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": len(resources),
        "Resources": resources,
    }


def service_provider_config(base: str) -> dict[str, Any]:
    """Return what this service can do."""
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": MOST_PER_PAGE},
        "changePassword": {"supported": False},
        "sort": {"supported": False},
        "etag": {"supported": False},
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "Bearer token",
                "description": "A token made in the administration under SCIM tokens.",
                "primary": True,
            }
        ],
        "meta": {
            "resourceType": "ServiceProviderConfig",
            "location": f"{base}/ServiceProviderConfig",
        },
    }


def resource_types(base: str) -> list[dict[str, Any]]:
    """Return the kinds of resources."""
    return [
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name,
            "name": name,
            "endpoint": f"/{name}s",
            "schema": schema,
            "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/{name}"},
        }
        for name, schema in (("User", USER_SCHEMA), ("Group", GROUP_SCHEMA))
    ]


def schemas(base: str) -> list[dict[str, Any]]:
    """Return the attributes that are kept of each kind."""
    name = _complex("name", [_attribute("givenName"), _attribute("familyName")])
    mail = [_attribute("value"), _attribute("primary", "boolean"), _attribute("type")]
    member = [_attribute("value", mutability="immutable"), _attribute("display")]
    described = {
        USER_SCHEMA: (
            "User",
            [
                _attribute("userName", required=True, uniqueness="server"),
                _attribute("externalId", exact=True),
                _attribute("active", "boolean"),
                name,
                _complex("emails", mail, many=True),
                _complex("groups", member, many=True, mutability="readOnly"),
            ],
        ),
        GROUP_SCHEMA: (
            "Group",
            [
                _attribute("displayName", required=True, uniqueness="server"),
                _attribute("externalId", exact=True),
                _complex("members", member, many=True),
            ],
        ),
    }
    return [
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
            "id": key,
            "name": title,
            "attributes": attributes,
            "meta": {"resourceType": "Schema", "location": f"{base}/Schemas/{key}"},
        }
        for key, (title, attributes) in described.items()
    ]


def _attribute(
    name: str,
    kind: str = "string",
    *,
    required: bool = False,
    uniqueness: str = "none",
    exact: bool = False,
    mutability: str = "readWrite",
) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "multiValued": False,
        "required": required,
        "caseExact": exact,
        "mutability": mutability,
        "returned": "default",
        "uniqueness": uniqueness,
    }


def _complex(
    name: str, inner: list[dict[str, Any]], *, many: bool = False, mutability: str = "readWrite"
) -> dict[str, Any]:
    outer = _attribute(name, "complex", mutability=mutability)
    return outer | {"multiValued": many, "subAttributes": inner}
