"""Forms of the site's admin pages."""

from typing import Any

from allauth.socialaccount.models import SocialApp
from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import validate_slug

from gateway_site import people_actions
from gateway_site.sign_in import SEALED_SECRET


class IdentityProviderForm(forms.ModelForm):  # type: ignore[type-arg]
    """An OpenID Connect provider in four fields; the secret is only ever written."""

    provider_id = forms.CharField(
        label="Id",
        max_length=60,
        validators=[validate_slug],
        help_text="Letters, digits and hyphens. Part of the redirect URI; choose it once.",
    )
    server_url = forms.CharField(
        label="Issuer",
        max_length=500,
        help_text="Such as https://login.microsoftonline.com/&lt;tenant&gt;/v2.0",
    )
    client_secret = forms.CharField(
        required=False,
        strip=True,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Leave empty to keep the one that is stored. It is never shown.",
    )
    only_known_people = forms.BooleanField(
        required=False, help_text="Let in only people who have an account here already."
    )
    trust_addresses = forms.BooleanField(
        required=False,
        help_text="Treat every address it names as verified. Only for a provider that your "
        "company alone controls and that does not say so itself, such as Entra ID.",
    )

    class Meta:
        model = SocialApp
        fields = ["name", "provider_id", "client_id"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self.instance.settings or {}
        self.fields["server_url"].initial = settings.get("server_url", "")
        self.fields["only_known_people"].initial = settings.get("only_known_people", False)
        self.fields["trust_addresses"].initial = settings.get("verified_email") is True
        if settings.get(SEALED_SECRET):
            self.fields["client_secret"].help_text = "One is stored. Enter another to replace it."
        if self.instance.pk:
            # Accounts refer to the provider by this id.
            self.fields["provider_id"].disabled = True

    def clean_server_url(self) -> str:
        """Refuse what is no issuer.

        Raises:
            ValidationError: says what is expected.
        """
        url = str(self.cleaned_data["server_url"]).rstrip("/")
        try:
            people_actions.check_server_url(url)
        except ValidationError as failure:
            raise ValidationError(failure.messages) from failure
        return url

    def new_settings(self) -> dict[str, Any]:
        """Return the provider's settings with what the form says."""
        return {
            **(self.instance.settings or {}),
            "server_url": self.cleaned_data["server_url"],
            "only_known_people": self.cleaned_data["only_known_people"],
            "verified_email": self.cleaned_data["trust_addresses"],
        }
