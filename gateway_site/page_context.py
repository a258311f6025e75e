"""What every page of the site may show: its name, where to ask for help, the request's id."""

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

from gateway_site.models import SiteProfile
from gateway_site.request_facts import current

_CACHE_KEY = "gateway_site.page_context.2"
_CACHE_SECONDS = 10


def site_profile(request: HttpRequest) -> dict[str, str | bool]:
    """Template context processor: ``site_name``, ``support_contact``, ``request_id``,
    ``mail_configured`` (whether a password can be reset by mail).

    The two settings are read at most every ten seconds, since they stand on every page.
    """
    shown = _profile()
    return {
        "site_name": shown[0],
        "support_contact": shown[1],
        "mail_configured": settings.MAIL_CONFIGURED,
        "request_id": current.get().request_id,
    }


def second_factor_required() -> bool:
    """Tell whether people with a password have to have a second factor."""
    return _profile()[2]


def forget_profile() -> None:
    """Have the next page read the site's settings again; called when they change here."""
    cache.delete(_CACHE_KEY)


def _profile() -> tuple[str, str, bool]:
    shown: tuple[str, str, bool] | None = cache.get(_CACHE_KEY)
    if shown is None:
        profile = SiteProfile.objects.first() or SiteProfile()
        shown = (profile.name, profile.support_contact, profile.require_second_factor)
        cache.set(_CACHE_KEY, shown, _CACHE_SECONDS)
    return shown
