"""Forms of the admin for OAuth clients."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError

from oauthserver.actions import check_redirect_uris
from oauthserver.client_admission import problem_with_host
from oauthserver.errors import ProtocolError
from oauthserver.models import ClientPolicy, OAuthClient
from oauthserver.token_values import new_client_id

if TYPE_CHECKING:
    _ClientForm = forms.ModelForm[OAuthClient]
    _PolicyForm = forms.ModelForm[ClientPolicy]
else:
    _ClientForm = _PolicyForm = forms.ModelForm

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


class HostsField(forms.CharField):
    """Host names, one per line; a list in the database."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            label="Listed hosts",
            help_text="One per line: chatgpt.com, *.contoso.example, localhost (programs on "
            "people's own computers), cursor://anysphere.cursor-mcp. A client with a metadata "
            "document needs the document's host here, one that registers itself the hosts of "
            "all its redirect URIs.",
            widget=forms.Textarea(attrs={"rows": 6, "cols": 60, "spellcheck": "false"}),
            required=False,
            **kwargs,
        )

    def prepare_value(self, value: Any) -> Any:
        """Show one per line."""
        return "\n".join(value) if isinstance(value, list) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare lists, not texts."""
        return (initial or []) != str(data or "").split()

    def clean(self, value: Any) -> Any:
        """Check every entry and return them as a list."""
        hosts = [entry.lower() for entry in super().clean(value).split()]
        for host in hosts:
            if problem := problem_with_host(host):
                raise ValidationError(f"{problem} Not: {host[:100]}")
        return hosts


class ClientPolicyForm(_PolicyForm):
    """The client policy."""

    allowed_hosts = HostsField()

    class Meta:
        model = ClientPolicy
        fields = [
            *("documents", "registration", "allowed_hosts", "advice", "forget_after_days"),
            "machine_access",
        ]

    def clean(self) -> dict[str, Any]:
        """A rule by hosts needs hosts."""
        values = super().clean() or {}
        modes = (values.get("documents"), values.get("registration"))
        if ClientPolicy.Mode.HOSTS in modes and values.get("allowed_hosts") == []:
            self.add_error("allowed_hosts", "List at least one host, or choose another rule.")
        return values
