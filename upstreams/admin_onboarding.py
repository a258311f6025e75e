"""The admin's short ways to a new upstream: from a preset, and from a file."""

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from upstreams import token_vault
from upstreams.models import CredentialKind, Upstream
from upstreams.preset_catalogue import Preset, preset_for, presets
from upstreams.server_documents import MAX_BYTES, Candidate, DocumentRefused, read_document
from upstreams.server_import import already_there, import_servers

# The class is generic for the type checker only.
if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Upstream]
else:
    _Admin = admin.ModelAdmin

PREVIEW_SECONDS: Final = 3600


class _Held(msgspec.Struct):
    """A document between its preview and its import, sealed: it may hold keys."""

    at: float
    document: str


class DocumentForm(forms.Form):
    """What describes the servers: pasted or uploaded."""

    pasted = forms.CharField(
        label="Paste it here",
        required=False,
        widget=forms.Textarea(attrs={"rows": 12, "spellcheck": "false", "autocomplete": "off"}),
    )
    file = forms.FileField(label="or choose the file", required=False)

    def content(self) -> bytes:
        """Return what was given."""
        uploaded = self.cleaned_data.get("file")
        if uploaded is not None:
            return bytes(uploaded.read(MAX_BYTES + 1))
        return str(self.cleaned_data.get("pasted") or "").encode()


class OnboardingPages(_Admin):
    """Adds the two pages, and shows a preset's steps and sources beside the form."""

    change_list_template = "upstreams/admin/change_list.html"

    def get_urls(self) -> list[Any]:
        """Add the addresses of the two pages."""
        view = self.admin_site.admin_view
        own = [
            path("presets/", view(self.show_presets), name="upstreams_upstream_presets"),
            path("import/", view(self.import_document), name="upstreams_upstream_import"),
        ]
        return [*own, *super().get_urls()]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Fill in the form for a new upstream from the preset that was chosen."""
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        preset = presets().get(str(initial.pop("preset", "")))
        return {**initial, **preset.fields()} if preset is not None else initial

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the preset's steps beside the form."""
        context = {**(extra_context or {}), "preset": self._preset_of(request, object_id)}
        return super().changeform_view(request, object_id, form_url, context)

    @staticmethod
    def _preset_of(request: HttpRequest, object_id: str | None) -> Preset | None:
        if object_id is None:
            return presets().get(request.GET.get("preset", ""))
        if not object_id.isdigit():
            return None
        upstream = Upstream.objects.filter(pk=int(object_id)).first()
        return preset_for(upstream.url) if upstream is not None else None

    def _page(self, request: HttpRequest, template: str, title: str, **more: Any) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            **more,
        }
        return render(request, f"upstreams/admin/{template}", context)

    def show_presets(self, request: HttpRequest) -> HttpResponse:
        """List the presets, or those that a word is found in."""
        word = request.GET.get("q", "").strip()
        found = [
            preset
            for preset in presets().values()
            if word.lower() in f"{preset.title} {preset.description} {preset.url}".lower()
        ]
        addresses = Upstream.objects.values_list("url", flat=True)
        used = {preset.key for url in addresses if (preset := preset_for(url)) is not None}
        rows = [(preset, preset.key in used) for preset in found]
        return self._page(request, "presets.html", "Add from a preset", rows=rows, word=word)

    @staticmethod
    def _owner(request: HttpRequest) -> str:
        return f"import/user:{request.user.pk}"

    @method_decorator(sensitive_post_parameters("pasted", "held"))
    def import_document(self, request: HttpRequest) -> HttpResponse:
        """Take a document, show what it describes, and add what was chosen."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        if request.method == "POST" and "held" in request.POST:
            return self._import_chosen(request)
        form = DocumentForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            content = form.content()
            try:
                return self._preview(request, content, read_document(content))
            except DocumentRefused as refused:
                form.add_error(None, str(refused))
        # What was pasted may hold keys: it is not sent back to the page.
        shown = DocumentForm()
        problems = form.non_field_errors() if form.is_bound else []
        title = "Import servers from a file"
        return self._page(request, "import_document.html", title, form=shown, problems=problems)

    def _preview(
        self, request: HttpRequest, content: bytes, candidates: list[Candidate], problem: str = ""
    ) -> HttpResponse:
        held = _Held(time.time(), content.decode("utf-8-sig"))
        rows = [
            (number, one, None if one.refusal else already_there(one))
            for number, one in enumerate(candidates)
        ]
        return self._page(
            request,
            "import_preview.html",
            "Import servers: choose",
            rows=rows,
            kinds=CredentialKind.choices,
            held=token_vault.seal(msgspec.json.encode(held), self._owner(request)),
            problem=problem,
            none_usable=all(one.refusal or there for _, one, there in rows),
        )

    def _import_chosen(self, request: HttpRequest) -> HttpResponse:
        again = HttpResponseRedirect(reverse("admin:upstreams_upstream_import"))
        try:
            sealed = request.POST["held"]
            held = msgspec.json.decode(
                token_vault.open_sealed(sealed, self._owner(request)), type=_Held
            )
        except (token_vault.VaultError, msgspec.MsgspecError):
            messages.error(request, "Nothing was imported: give the file again.")
            return again
        if time.time() - held.at > PREVIEW_SECONDS:
            messages.error(request, "The preview is older than an hour: give the file again.")
            return again
        candidates = read_document(held.document)
        chosen = [
            (one, request.POST.get(f"kind-{number}", ""))
            for number, one in enumerate(candidates)
            if f"take-{number}" in request.POST
        ]
        try:
            made = import_servers(chosen, request.user)
        except DocumentRefused as refused:
            problem = f"Nothing was imported. {refused}"
            return self._preview(request, held.document.encode(), candidates, problem)
        messages.success(
            request,
            f"{len(made)} added: {', '.join(one.title for one in made)}. Open each and test it."
            if made
            else "Nothing was chosen, nothing was added.",
        )
        return HttpResponseRedirect(reverse("admin:upstreams_upstream_changelist"))
