"""Forms of the admin for OAuth clients."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError

from oauthserver.actions import check_redirect_uris
from oauthserver.errors import ProtocolError
from oauthserver.models import OAuthClient
from oauthserver.token_values import new_client_id

if TYPE_CHECKING:
    _ClientForm = forms.ModelForm[OAuthClient]
else:
    _ClientForm = forms.ModelForm

_URIS_HELP = (
    "One per line, exactly as the client sends it. https, or http with localhost, 127.0.0.1 or "
    "[::1] (there any port matches). ChatGPT: "
    "https://chatgpt.com/connector_platform_oauth_redirect"
)


class RedirectUrisField(forms.CharField):
    """Redirect URIs, one per line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            label="Redirect URIs",
            help_text=_URIS_HELP,
            widget=forms.Textarea(attrs={"rows": 4, "cols": 80, "spellcheck": "false"}),
            **kwargs,
        )

    def prepare_value(self, value: Any) -> Any:
        """Show one per line what is stored in one line."""
        return "\n".join(value.split()) if isinstance(value, str) else value

    def clean(self, value: Any) -> str:
        """Check every URI and return them in one line."""
        uris = super().clean(value).split()
        try:
            check_redirect_uris(uris)
        except ProtocolError as error:
            raise ValidationError(error.description) from error
        return " ".join(uris)


class NewClientForm(_ClientForm):
    """Registers a client by hand."""

    name = forms.CharField(max_length=100, help_text="People read it when the client asks them.")
    client_id = forms.CharField(
        label="Client ID",
        max_length=255,
        initial=new_client_id,
        help_text="Copy it into the client's settings together with the secret.",
    )
    redirect_uris = RedirectUrisField()
    confidential = forms.BooleanField(
        required=False,
        initial=True,
        label="Give it a secret",
        help_text="For clients that run on a server. The secret is shown once, after saving.",
    )

    class Meta:
        model = OAuthClient
        fields = ["name", "client_id", "redirect_uris"]


class ClientForm(_ClientForm):
    """Changes a client that was registered by hand."""

    redirect_uris = RedirectUrisField()

    class Meta:
        model = OAuthClient
        fields = ["name", "redirect_uris", "enabled"]


class SelfDescribedClientForm(_ClientForm):
    """Switches a client that registered itself; everything else is what it says of itself."""

    class Meta:
        model = OAuthClient
        fields = ["enabled"]
