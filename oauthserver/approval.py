"""An approval: what ties the page a person sees to the button they press on it.

The page carries a signed value that names the request, the person, the browser session and
what the page says. Pressing the button with another request, as somebody else, in another
browser, or more than ten minutes later is refused (security.md #62-#64); when the page would say
something else by now, it is shown again. That an approval counts once is the database's business
(``IssuedCode.transaction`` is unique).
"""

import secrets
from dataclasses import dataclass
from hashlib import sha256

from django.core import signing
from django.http import HttpRequest

from oauthserver.errors import LocalRefusal
from oauthserver.sign_in_demands import request_digest

LIFETIME_SECONDS = 600
_SALT = "oauthserver.approval"


@dataclass(frozen=True)
class Approval:
    """What a POST approves: the page with this identifier, which said what ``said`` stands for."""

    identifier: str
    said: str


def new_approval(request: HttpRequest, said: str) -> str:
    """Return the signed value for the page that ``request`` is shown."""
    claims = {**_binding(request), "id": secrets.token_hex(16), "said": said}
    return signing.dumps(claims, salt=_SALT)


def checked_approval(request: HttpRequest) -> Approval:
    """Return the approval that a POST carries.

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
    approval = Approval(str(claims.pop("id")), str(claims.pop("said", "")))
    if claims != _binding(request):
        raise refusal
    return approval


def _binding(request: HttpRequest) -> dict[str, str]:
    return {
        "request": request_digest(request),
        "user": str(request.user.pk),
        "session": sha256((request.session.session_key or "").encode()).hexdigest(),
    }
