"""Trusted issuers and service accounts in the admin; every change goes through its action."""

from typing import TYPE_CHECKING, Any, ClassVar

from allauth.socialaccount.models import SocialApp
from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from oauthserver import audience, issuer_subjects, service_accounts, trusted_issuers
from oauthserver.errors import ProtocolError
from oauthserver.models import ServiceAccount, TrustedIssuer

if TYPE_CHECKING:
    _IssuerAdmin = admin.ModelAdmin[TrustedIssuer]
    _AccountAdmin = admin.ModelAdmin[ServiceAccount]
    _IssuerForm = forms.ModelForm[TrustedIssuer]
    _AccountForm = forms.ModelForm[ServiceAccount]
else:
    _IssuerAdmin = _AccountAdmin = admin.ModelAdmin
    _IssuerForm = _AccountForm = forms.ModelForm

_KEYS_HELP = 'Public keys (RS256 or ES256), in place of a URL: {"keys": [...]}'


class KeysField(forms.JSONField):
    """A key set, empty where there is none."""

    def prepare_value(self, value: Any) -> Any:
        """Show nothing as nothing."""
        return "" if value is None else super().prepare_value(value)


class DomainsField(forms.CharField):
    """Domains, separated by blanks or commas."""

    def prepare_value(self, value: Any) -> Any:
        """Show a list as text."""
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        """Return the list."""
        return [part for part in (value or "").replace(",", " ").split() if part]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare lists."""
        return bool(self.to_python(self.prepare_value(initial)) != self.to_python(data))


class TrustedIssuerForm(_IssuerForm):
    """An identity provider that may vouch for people."""

    domains = DomainsField(
        required=False, help_text=TrustedIssuer._meta.get_field("domains").help_text
    )

    class Meta:
        model = TrustedIssuer
        fields = ["issuer", *trusted_issuers.FIELDS]
        field_classes: ClassVar[dict[str, Any]] = {"jwks": KeysField}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = SocialApp.objects.exclude(provider_id="").order_by("name")
        choices = [(app.provider_id, f"{app.name} ({app.provider_id})") for app in known]
        self.fields["provider"] = forms.ChoiceField(
            label="Identity provider",
            choices=choices,
            help_text="The one people sign in with here."
            if choices
            else "There is none yet: add it under Identity providers first.",
        )
        if "person_claim" in self.fields:
            self.fields["person_claim"].required = False

    def clean_person_claim(self) -> str:
        """Take the usual claim where none is named."""
        return self.cleaned_data["person_claim"] or "sub"

    def clean(self) -> dict[str, Any]:
        """Check what the action will check, so that problems are shown on the page."""
        values = super().clean() or {}
        row = TrustedIssuer(**{name: values.get(name) or "" for name in ("issuer", "provider")})
        row.jwks_uri, row.jwks = values.get("jwks_uri") or "", values.get("jwks") or None
        for name in ("person_claim", "tenant_claim", "sign_in_claim", "sign_in_tenant_claim"):
            setattr(row, name, values.get(name) or "")
        row.domains = values.get("domains") or []
        trusted_issuers.check(row)
        return values


@admin.register(TrustedIssuer)
class TrustedIssuerAdmin(_IssuerAdmin):
    """Identity providers whose identity assertions stand in for consent."""

    form = TrustedIssuerForm
    list_display = ["issuer", "provider", "person_claim", "enabled"]
    fieldsets = [
        (None, {"fields": ["issuer", "provider", "jwks_uri", "jwks", "enabled"]}),
        (
            "Whom an assertion is about",
            {"fields": ["known", "person_claim", "tenant_claim", "domains"]},
        ),
        (
            "Claims that sign-ins call differently",
            {"classes": ["collapse"], "fields": ["sign_in_claim", "sign_in_tenant_claim"]},
        ),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: TrustedIssuer | None = None) -> Any:
        """An issuer is its address."""
        return ["issuer", "known"] if obj else ["known"]

    @admin.display(description="People it can vouch for")
    def known(self, issuer: TrustedIssuer) -> str:
        """Say how many people have signed in with the provider, and how many can be found."""
        if issuer.pk is None:
            return "Who has signed in with the identity provider once."
        everybody, found = issuer_subjects.known_people(issuer)
        said = f"{found} of {everybody} who have signed in with the identity provider."
        if found < everybody:
            said += (
                " The last sign-in of the others did not say what is named here: Test sign-in, on "
                "the identity provider's page, shows what it says."
            )
        return said

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kw: Any
    ) -> Any:
        """Let the check know an issuer that cannot be changed any more."""
        made = super().get_form(request, obj, change, **kw)
        if obj is None:
            return made
        issuer = obj.issuer

        class Changed(made):  # type: ignore[valid-type,misc]
            def clean(self) -> Any:
                self.cleaned_data["issuer"] = issuer
                return super().clean()

        return Changed

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save through the action."""
        values = {name: form.cleaned_data.get(name) for name in trusted_issuers.FIELDS}
        values["jwks"], values["domains"] = values["jwks"] or None, values["domains"] or []
        trusted_issuers.trust(obj.issuer, values, actor=request.user)
        obj.pk = TrustedIssuer.objects.get(issuer=obj.issuer).pk

    def delete_model(self, request: HttpRequest, obj: TrustedIssuer) -> None:
        """Delete through the action."""
        trusted_issuers.drop(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[TrustedIssuer]) -> None:
        """Delete each through the action."""
        for row in queryset:
            trusted_issuers.drop(row, actor=request.user)


