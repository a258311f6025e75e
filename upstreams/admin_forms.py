"""The form of an upstream: secrets can be entered and removed, never read."""

from typing import TYPE_CHECKING, Any, ClassVar, Final

from django import forms
from django.core.exceptions import ValidationError

from upstreams import actions, header_values
from upstreams.errors import SetupFailed
from upstreams.models import CredentialKind, Upstream
from upstreams.upstream_facts import SAMPLING_PER_MINUTE, SAMPLING_TOKENS_PER_DAY
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


# A choice that was left out is the usual one.
_WITH_DEFAULT: Final = ("oauth_scope_delimiter", "enterprise_subject_token", "session_scope")


class UpstreamForm(_Form):
    """Checks what ``actions`` checks, so that problems stand at their fields."""

    new_fixed_credential = _secret("Shared credential", "Write-only. Empty keeps what is stored.")
    remove_fixed_credential = forms.BooleanField(label="Remove it", required=False)
    new_further_headers = forms.CharField(
        label="Further headers",
        help_text="Sent with every request, one “Name: value” a line. Write-only. Empty keeps "
        "what is stored.",
        required=False,
        strip=True,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
    )
    remove_further_headers = forms.BooleanField(label="Remove them", required=False)
    new_enterprise_client_secret = _secret(
        "Client secret at the provider", "Write-only. Empty keeps what is stored."
    )
    remove_enterprise_client_secret = forms.BooleanField(label="Remove it", required=False)
    new_oauth_client_secret = _secret("Client secret", "Write-only. Empty keeps what is stored.")
    remove_oauth_client_secret = forms.BooleanField(label="Remove it", required=False)

    class Meta:
        model = Upstream
        fields: ClassVar[list[str]] = list(actions.EDITABLE)
        error_messages: ClassVar[dict[str, dict[str, str]]] = {
            "key": {"unique": "Another upstream has this key. Choose a different one."}
        }
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
            "oauth_scope_delimiter": "Only for servers that want their scopes apart by commas.",
            "oauth_auth_method": "Only where the server's metadata says it wrongly or not at all.",
            "oauth_resource": "What the server is called at its authorization server, where its "
            "own metadata is missing or wrong. With the authorization server entered too, its "
            "metadata is not asked at all.",
            "enterprise_token_url": "Where the company's identity provider exchanges tokens.",
            "enterprise_provider": "Id of the identity provider with that address; may be "
            "empty where only one is set up.",
            "enterprise_client_id": "The gateway's client id there.",
            "enterprise_subject_token": "Which token of a person's sign-in the provider takes.",
            "enterprise_audience": "Empty: the issuer of the upstream's authorization server.",
            "enterprise_audience_parameter": "Name of the parameter with the audience; empty "
            "sends none.",
            "enterprise_resource_parameter": "Name of the parameter with the MCP server; empty "
            "sends none.",
            "private_network": "Networks this one server may be in, such as 10.1.0.0/16. "
            "Empty: the public internet only. Every change is in the audit trail.",
            "session_scope": "Who shares a session with a stateful server. Choose one for each "
            "client session where the server remembers earlier calls, such as an open page; one "
            "for each call where it must remember none.",
            "call_timeout": "Seconds a call may take.",
            "list_timeout": "Seconds a list may take.",
            "max_in_flight": "Calls that may run at the same time, in each server process. "
            "Further ones wait a second and are then told to come back.",
            "max_answer_mib": "A larger answer is refused.",
            "sampling_per_minute": "A server can have a question answered by the model that each "
            "person uses and pays for (sampling). So often it may ask one person; empty: "
            f"{SAMPLING_PER_MINUTE} times. Whether it may at all beside other upstreams is said "
            "in each Virtual MCP.",
            "sampling_tokens_per_day": "Counted is what it asks for (maxTokens), since clients do "
            f"not say what an answer cost. For one person, from midnight UTC; empty: "
            f"{SAMPLING_TOKENS_PER_DAY:,}.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The credential prefix may end in a space that means something.
        prefix = self.fields.get("credential_prefix")
        if isinstance(prefix, forms.CharField):
            prefix.strip = False
        for name in _WITH_DEFAULT:
            if name in self.fields:
                self.fields[name].required = False
        stored = self.instance
        self._say_stored("new_fixed_credential", bool(stored.sealed_fixed_credential))
        self._say_stored("new_oauth_client_secret", bool(stored.sealed_oauth_client_secret))
        self._say_stored(
            "new_enterprise_client_secret", bool(stored.sealed_enterprise_client_secret)
        )
        headers = self.fields.get("new_further_headers")
        if headers is not None and stored.further_header_names:
            names = ", ".join(stored.further_header_names)
            headers.help_text = f"Stored: {names}. {headers.help_text}"

    def _say_stored(self, name: str, stored: bool) -> None:
        field = self.fields.get(name)
        if field is not None:
            state = "One is stored." if stored else "None is stored."
            field.help_text = f"{state} {field.help_text}"

    def clean(self) -> dict[str, Any]:
        """Check the secrets' form; the row itself is checked in ``_post_clean``."""
        cleaned = super().clean() or {}
        for name in _WITH_DEFAULT:
            if name in cleaned:
                cleaned[name] = cleaned[name] or getattr(Upstream(), name)
        secrets = (
            "new_fixed_credential",
            "new_oauth_client_secret",
            "new_enterprise_client_secret",
        )
        for name in secrets:
            value = str(cleaned.get(name) or "").strip()
            try:
                if value:
                    header_values.checked_value(value)
            except SetupFailed as error:
                self.add_error(name, error.message)
        self._read_headers(cleaned)
        fixed = cleaned.get("credential_kind") == CredentialKind.FIXED
        if cleaned.get("new_fixed_credential") and not fixed:
            self.add_error("credential_kind", "Choose the fixed credential to store one.")
        if cleaned.get("new_oauth_client_secret") and not cleaned.get("oauth_client_id"):
            self.add_error("oauth_client_id", "Enter the client id that the secret belongs to.")
        return cleaned

    def _read_headers(self, cleaned: dict[str, Any]) -> None:
        """Turn the lines into names and values; a bad line is named by its number only."""
        found: dict[str, str] = {}
        for number, line in enumerate(
            (cleaned.get("new_further_headers") or "").splitlines(), start=1
        ):
            name, colon, value = line.partition(":")
            if not line.strip():
                continue
            try:
                if not colon:
                    raise SetupFailed("authorization", "Write “Name: value”.")
                checked = header_values.checked_header_name(name.strip())
                found[checked] = header_values.checked_value(value.strip())
            except SetupFailed as error:
                self.add_error("new_further_headers", f"Line {number}: {error.message}")
        cleaned["further_headers"] = found

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
        if cleaned.get("further_headers") or cleaned.get("remove_further_headers"):
            actions.set_further_headers(stored, cleaned["further_headers"], actor)
        new_secret = cleaned.get("new_enterprise_client_secret", "")
        if new_secret or cleaned.get("remove_enterprise_client_secret"):
            actions.set_enterprise_secret(stored, new_secret, actor)
        upstream.__dict__.update(stored.__dict__)

    def changed_fields(self) -> list[str]:
        """Return the fields of the row that this form holds."""
        return [name for name in actions.EDITABLE if name in self.cleaned_data]
