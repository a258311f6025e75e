"""The forms of a Virtual MCP in the admin; what they hold goes through ``actions``."""

from typing import TYPE_CHECKING, Any, ClassVar, Final

from django import forms
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError

from virtualmcp import actions, tool_groups
from virtualmcp.access_rules import Rule, check_rules
from virtualmcp.actions import Choice
from virtualmcp.models import AccessRule, PublicName, UpstreamChoice, VirtualMcp
from virtualmcp.tool_catalogue import catalogue

# The classes are generic for the type checker only.
if TYPE_CHECKING:
    _ServerForm = forms.ModelForm[VirtualMcp]
    _ChoiceForm = forms.ModelForm[UpstreamChoice]
    _ChoiceFormSet = forms.BaseInlineFormSet[UpstreamChoice, VirtualMcp, Any]
    _RuleForm = forms.ModelForm[AccessRule]
    _RuleFormSet = forms.BaseInlineFormSet[AccessRule, VirtualMcp, Any]
else:
    _ServerForm = _ChoiceForm = _RuleForm = forms.ModelForm
    _ChoiceFormSet = _RuleFormSet = forms.BaseInlineFormSet


_RUN_AGAIN: Final = (
    "One a line; only tools that do no harm when they run twice. Where a server stands still over "
    "a question and the process that held the call dies, the call is made anew and what was "
    "answered is answered again; calls of other tools end with an error."
)


class VirtualMcpForm(_ServerForm):
    """What a Virtual MCP is called and who may use it."""

    class Meta:
        model = VirtualMcp
        fields: ClassVar[list[str]] = [*actions.EDITABLE, "groups"]
        error_messages: ClassVar[dict[str, dict[str, str]]] = {
            "slug": {"unique": "Another Virtual MCP server has this slug. Choose a different one."}
        }
        help_texts: ClassVar[dict[str, str]] = {
            "slug": "The end of its address. It cannot be changed later.",
            "instructions": "Told to every client first; hosts read the first 512 characters "
            "most closely. What the upstreams say follows.",
            "new_definitions": "What models read of a tool: title, description, schemas and "
            "annotations; also of prompts and a server's instructions.",
            "changed_definitions": "A server can change what it tells models after you chose it. "
            "Every change is listed under Tool definitions.",
            "audience": "With groups chosen and none named, nobody may use it.",
        }

    def data_for_action(self) -> dict[str, Any]:
        """Return the fields that were on the page."""
        return {name: self.cleaned_data[name] for name in actions.EDITABLE if name in self.fields}

    def groups(self) -> list[Group]:
        """Return the groups chosen."""
        return list(self.cleaned_data.get("groups") or [])


def known_tools(choice: UpstreamChoice) -> list[str]:
    """Return the tools an upstream was last seen to have, and those already chosen."""
    if choice.upstream_id is None:
        return []
    pinned = PublicName.objects.filter(
        upstream_id=choice.upstream_id, kind=PublicName.Kind.TOOL
    ).values_list("upstream_name", flat=True)
    chosen = [name for name in choice.chosen_tools if isinstance(name, str)]
    return sorted({*pinned, *catalogue.names_of(choice.upstream_id), *chosen})


