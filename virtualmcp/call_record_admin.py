"""Relayed calls in the admin: who called what, in names rather than numbers."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest

from oauthserver.models import OAuthClient
from virtualmcp.models import CallRecord
from virtualmcp.read_only_admin import ReadOnlyAdmin

ANSWERED = "ok"


class OutcomeFilter(admin.SimpleListFilter):
    """How calls ended."""

    title = "how it ended"
    parameter_name = "ended"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the two ends there are."""
        return [("answered", "Answered"), ("failed", "Failed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep calls that ended so."""
        if self.value() == "answered":
            return queryset.filter(outcome=ANSWERED)
        return queryset.exclude(outcome=ANSWERED) if self.value() == "failed" else queryset


class CallRecordAdmin(ReadOnlyAdmin):
    """Relayed calls, the newest first; arguments and results are never recorded."""

    list_display = ["at", "called", "server", "upstream", "person", "client", "ended", "took"]
    fields = ["at", "called", "server", "upstream", "person", "client", "client_id"]
    fields += ["ended", "took"]
    list_filter = [OutcomeFilter, "method", "virtual_mcp", "upstream"]
    search_fields = ["name", "client_id"]
    search_help_text = "A tool, a client ID, or a person's username"
    date_hierarchy = "at"
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[CallRecord]:
        """Fetch the names of people and clients in the same query."""
        people = User.objects.filter(pk=OuterRef("user_id"))
        clients = OAuthClient.objects.filter(client_id=OuterRef("client_id"))
        found: QuerySet[CallRecord] = super().get_queryset(request)
        return found.annotate(
            username=Subquery(people.values("username")[:1]),
            client_name=Subquery(clients.values("name")[:1]),
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[CallRecord], search_term: str
    ) -> tuple[QuerySet[CallRecord], bool]:
        """Find calls by who made them too."""
        found, twice = super().get_search_results(request, queryset, search_term)
        person = User.objects.filter(username=search_term.strip()).values("pk")
        if search_term.strip():
            found |= queryset.filter(user_id__in=person)
        return found, twice

    @admin.display(description="Called", ordering="name")
    def called(self, row: CallRecord) -> str:
        """Return the tool, or the method where there is none."""
        return f"{row.name} ({row.method})" if row.name else row.method

    @admin.display(description="Virtual MCP", ordering="virtual_mcp")
    def server(self, row: CallRecord) -> str:
        """Return the end of its address."""
        return row.virtual_mcp

    @admin.display(description="Person")
    def person(self, row: CallRecord) -> str:
        """Return who called, also when their account is gone."""
        name = getattr(row, "username", None)
        return str(name) if name else f"account {row.user_id}, deleted" if row.user_id else ""

    @admin.display(description="Client")
    def client(self, row: CallRecord) -> str:
        """Return what the client is called, else its ID."""
        return str(getattr(row, "client_name", None) or row.client_id)

    @admin.display(description="Ended", ordering="outcome")
    def ended(self, row: CallRecord) -> str:
        """Say how it ended; an error has its JSON-RPC code."""
        if row.outcome == ANSWERED:
            return "Answered"
        return "Failed: " + row.outcome.removeprefix("error ")

    @admin.display(description="Took", ordering="duration_ms")
    def took(self, row: CallRecord) -> str:
        """Return how long it took."""
        return f"{row.duration_ms:.0f} ms" if row.duration_ms >= 1 else "under 1 ms"
