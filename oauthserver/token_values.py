"""How codes, tokens and secrets look, and the digests under which they are stored.

Each holds 256 bits of randomness behind a prefix that secret scanners can recognise.
A digest is enough: nothing that random can be guessed, so no slow hash is needed.
"""

import secrets
from hashlib import sha256

ACCESS_PREFIX = "mcpgw_at_"
REFRESH_PREFIX = "mcpgw_rt_"
CODE_PREFIX = "mcpgw_ac_"
SECRET_PREFIX = "mcpgw_cs_"  # noqa: S105
REGISTRATION_PREFIX = "mcpgw_reg_"
CLIENT_PREFIX = "mcpgw_client_"
_STORED_SECRET = "sha256$"  # noqa: S105


def new_access_token(request: object = None) -> str:
    """Return a new access token. The argument is the library's and not used."""
    return ACCESS_PREFIX + secrets.token_urlsafe(32)


def new_refresh_token(request: object = None) -> str:
    """Return a new refresh token. The argument is the library's and not used."""
    return REFRESH_PREFIX + secrets.token_urlsafe(32)


def new_code() -> str:
    """Return a new authorization code."""
    return CODE_PREFIX + secrets.token_urlsafe(32)


def new_client_id() -> str:
    """Return an identifier for a client that registers; never a URL (security.md #20)."""
    return CLIENT_PREFIX + secrets.token_urlsafe(16)


def new_registration_token() -> str:
    """Return a token with which a client manages its own registration (RFC 7592)."""
    return REGISTRATION_PREFIX + secrets.token_urlsafe(32)


def new_client_secret() -> tuple[str, str]:
    """Return a client secret and the form in which it is stored."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    return secret, stored_secret(secret)


def stored_secret(secret: str) -> str:
    """Return the digest under which a client secret is stored."""
    return _STORED_SECRET + digest(secret)


def secret_matches(secret: str, stored: str) -> bool:
    """Compare a presented client secret with a stored one, in constant time."""
    return bool(stored) and secrets.compare_digest(stored_secret(secret), stored)


def digest(value: str) -> str:
    """Return the SHA-256 digest under which a code or token is stored."""
    return sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
