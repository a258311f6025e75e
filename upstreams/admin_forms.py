"""The form of an upstream: secrets can be entered and removed, never read."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from upstreams import actions, header_values
from upstreams.errors import SetupFailed
from upstreams.models import CredentialKind, Upstream
from upstreams.upstream_validation import check_upstream

# The class is generic for the type checker only.
if TYPE_CHECKING:
    _Form = forms.ModelForm[Upstream]
else:
    _Form = forms.ModelForm


def _secret(label: str, help_text: str) -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": "new-password"}, render_value=False)
    return forms.CharField(
        label=label, help_text=help_text, required=False, widget=widget, max_length=8192
    )


class UpstreamForm(_Form):
    """Checks what ``actions`` checks, so that problems stand at their fields."""

    new_fixed_credential = _secret("Shared credential", "Write-only. Empty keeps what is stored.")
    remove_fixed_credential = forms.BooleanField(label="Remove it", required=False)
    new_oauth_client_secret = _secret("Client secret", "Write-only. Empty keeps what is stored.")
    remove_oauth_client_secret = forms.BooleanField(label="Remove it", required=False)

    class Meta:
        model = Upstream
        fields: ClassVar[list[str]] = list(actions.EDITABLE)
        help_texts: ClassVar[dict[str, str]] = {
            "key": "Short name in addresses, and before tool names that two servers share.",
            "url": "The server's MCP endpoint, such as https://mcp.example.com/mcp.",
            "credential_name": "Header name, or the parameter's name in the query.",
            "credential_prefix": "Goes before the value in a header, such as “Bearer ”.",
            "user_key_help": "Shown to people: where to get their key.",
            "oauth_client_id": "Only if you registered the gateway by hand.",
            "oauth_issuer": "Only this authorization server is used. Empty: the one that the "
            "server names.",
            "oauth_scopes": "Empty asks for what the server asks for.",
            "oauth_allowed_hosts": "JSON list of further hosts the authorization server may use "
            "for its endpoints.",
            "oauth_send_resource": "Switch off for servers that refuse the resource parameter, "
            "such as Microsoft Entra ID.",
            "oauth_extra_authorize_parameters": "JSON object, such as {“prompt”: “consent”}.",
            "oauth_allow_missing_pkce": "Weaker: a stolen code could be used. Only for servers "
            "you know.",
            "private_network": "Networks this one server may be in, such as 10.1.0.0/16. "
            "Empty: the public internet only. Every change is in the audit trail.",
            "call_timeout": "Seconds a call may take.",
            "list_timeout": "Seconds a list may take.",
            "max_in_flight": "Calls that may run at the same time, in each server process. "
            "Further ones wait a second and are then told to come back.",
            "max_answer_mib": "A larger answer is refused.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The credential prefix may end in a space that means something.
        prefix = self.fields.get("credential_prefix")
        if isinstance(prefix, forms.CharField):
            prefix.strip = False
        stored = self.instance
        self._say_stored("new_fixed_credential", bool(stored.sealed_fixed_credential))
        self._say_stored("new_oauth_client_secret", bool(stored.sealed_oauth_client_secret))

    def _say_stored(self, name: str, stored: bool) -> None:
        field = self.fields.get(name)
        if field is not None:
            state = "One is stored." if stored else "None is stored."
            field.help_text = f"{state} {field.help_text}"

    def clean(self) -> dict[str, Any]:
        """Check the secrets' form; the row itself is checked in ``_post_clean``."""
        cleaned = super().clean() or {}
        for name in ("new_fixed_credential", "new_oauth_client_secret"):
            value = str(cleaned.get(name) or "").strip()
            try:
                if value:
                    header_values.checked_value(value)
            except SetupFailed as error:
                self.add_error(name, error.message)
        fixed = cleaned.get("credential_kind") == CredentialKind.FIXED
        if cleaned.get("new_fixed_credential") and not fixed:
            self.add_error("credential_kind", "Choose the fixed credential to store one.")
        if cleaned.get("new_oauth_client_secret") and not cleaned.get("oauth_client_id"):
            self.add_error("oauth_client_id", "Enter the client id that the secret belongs to.")
        return cleaned

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        try:
            check_upstream(self.instance)
        except ValidationError as error:
            for name, texts in error.message_dict.items():
                self.add_error(name if name in self.fields else None, texts)

    def store(self, upstream: Upstream, *, actor: Any, change: bool) -> None:
        """Store the row through the actions, then the secrets that were entered or removed."""
        data = {name: self.cleaned_data[name] for name in self.changed_fields()}
        if change:
            stored = actions.update_upstream(Upstream.objects.get(pk=upstream.pk), data, actor)
        else:
            stored = actions.create_upstream(data, actor)
        cleaned = self.cleaned_data
        if cleaned.get("new_fixed_credential") or cleaned.get("remove_fixed_credential"):
            actions.set_fixed_credential(stored, cleaned["new_fixed_credential"], actor)
        if cleaned.get("new_oauth_client_secret") or cleaned.get("remove_oauth_client_secret"):
            actions.set_oauth_client_secret(stored, cleaned["new_oauth_client_secret"], actor)
        upstream.__dict__.update(stored.__dict__)

    def changed_fields(self) -> list[str]:
        """Return the fields of the row that this form holds."""
        return [name for name in actions.EDITABLE if name in self.cleaned_data]
