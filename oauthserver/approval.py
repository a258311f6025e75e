"""An approval: what ties the page a person sees to the button they press on it.

The page carries a signed value that names the request, the person and the browser session.
Pressing the button with another request, as somebody else, in another browser, or more than
ten minutes later is refused (security.md #62-#64); that it counts once is the database's
business (``IssuedCode.transaction`` is unique).
"""

import secrets
from hashlib import sha256

from django.core import signing
from django.http import HttpRequest

from oauthserver.errors import LocalRefusal
from oauthserver.sign_in_demands import request_digest

LIFETIME_SECONDS = 600
_SALT = "oauthserver.approval"


def new_approval(request: HttpRequest) -> str:
    """Return the signed value for the page that ``request`` is shown."""
    claims = {**_binding(request), "id": secrets.token_hex(16)}
    return signing.dumps(claims, salt=_SALT)


def checked_approval(request: HttpRequest) -> str:
    """Return the identifier of the approval that a POST carries.

    Raises:
        LocalRefusal: it is missing, forged, too old, or was made for something else.
    """
    refusal = LocalRefusal(
        "invalid_request",
        "This page is no longer valid. Go back to your client and start again.",
    )
    try:
        claims = signing.loads(
            request.POST.get("transaction", ""), salt=_SALT, max_age=LIFETIME_SECONDS
        )
    except signing.BadSignature:
        raise refusal from None
    identifier = claims.pop("id")
    if claims != _binding(request):
        raise refusal
    return str(identifier)


def _binding(request: HttpRequest) -> dict[str, str]:
    return {
        "request": request_digest(request),
        "user": str(request.user.pk),
        "session": sha256((request.session.session_key or "").encode()).hexdigest(),
    }
