"""How the gateway proves to an authorization server which client it is.

None, ``client_secret_basic``, ``client_secret_post`` (RFC 6749 2.3.1) and
``private_key_jwt`` (RFC 7523), whose keys ``client_keys`` keeps.
"""

import base64
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote_plus

from jwcrypto import jwt

from upstreams import client_keys
from upstreams.signing_keys import ALGORITHM

ASSERTION_SECONDS: Final = 60
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class ClientCredential:
    """The gateway's identity at one authorization server."""

    client_id: str
    method: str = "none"
    secret: str = field(default="", repr=False)


def can_sign_for(signing_algorithms: Sequence[str]) -> bool:
    """Return whether a server that lists these algorithms takes our assertions."""
    return not signing_algorithms or ALGORITHM in signing_algorithms


def client_assertion(client_id: str, audience: str) -> str:
    """Return a short-lived, single-use assertion (RFC 7523 3); ``audience`` is the issuer.

    Blocking: which key signs is in the database.
    """
    now = int(time.time())
    key = client_keys.signing_key()
    token = jwt.JWT(
        header={"alg": ALGORITHM, "kid": key["kid"], "typ": "JWT"},
        claims={
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
            "jti": str(uuid.uuid4()),
        },
    )
    token.make_signed_token(key)
    return str(token.serialize())


def authenticate(
    credential: ClientCredential, audience: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the form members and headers that prove who we are (blocking)."""
    form = {"client_id": credential.client_id}
    if credential.method == "client_secret_basic":
        pair = f"{quote_plus(credential.client_id)}:{quote_plus(credential.secret)}"
        encoded = base64.b64encode(pair.encode()).decode("ascii")
        return {}, {"authorization": f"Basic {encoded}"}
    if credential.method == "client_secret_post":
        return {**form, "client_secret": credential.secret}, {}
    if credential.method == "private_key_jwt":
        assertion = client_assertion(credential.client_id, audience)
        return {
            **form,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": assertion,
        }, {}
    return form, {}
