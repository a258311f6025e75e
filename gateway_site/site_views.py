"""Small pages that belong to no room."""

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from gateway_site.models import SiteProfile


@require_safe
def openai_apps_challenge(request: HttpRequest) -> HttpResponse:
    """The domain verification token an administrator got from OpenAI (clients.md 1.5)."""
    token = SiteProfile.current().openai_apps_challenge.strip()
    if not token:
        raise Http404
    return HttpResponse(token, content_type="text/plain; charset=utf-8")


def managed_by_administrator(request: HttpRequest) -> HttpResponse:
    """In the place of self-service pages that would let people claim an address.

    Raises:
        PermissionDenied: always.
    """
    raise PermissionDenied("E-mail addresses are managed by the administrator of this gateway.")


def password_from_administrator(request: HttpRequest) -> HttpResponse:
    """In the place of the page on which people without a password would set one.

    They come by an identity provider, and have left when it no longer lets them in: a password of
    their own would outlive that.

    Raises:
        PermissionDenied: always.
    """
    raise PermissionDenied(
        "You sign in with your identity provider and have no password here. If you need one, ask "
        "the administrator of this gateway to set it for you."
    )


def mail_not_configured(request: HttpRequest) -> HttpResponse:
    """In the place of the password reset while the gateway cannot send mail.

    Raises:
        PermissionDenied: always.
    """
    raise PermissionDenied(
        "This gateway does not send e-mail, so a password cannot be reset here. "
        "Ask the administrator to set a new one for you."
    )