class UpstreamChoiceForm(_ChoiceForm):
    """One upstream: its place, whether people must connect it, and its tools."""

    picked_tools = forms.MultipleChoiceField(
        label="Chosen tools",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Known from the last time its tools were listed.",
    )
    other_tools = forms.CharField(
        label="Further tools",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 30}),
        help_text="Names that are not known yet, one a line.",
    )

    read_only_tools = forms.CharField(
        label="Tools that only read",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 30}),
        help_text="For asking separately: your word against what the upstream says, one a line.",
    )
    changing_tools = forms.CharField(
        label="Tools that change something",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 30}),
        help_text="One a line; goes before the other list.",
    )
    repeatable_tools = forms.CharField(
        label="Tools that may be run again",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 30}),
        help_text=_RUN_AGAIN,
    )

    class Meta:
        model = UpstreamChoice
        fields: ClassVar[list[str]] = [
            *("upstream", "position", "required", "tool_mode", "may_sample", "may_list_roots"),
        ]
        help_texts: ClassVar[dict[str, str]] = {
            "may_sample": "Beside other upstreams this is off unless you allow it: it spends what "
            "the person pays their own model provider.",
            "may_list_roots": "Beside other upstreams this is off unless you allow it: it shows "
            "paths on the person's computer.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        picked = self.fields["picked_tools"]
        assert isinstance(picked, forms.MultipleChoiceField)
        picked.choices = [(name, name) for name in known_tools(self.instance)]
        picked.initial = self.instance.chosen_tools
        self.fields["read_only_tools"].initial = "\n".join(self.instance.read_tools)
        self.fields["changing_tools"].initial = "\n".join(self.instance.write_tools)
        again = self.fields["repeatable_tools"]
        again.initial = "\n".join(self.instance.rerun_tools)
        suggested = tool_groups.repeatable(self.instance)
        if suggested:
            named = ", ".join(suggested)
            again.help_text = f"{_RUN_AGAIN} The upstream says so of: {named}."

    def choice(self) -> Choice:
        """Return what the action takes."""
        data = self.cleaned_data
        tools = None
        if data["tool_mode"] == UpstreamChoice.ToolMode.CHOSEN:
            tools = list(dict.fromkeys([*data["picked_tools"], *_lines(data["other_tools"])]))
        return Choice(
            data["upstream"],
            data["required"],
            tools,
            sampling=data["may_sample"],
            roots=data["may_list_roots"],
            read_tools=_lines(data["read_only_tools"]),
            write_tools=_lines(data["changing_tools"]),
            rerun_tools=_lines(data["repeatable_tools"]),
        )


def _lines(text: str) -> list[str]:
    return list(dict.fromkeys(filter(None, (line.strip() for line in text.splitlines()))))


class UpstreamChoiceFormSet(_ChoiceFormSet):
    """All upstreams of one Virtual MCP, in the order of their positions."""

    def clean(self) -> None:
        """Check what the action will check, so that problems are shown on the page."""
        super().clean()
        if any(self.errors):
            return
        try:
            actions.check_choices(self.choices())
        except ValidationError as error:
            raise ValidationError(error.messages) from error

    def choices(self) -> list[Choice]:
        """Return the upstreams that stay, in their new order."""
        kept = [
            form
            for form in self.forms
            if form.cleaned_data.get("upstream") and form not in self.deleted_forms
        ]
        kept.sort(key=lambda form: form.cleaned_data.get("position") or 0)
        return [form.choice() for form in kept]


class AccessRuleForm(_RuleForm):
    """One rule: which tools of an upstream only which groups may use."""

    named_tools = forms.CharField(
        label="Tools",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 30}),
        help_text="Names as the upstream gives them, one a line. None means all of it.",
    )

    class Meta:
        model = AccessRule
        fields: ClassVar[list[str]] = ["upstream", "groups"]
        help_texts: ClassVar[dict[str, str]] = {
            "groups": "Only people in one of these groups. None named means nobody.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["named_tools"].initial = "\n".join(self.instance.tools or ())

    def rule(self) -> Rule:
        """Return what the action takes."""
        lines = [line.strip() for line in self.cleaned_data["named_tools"].splitlines()]
        tools = tuple(dict.fromkeys(filter(None, lines)))
        return Rule(self.cleaned_data["upstream"], tools, frozenset(self.cleaned_data["groups"]))


class AccessRuleFormSet(_RuleFormSet):
    """All rules of one Virtual MCP, as a table."""

    def add_fields(self, form: Any, index: int | None) -> None:
        """Give each cell the name of its column, which only eyes find above it."""
        super().add_fields(form, index)
        for field in form.fields.values():
            # What offers to add a related row stands around the widget itself.
            widget = getattr(field.widget, "widget", field.widget)
            widget.attrs.setdefault("aria-label", field.label)

    def clean(self) -> None:
        """Check what the action will check, so that problems are shown on the page."""
        super().clean()
        if any(self.errors):
            return
        try:
            check_rules(self.rules())
        except ValidationError as error:
            raise ValidationError(error.messages) from error

    def rules(self) -> list[Rule]:
        """Return the rules that stay."""
        return [
            form.rule()
            for form in self.forms
            if form.cleaned_data.get("upstream") and form not in self.deleted_forms
        ]
