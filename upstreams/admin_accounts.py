"""People's accounts in the admin: found by how they are used, disconnected after a look."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.safestring import SafeString

from upstreams import account_endings
from upstreams.admin_traces import traces_link
from upstreams.models import UpstreamAccount
from upstreams.revocation import can_revoke

# The class is generic for the type checker only.
if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[UpstreamAccount]
else:
    _Admin = admin.ModelAdmin

SHOWN: int = 200


class LastUsed(admin.SimpleListFilter):
    """Accounts that nobody has used for a while."""

    title = "last used"
    parameter_name = "unused"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        return [
            ("never", "Never"),
            ("30", "Not for 30 days"),
            ("90", "Not for 90 days"),
            ("365", "Not for a year"),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[UpstreamAccount]
    ) -> QuerySet[UpstreamAccount]:
        """Return the accounts of the choice."""
        value = self.value()
        if value == "never":
            return queryset.filter(last_used_at=None)
        if value and value.isdigit():
            oldest = timezone.now() - timedelta(days=int(value))
            return queryset.exclude(last_used_at__gte=oldest).filter(connected_at__lt=oldest)
        return queryset


class AccountPages(_Admin):
    """What a look at one account tells, and the page before many are disconnected."""

    @admin.display(description="Why it ended")
    def ending(self, account: UpstreamAccount) -> str:
        """Return the sentence that its owner reads."""
        return account_endings.sentence(account.ended_because, account.upstream.title)

    @admin.display(description="OAuth traces")
    def traces(self, account: UpstreamAccount) -> SafeString:
        """Return the link to what was sent and received for this person there."""
        return traces_link(account.upstream, account.user_id)

    def confirm_disconnecting(
        self, request: HttpRequest, chosen: list[UpstreamAccount]
    ) -> HttpResponse:
        """Show whom it concerns before anything is done."""
        return render(
            request,
            "upstreams/admin/confirm_disconnect.html",
            {
                **self.admin_site.each_context(request),
                "title": "Disconnect accounts",
                "opts": self.opts,
                "shown": chosen[:SHOWN],
                "more": max(0, len(chosen) - SHOWN),
                "chosen": chosen,
                "checkbox": ACTION_CHECKBOX_NAME,
                "revocable": sum(can_revoke(account) for account in chosen),
            },
        )
