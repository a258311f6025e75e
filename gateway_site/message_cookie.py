"""The cookie of messages that the next page shows, bound to this host like every other cookie.

A sibling sub-domain can set a cookie for the whole domain, and one without ``__Host-`` would be
taken: a message that was told to somebody else could be shown here (security.md #89).
"""

from typing import Any

from django.conf import settings
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage
from django.http import HttpRequest


class MessageCookie(CookieStorage):
    """Messages in a signed cookie."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        # Browsers take a cookie of this prefix from this very host only, and over TLS.
        over_tls = settings.SERVED_OVER_TLS
        self.cookie_name = "__Host-gateway-messages" if over_tls else "gateway-messages"


class PageMessages(FallbackStorage):
    """Messages in the cookie, and in the session where they are too long for it."""

    storage_classes = (MessageCookie, SessionStorage)
