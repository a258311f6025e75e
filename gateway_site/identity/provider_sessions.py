"""Which sign-in at a provider a browser session stands on, so that the provider can end it.

Kept with the note of the session, so a provider's word reaches a session whose cookie its request
does not carry: from its server, in a frame, or from another browser of the same person.
"""

from collections.abc import Collection
from typing import Any, Final

from allauth.usersessions.models import UserSession
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest

from gateway_site.identity import stranger_limits

# Longer than the library waits for somebody's return.
NOBODYS_SECONDS: Final = 1800


def remember(request: HttpRequest, provider: str, subject: str, sid: str = "") -> None:
    """Write down what the session of a request that has just signed in stands on.

    Args:
        provider: the provider's id here.
        subject: what it calls the person in a sign-out: ``sub``, or SAML's NameID.
        sid: what it calls its session: ``sid``, or SAML's SessionIndex; "" if it says none.
    """
    # The library drops notes of sessions in which nobody is stored yet when somebody arrives.
    request.session.save()
    UserSession.objects.create_from_request(request)
    data = {"provider": provider, "subject": subject, "sid": sid}
    UserSession.objects.filter(session_key=request.session.session_key).update(data=data)


def begin(request: HttpRequest) -> None:
    """Have the session end soon that somebody needs who leaves for a provider and may not return.

    Anybody can leave any number of times in one browser, whose session holds the last few of them;
    from one address only so many browsers can.

    Raises:
        ImmediateHttpResponse: too many have.
    """
    if request.user.is_authenticated:
        return
    if request.session.session_key is None:
        stranger_limits.count(request, stranger_limits.SIGN_INS_BEGUN)
    request.session.set_expiry(NOBODYS_SECONDS)


def arrived(sender: Any, request: HttpRequest | None, **_: Any) -> None:
    """Have the session of somebody last as sessions do; receiver of ``user_logged_in``."""
    if request is not None and hasattr(request, "session"):
        request.session.set_expiry(None)


@transaction.atomic
def end(provider: str, *, subject: str = "", sids: Collection[str] = ()) -> dict[int, int]:
    """End the sessions that stand on these sign-ins; a subject or sids have to be named.

    Args:
        subject: only this person's, "" for whoever's the sids are.
        sids: only these sessions of the provider, and those of the subject that the provider gave
            no name; empty for all of the subject's.

    Returns:
        How many were ended, by the id of their person.

    Raises:
        ValueError: neither is named.
    """
    if not subject and not sids:
        raise ValueError("Name a subject or sids.")
    rows = UserSession.objects.filter(data__provider=provider)
    if subject:
        rows = rows.filter(data__subject=subject)
    if sids:
        named = Q(data__sid__in=list(sids))
        # A sign-in that named no session may be any of the person's.
        rows = rows.filter(named | Q(data__sid="") if subject else named)
    ended: dict[int, int] = {}
    for row in rows:
        row.end()
        ended[row.user_id] = ended.get(row.user_id, 0) + 1
    return ended
