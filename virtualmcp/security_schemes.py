"""What a listed tool says of the scopes it needs, where tools that change something need more.

``securitySchemes`` is no member of the specification, but the one by which ChatGPT knows that a
tool can ask for more; SDKs drop it, so it stands in ``_meta`` too (clients.md 1.6). What an
upstream says there is about its own tokens, which no client ever sees, and is replaced.
"""

from oauthserver.scopes import DEFAULT_SCOPE, WRITE_SCOPE
from virtualmcp import raw_members

MEMBER = "securitySchemes"
_READS = raw_members.raw([{"type": "oauth2", "scopes": [DEFAULT_SCOPE]}])
_CHANGES = raw_members.raw([{"type": "oauth2", "scopes": [DEFAULT_SCOPE, WRITE_SCOPE]}])


def with_schemes(tool: bytes, *, reads: bool) -> bytes:
    """Return a listed tool with the scopes that calling it takes.

    Raises:
        NotAnObject: the tool or its ``_meta`` is not an object.
    """
    schemes = _READS if reads else _CHANGES
    members = raw_members.read(tool)
    meta = raw_members.read(members.get("_meta", raw_members.raw({})))
    members["_meta"] = raw_members.raw({**meta, MEMBER: schemes})
    members[MEMBER] = schemes
    return raw_members.write(members)
