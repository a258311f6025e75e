"""The ``WWW-Authenticate`` value of a 401 or 403 (RFC 6750 3, RFC 9728 5.1)."""

from oauthserver.scopes import DEFAULT_SCOPE


def bearer_challenge(
    resource_metadata: str, scope: str = DEFAULT_SCOPE, error: str = "", description: str = ""
) -> str:
    """Compose the challenge that starts a client's authorization.

    Args:
        resource_metadata: absolute URL of the protected resource metadata.
        scope: what this request needs; never ``offline_access`` (protocol.md c10).
        error: ``""`` when no token came, else ``invalid_token``, ``invalid_request`` or
            ``insufficient_scope``.
        description: a sentence for the client's log.
    """
    parts = [f'resource_metadata="{_quotable(resource_metadata)}"']
    if scope:
        parts.append(f'scope="{_quotable(scope)}"')
    if error:
        parts.append(f'error="{_quotable(error)}"')
    if description:
        parts.append(f'error_description="{_quotable(description)}"')
    return "Bearer " + ", ".join(parts)


def _quotable(text: str) -> str:
    # RFC 6750 allows %x20-21 / %x23-5B / %x5D-7E; anything else would break or split the header.
    return "".join(
        character if " " <= character <= "~" and character not in '"\\' else "'"
        for character in text
    )
