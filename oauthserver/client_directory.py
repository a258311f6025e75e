"""Finding a client by its identifier, wherever it is known from."""

from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from oauthserver import client_metadata_documents as documents
from oauthserver.errors import InvalidClient, LocalRefusal
from oauthserver.models import OAuthClient

SEEN_EVERY = timedelta(hours=1)
UNKNOWN = "The client is unknown. Remove the connection and add it again."
_UNKNOWN_TO_PEOPLE = (
    "The gateway does not know this client. Remove the connection in your client and add it "
    "again; if it stays, ask your administrator."
)
_STOPPED_HERE = (
    "An administrator of this gateway has refused this client or switched it off. Adding it again "
    "does not help: ask your administrator if you need it."
)


def for_authorization(client_id: str, *, may_fetch: bool) -> OAuthClient:
    """Return the client of an authorization request.

    A client known by its metadata document may be returned unsaved; its document is fetched
    if it is not known or no longer current.

    Args:
        may_fetch: whether documents may be fetched; nobody who is not signed in makes the
            gateway connect to anywhere.

    Raises:
        LocalRefusal: unknown, or its document cannot be had. One message for both, so that
            nobody learns what answers inside the network (security.md #46). Also: switched off.
    """
    refusal = LocalRefusal("invalid_client", _UNKNOWN_TO_PEOPLE)
    client = _stored(client_id)
    if client is None:
        if not may_fetch or not documents.is_document_url(client_id):
            raise refusal
        client = documents.unapproved_client(client_id)
    elif may_fetch and not _is_current(client):
        raise refusal
    if client is None:
        raise refusal
    if not client.is_usable(None):
        # Whoever is not signed in learns nothing of what is decided here.
        raise LocalRefusal("invalid_client", _STOPPED_HERE) if may_fetch else refusal
    return client


def for_token_endpoint(client_id: str, introduced: Callable[[], bool]) -> OAuthClient:
    """Return the client that calls the token endpoint; somebody has approved it.

    A document that cannot be fetched just now does not sign people out: the row stays as it
    was, until the next try.

    Args:
        introduced: asked about a client that is not known; whether its document may be fetched,
            because a company that is trusted here names it. The client is then unsaved.

    Raises:
        InvalidClient: unknown or switched off.
    """
    client = _stored(client_id)
    if client is None and documents.is_document_url(client_id) and introduced():
        client = documents.unapproved_client(client_id)
    if client is None or not client.is_usable(None):
        raise InvalidClient(UNKNOWN)
    if client.pk is not None:
        _is_current(client)
    return client


def note_seen(client: OAuthClient) -> None:
    """Keep a client that people are looking at: unused ones are removed (``expiry``).

    Written at most once in an hour.
    """
    now = timezone.now()
    seen = client.last_used_at or client.created
    if client.pk is not None and (seen is None or now - seen > SEEN_EVERY):
        OAuthClient.objects.filter(pk=client.pk).update(last_used_at=now)


def _is_current(client: OAuthClient) -> bool:
    if client.registration_source != client.RegistrationSource.CIMD:
        return True
    return documents.brought_up_to_date(client)


def _stored(client_id: str) -> OAuthClient | None:
    # PostgreSQL raises on NUL instead of finding nothing.
    if not client_id or len(client_id) > documents.MAX_CLIENT_ID or "\x00" in client_id:
        return None
    found: OAuthClient | None = OAuthClient.objects.filter(client_id=client_id).first()
    return found
