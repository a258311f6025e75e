"""What SCIM answers when it refuses (RFC 7644 3.12)."""

from typing import Any

ERROR_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:Error"


class ScimRefusal(Exception):
    """A request that is refused: HTTP status, ``scimType`` of RFC 7644 table 9, and words."""

    def __init__(self, status: int, detail: str, kind: str = "") -> None:
        super().__init__(detail)
        self.status, self.detail, self.kind = status, detail, kind

    def body(self) -> dict[str, Any]:
        """Return the error as SCIM writes it."""
        body = {"schemas": [ERROR_SCHEMA], "status": str(self.status), "detail": self.detail}
        return body | ({"scimType": self.kind} if self.kind else {})


class LastAdministrator(ScimRefusal):
    """A directory wants to switch off the only full administrator who can sign in."""

    def __init__(self) -> None:
        super().__init__(
            403,
            "This is the last full administrator of the gateway, who is not switched off: nobody "
            "could administer it any more. Make another one first.",
        )


def not_found() -> ScimRefusal:
    """One text for whatever is not there."""
    return ScimRefusal(404, "There is no such resource.")


def bad_value(detail: str) -> ScimRefusal:
    """Return the refusal of a value that does not fit."""
    return ScimRefusal(400, detail, "invalidValue")
