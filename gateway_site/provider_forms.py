"""The form of an identity provider in the admin: a preset and few fields, the rest if needed."""

from typing import Any

from allauth.socialaccount.models import SocialApp
from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import validate_slug

from gateway_site.identity.presets import PRESETS, preset_of
from gateway_site.identity.provider_facts import check_settings
from gateway_site.models import GroupMapping
from gateway_site.sign_in import SEALED_SECRET

_CHOICE = [("", "As the preset says"), ("yes", "Yes"), ("no", "No")]
_LISTS = {
    "scopes": "scope",
    "allowed_domains": "allowed_domains",
    "allowed_groups": "allowed_groups",
    "sign_in_domains": "sign_in_domains",
    "staff_groups": "staff_groups",
    "administrator_groups": "administrator_groups",
}
# One a line: a provider's groups may have blanks and commas in their names.
_BY_LINE = ("allowed_groups", "staff_groups", "administrator_groups")
_SWITCHES = ("only_known_people", "groups_by_name", "sign_out_there", "sign_out_ends_access")
_NUMBERS = ("recheck_minutes", "sign_in_days")


class IdentityProviderForm(forms.ModelForm):  # type: ignore[type-arg]
    """An OpenID Connect provider; the secret is only ever written."""

    preset = forms.ChoiceField(
        label="Kind",
        required=False,
        choices=[(preset.key, preset.title) for preset in PRESETS.values()],
        help_text="Fills in what is known of it. What to enter as the issuer is listed below.",
    )
    server_url = forms.CharField(
        label="Issuer",
        required=False,
        max_length=500,
        help_text="The provider's address, or what its kind asks for, such as the tenant ID.",
    )
    provider_id = forms.CharField(
        label="Id",
        required=False,
        max_length=60,
        validators=[validate_slug],
        help_text="Letters, digits and hyphens; part of the redirect URI. Empty: its kind.",
    )
    client_secret = forms.CharField(
        required=False,
        strip=True,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Leave empty to keep the one that is stored. It is never shown.",
    )
    allowed_domains = forms.CharField(
        label="Let in only these domains",
        required=False,
        help_text="Such as contoso.com, contoso.de. Empty: everybody whom the provider lets in.",
    )
    allowed_groups = forms.CharField(
        label="Let in only these groups",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="As the provider calls them, one a line. One of them is enough.",
    )
    only_known_people = forms.BooleanField(
        required=False, help_text="Let in only people who have an account here already."
    )
    trust_addresses = forms.ChoiceField(
        required=False,
        choices=_CHOICE,
        help_text="Treat every address it names as verified. Only for a provider that your "
        "company alone controls and that does not say so itself, such as Entra ID.",
    )
    groups_claim = forms.CharField(
        label="Claim with groups",
        required=False,
        max_length=200,
        help_text="Such as groups or realm_access.roles. Empty: what its kind says.",
    )
    groups_by_name = forms.BooleanField(
        label="Groups of the same name",
        required=False,
        help_text="A group that is called the same at the provider and here needs no mapping.",
    )
    scopes = forms.CharField(
        required=False,
        max_length=300,
        help_text="Separated by spaces. Empty: what its kind says.",
    )
    sign_in_domains = forms.CharField(
        label="Domains that sign in here",
        required=False,
        help_text="People who enter an address of these domains are sent straight to it.",
    )
    sign_out_there = forms.BooleanField(
        label="Sign out at the provider too",
        required=False,
        help_text="Signing out here then ends the session there, and with it those of other "
        "applications where the provider does that.",
    )
    sign_out_ends_access = forms.BooleanField(
        label="Signing out there ends clients too",
        required=False,
        help_text="When the provider says that somebody signed out there (back-channel logout), "
        "end the access of their clients as well, not only their browser session here.",
    )
    recheck_minutes = forms.IntegerField(
        label="Ask the provider again every … minutes",
        required=False,
        help_text="Whether people may still come in, and their groups: with the refresh token "
        "that it gives the gateway. 0 never asks. At least 5.",
    )
    sign_in_days = forms.IntegerField(
        label="Sign in again after … days",
        required=False,
        help_text="Clients of people who came by this provider then send them to sign in again. "
        "0 leaves that to the client.",
    )

    staff_groups = forms.CharField(
        label="Groups that may open the administration",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="As the provider calls them, one a line. What people may do there, the "
        "permissions of the gateway's groups say. Taken away with the group.",
    )
    administrator_groups = forms.CharField(
        label="Groups of full administrators",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="As the provider calls them, one a line. Their people may do everything here: "
        "whoever fills these groups at the provider decides about this gateway.",
    )

    class Meta:
        model = SocialApp
        fields = ["name", "provider_id", "client_id"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance.settings or {}
        self.fields["name"].required = False
        self.fields["client_id"].required = False
        for name in ("preset", "server_url", "groups_claim"):
            self.fields[name].initial = stored.get(name, "generic" if name == "preset" else "")
        for name, key in _LISTS.items():
            joint = " " if name == "scopes" else "\n" if name in _BY_LINE else ", "
            self.fields[name].initial = joint.join(stored.get(key) or ())
        for name in _SWITCHES:
            self.fields[name].initial = stored.get(name, False)
        for name in _NUMBERS:
            self.fields[name].initial = stored.get(name, 0)
        trusts = stored.get("verified_email")
        self.fields["trust_addresses"].initial = "" if trusts is None else "yes" if trusts else "no"
        if stored.get(SEALED_SECRET):
            self.fields["client_secret"].help_text = "One is stored. Enter another to replace it."
        if self.instance.pk:
            # Accounts refer to the provider by this id.
            self.fields["provider_id"].disabled = True

    def clean(self) -> dict[str, Any]:
        """Fill in what the kind says, and check the whole as the action will.

        Raises:
            ValidationError: by field.
        """
        cleaned = super().clean() or {}
        preset = preset_of(cleaned.get("preset") or "generic")
        cleaned["server_url"] = preset.issuer_for(cleaned.get("server_url") or "")
        cleaned["name"] = cleaned.get("name") or preset.title
        cleaned["provider_id"] = cleaned.get("provider_id") or preset.key
        if preset.key == "saml":
            cleaned["client_id"] = cleaned["provider_id"]
        elif not cleaned.get("client_id"):
            self.add_error("client_id", "Give the client ID that the provider assigned.")
        taken = SocialApp.objects.filter(provider_id=cleaned["provider_id"])
        if taken.exclude(pk=self.instance.pk).exists():
            self.add_error("provider_id", "Another provider has this id.")
        try:
            check_settings(self.new_settings())
        except ValidationError as failure:
            for field, problems in failure.message_dict.items():
                self.add_error(field, problems)
        return cleaned

    def new_settings(self) -> dict[str, Any]:
        """Return the provider's settings with what the form says."""
        said = self.cleaned_data
        settings = {
            **(self.instance.settings or {}),
            "preset": said.get("preset") or "generic",
            "server_url": said.get("server_url", ""),
        }
        settings |= {name: bool(said.get(name)) for name in _SWITCHES}
        for name, key in _LISTS.items():
            _put(settings, key, _listed(said.get(name, ""), by_line=name in _BY_LINE))
        for name in _NUMBERS:
            _put(settings, name, said.get(name))
        _put(settings, "groups_claim", said.get("groups_claim", "").strip())
        trusts = {"yes": True, "no": False}.get(said.get("trust_addresses", ""))
        settings.pop("verified_email", None)
        if trusts is not None:
            settings["verified_email"] = trusts
        return settings


def _listed(text: str, *, by_line: bool) -> list[str]:
    parts = text.splitlines() if by_line else text.replace(",", " ").split()
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    settings.pop(key, None)
    if value:
        settings[key] = value


class GroupMappingFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """All pairs of one provider, as a table."""

    def add_fields(self, form: Any, index: int | None) -> None:
        """Give each cell the name of its column, which only eyes find above it."""
        super().add_fields(form, index)
        for field in form.fields.values():
            # What offers to add a related row stands around the widget itself.
            widget = getattr(field.widget, "widget", field.widget)
            widget.attrs.setdefault("aria-label", field.label)


class GroupMappingForm(forms.ModelForm):  # type: ignore[type-arg]
    """One pair: the provider's name of a group, and the gateway's group."""

    class Meta:
        model = GroupMapping
        fields = ["claim_value", "group"]

    def clean_claim_value(self) -> str:
        """Take the name as the provider writes it, without blanks around it."""
        return str(self.cleaned_data["claim_value"]).strip()