class ServiceAccountForm(_AccountForm):
    """A program without a person."""

    name = forms.CharField(max_length=100, help_text="Shown in the audit trail and call log.")
    chosen = forms.MultipleChoiceField(
        label="Virtual MCPs", widget=forms.CheckboxSelectMultiple, help_text="And no others."
    )
    jwks_uri = forms.CharField(
        label="Key set URL", required=False, help_text="https, on the internet."
    )
    jwks = KeysField(label="Keys", required=False, help_text=_KEYS_HELP)

    class Meta:
        model = ServiceAccount
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = self.fields["chosen"]
        assert isinstance(chosen, forms.MultipleChoiceField)
        known = {one.uri: one.title for one in audience.every_resource()}
        gone = [uri for uri in self.instance.resources if uri not in known]
        chosen.choices = [*known.items(), *((uri, f"{uri} (gone)") for uri in gone)]
        if self.instance.pk is not None:
            client = self.instance.client
            self.initial["name"], self.initial["chosen"] = client.name, self.instance.resources
            self.initial["jwks_uri"], self.initial["jwks"] = client.jwks_uri, client.jwks
            self.fields["name"].disabled = True

    def values(self) -> dict[str, Any]:
        """Return what the actions take."""
        data = self.cleaned_data
        return {
            "resources": data["chosen"],
            "jwks": data["jwks"] or None,
            "jwks_uri": data["jwks_uri"],
        }

    def clean(self) -> dict[str, Any]:
        """Check what the action will check, so that problems are shown on the page."""
        values = super().clean() or {}
        if not self.errors:
            try:
                service_accounts.check(**self.values())
            except ProtocolError as error:
                raise ValidationError(error.description) from error
        return values


@admin.register(ServiceAccount)
class ServiceAccountAdmin(_AccountAdmin):
    """Programs without a person. The client ID to configure there is shown after saving."""

    form = ServiceAccountForm
    list_display = ["name", "client_id", "username", "listed"]
    fields = ["name", "chosen", "jwks_uri", "jwks"]
    list_select_related = ["client", "user"]

    def get_fields(self, request: HttpRequest, obj: ServiceAccount | None = None) -> Any:
        """Show the client ID once there is one."""
        return self.fields if obj is None else ["client_id", "username", *(self.fields or [])]

    def get_readonly_fields(self, request: HttpRequest, obj: ServiceAccount | None = None) -> Any:
        """What it is called by programs and in the log."""
        return [] if obj is None else ["client_id", "username"]

    @admin.display(description="Name")
    def name(self, account: ServiceAccount) -> str:
        """Return its name."""
        return str(account.client.name)

    @admin.display(description="Client ID")
    def client_id(self, account: ServiceAccount) -> str:
        """Return what the program calls itself."""
        return str(account.client.client_id)

    @admin.display(description="Account (groups and access rules know it by this name)")
    def username(self, account: ServiceAccount) -> str:
        """Return the name of its account."""
        return str(account.user.get_username())

    @admin.display(description="Virtual MCPs")
    def listed(self, account: ServiceAccount) -> str:
        """List the ends of the addresses."""
        return ", ".join(uri.rpartition("/")[2] for uri in account.resources)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save through the action."""
        if change:
            stored = ServiceAccount.objects.select_related("client").get(pk=obj.pk)
            service_accounts.change(stored, **form.values(), actor=request.user)
            return
        made = service_accounts.create(
            form.cleaned_data["name"], **form.values(), actor=request.user
        )
        obj.pk, obj.client, obj.user = made.pk, made.client, made.user

    def delete_model(self, request: HttpRequest, obj: ServiceAccount) -> None:
        """Delete through the action."""
        service_accounts.delete(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ServiceAccount]) -> None:
        """Delete each through the action."""
        for account in queryset:
            service_accounts.delete(account, actor=request.user)
