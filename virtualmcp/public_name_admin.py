"""Public names in the admin: whose they are, and the page on which to give another one."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from virtualmcp import name_changes
from virtualmcp.definition_admin import goes_with_its_owner
from virtualmcp.models import PublicName
from virtualmcp.tool_names import ALPHABET, LONGEST

# The classes are generic for the type checker only.
if TYPE_CHECKING:
    _NameAdmin = admin.ModelAdmin[PublicName]
    _NameForm = forms.ModelForm[PublicName]
else:
    _NameAdmin = admin.ModelAdmin
    _NameForm = forms.ModelForm


class PublicNameForm(_NameForm):
    """What something is called in public, and which of its former names it lets go."""

    freed = forms.MultipleChoiceField(
        label="Former names to free",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="They still lead here, for clients that keep a list from before. Once freed, a "
        "name can be given to another tool or prompt, and who still calls it may meet that one.",
    )

    class Meta:
        model = PublicName
        fields: ClassVar[list[str]] = ["public_name"]
        help_texts: ClassVar[dict[str, str]] = {
            "public_name": f"Clients are shown this name. 1 to {LONGEST} {ALPHABET}. The present "
            "name goes on leading here, and no other tool or prompt can get it, until you free it "
            "on this page. What models or people wrote down about the old name is not changed.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "freed" not in self.fields:
            return
        former = name_changes.former_names(name_changes.of_row(self.instance))
        freed = self.fields["freed"]
        assert isinstance(freed, forms.MultipleChoiceField)
        if former:
            freed.choices = [(name, name) for name in former]
        else:
            del self.fields["freed"]

    def clean(self) -> dict[str, Any] | None:
        """Check what the action will check, so that problems are shown on the page."""
        data = super().clean() or self.cleaned_data
        if "public_name" in data:
            named = name_changes.of_row(self.instance)
            name_changes.check(named, data["public_name"], data.get("freed", ()))
        return data


class PublicNameAdmin(_NameAdmin):
    """Under which names tools and prompts are published, and whose they are."""

    form = PublicNameForm
    list_display = ["public_name", "kind", "upstream", "upstream_name", "virtual_mcp"]
    list_display += ["by_hand", "has_former"]
    list_filter = ["virtual_mcp", "upstream", "kind", "set_by_hand"]
    search_fields = ["public_name", "upstream_name"]
    list_select_related = ["upstream", "virtual_mcp"]
    ordering = ["virtual_mcp__title", "public_name"]
    readonly_fields = ["kind", "upstream", "upstream_name", "virtual_mcp"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PublicName]:
        """Show each thing once, under its present name."""
        former = _former().filter(
            virtual_mcp=OuterRef("virtual_mcp"),
            upstream=OuterRef("upstream"),
            kind=OuterRef("kind"),
            upstream_name=OuterRef("upstream_name"),
        )
        return super().get_queryset(request).filter(former=False).annotate(led_on=Exists(former))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[PublicName], search_term: str
    ) -> tuple[QuerySet[PublicName], bool]:
        """Find things by names that they had as well."""
        found, twice = super().get_search_results(request, queryset, search_term)
        if not search_term:
            return found, twice
        by_former = Q()
        for row in _former().filter(public_name__icontains=search_term)[:100]:
            owner = Q(virtual_mcp=row.virtual_mcp_id, upstream=row.upstream_id, kind=row.kind)
            by_former |= owner & Q(upstream_name=row.upstream_name)
        return (found | queryset.filter(by_former), twice) if by_former else (found, twice)

    def get_fields(self, request: HttpRequest, obj: PublicName | None = None) -> Any:
        """Offer former names for freeing where there are any."""
        shown = ["public_name", *self.readonly_fields]
        if obj is None or not self.has_change_permission(request, obj):
            return shown
        return [*shown, "freed"] if name_changes.former_names(name_changes.of_row(obj)) else shown

    @admin.display(description="Given by hand", boolean=True, ordering="set_by_hand")
    def by_hand(self, row: PublicName) -> bool:
        """Tell whether an administrator chose the name."""
        return row.set_by_hand

    @admin.display(description="Former names", boolean=True)
    def has_former(self, row: PublicName) -> bool:
        """Tell whether names that it had before still lead to it."""
        return bool(getattr(row, "led_on", False))

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Upstreams bring them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """They go with their upstream or server."""
        return goes_with_its_owner(request, PublicName)

    def save_model(self, request: HttpRequest, obj: PublicName, form: Any, change: bool) -> None:
        """Change it through the action."""
        user = request.user
        assert isinstance(user, User)
        data = form.cleaned_data
        name_changes.change_name(
            name_changes.of_row(obj), data["public_name"], freed=data.get("freed", ()), actor=user
        )

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Say it on the page too when a name is taken between the check and the change."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())


def _former() -> QuerySet[PublicName]:
    return PublicName.objects.filter(former=True)
