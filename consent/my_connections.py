"""``/connections/``: what a person has authorized and connected, and how to take it back."""

from dataclasses import dataclass
from datetime import datetime

from asgiref.sync import async_to_sync
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from consent import agreement, decisions
from consent.models import ConsentRecord
from consent.upstream_checklist import reachable_upstreams
from oauthserver import vouched_access
from oauthserver.models import VouchedAccess
from upstreams import accounts, user_keys
from upstreams.accounts import AccountStatus
from upstreams.errors import SetupFailed
from upstreams.health_words import health_line
from upstreams.models import CredentialKind, Upstream, UpstreamAccount
from upstreams.revocation import can_revoke
from upstreams.server_metadata import scope_words
from virtualmcp.models import CallRecord, VirtualMcp

OWN_ACCOUNT = (CredentialKind.USER_OAUTH, CredentialKind.USER_KEY, CredentialKind.ENTERPRISE)
MAX_KEY_LENGTH = 8000


@dataclass(frozen=True, slots=True)
class AuthorizedClient:
    """One client that may act as this person on one Virtual MCP."""

    record: ConsentRecord
    server_title: str
    last_used: datetime | None
    news: list[str]


@dataclass(frozen=True, slots=True)
class VouchedClient:
    """One client that the company let act as this person, without asking them."""

    access: VouchedAccess
    server_title: str
    provider: str


@dataclass(frozen=True, slots=True)
class ConnectedUpstream:
    """One upstream where this person has, or could have, an account of their own."""

    upstream: Upstream
    status: AccountStatus
    account: UpstreamAccount | None

    @property
    def by_key(self) -> bool:
        """Whether the account is a pasted key."""
        return self.upstream.credential_kind == CredentialKind.USER_KEY

    @property
    def by_company(self) -> bool:
        """Whether the company's sign-in is the account."""
        return self.upstream.credential_kind == CredentialKind.ENTERPRISE

    @property
    def needs_care(self) -> bool:
        """Whether its owner has to do something before it works again."""
        return self.status.state == "needs_reconnect"

    @property
    def failing(self) -> bool:
        """Whether the server does not answer at present, which its owner cannot mend."""
        return health_line(self.upstream).state == "failing"

    @property
    def scopes(self) -> tuple[str, ...]:
        """The permissions that were granted."""
        return scope_words(self.status.scope)

    @property
    def has_account(self) -> bool:
        """Whether something is stored that could be removed."""
        return self.account is not None


@require_safe
@login_required
@never_cache
def connections(request: HttpRequest) -> HttpResponse:
    """Show both lists."""
    person = _person(request)
    own = _own_upstreams(person)
    context = {
        "clients": _authorized_clients(person),
        "vouched": _vouched_clients(person),
        "upstreams": own,
        "to_reconnect": [entry.upstream.title for entry in own if entry.needs_care],
        "here": request.path,
    }
    return render(request, "consent/connections.html", context)


@require_POST
@login_required
def revoke_client(request: HttpRequest, record_id: int) -> HttpResponse:
    """Take back one authorization; the client's next request fails."""
    person = _person(request)
    record = get_object_or_404(
        ConsentRecord.objects.select_related("client", "user"), pk=record_id, user=person
    )
    decisions.revoke(record, actor=person, address=_address(request))
    name = record.client.name or "The program"
    messages.success(request, f"{name} can no longer use {record.virtual_mcp_slug} as you.")
    return redirect("consent:connections")


@require_POST
@login_required
def end_vouched(request: HttpRequest, access_id: int) -> HttpResponse:
    """End what the company let one client do as this person; it may let it in again."""
    person = _person(request)
    access = get_object_or_404(
        VouchedAccess.objects.select_related("client"), pk=access_id, user=person
    )
    vouched_access.end([access], actor=person, address=_address(request))
    name = access.client.name or "The program"
    messages.success(
        request,
        f"{name} can no longer use {access.slug} as you. Your company may let it in again: ask "
        "your administrator if it should not.",
    )
    return redirect("consent:connections")


@require_POST
@login_required
def disconnect_upstream(request: HttpRequest, key: str) -> HttpResponse:
    """Forget this person's account on one upstream."""
    person = _person(request)
    upstream = get_object_or_404(Upstream, key=key, accounts__user=person)
    account = accounts.account_of(person.pk, upstream.pk)
    revoked = account is not None and can_revoke(account)
    accounts.disconnect(person, upstream, actor=person)
    there = (
        f"{upstream.title} is asked to end the access too."
        if revoked
        else f"To be sure, also end the access in the settings of {upstream.title}."
    )
    messages.success(
        request,
        f"{upstream.title} is disconnected; what the gateway kept for it is deleted. {there}",
    )
    return redirect("consent:connections")


@sensitive_post_parameters("key")
@require_POST
@login_required
def save_key(request: HttpRequest, key: str) -> HttpResponse:
    """Keep this person's own key for one upstream."""
    person = _person(request)
    upstream = get_object_or_404(
        reachable_upstreams(person), key=key, credential_kind=CredentialKind.USER_KEY
    )
    secret = request.POST.get("key", "").strip()
    if not secret or len(secret) > MAX_KEY_LENGTH or not secret.isprintable():
        messages.error(
            request, f"That does not look like a key for {upstream.title}. Nothing was saved."
        )
        return redirect("consent:connections")
    try:
        async_to_sync(user_keys.check_and_save)(person, upstream, secret, actor=person)
    except SetupFailed as error:
        messages.error(request, f"{error.message} Nothing was saved.")
        return redirect("consent:connections")
    messages.success(request, f"Your key for {upstream.title} is saved.")
    return redirect("consent:connections")


def _authorized_clients(person: User) -> list[AuthorizedClient]:
    records = ConsentRecord.objects.filter(user=person, revoked_at=None).select_related("client")
    titles = dict(VirtualMcp.objects.values_list("slug", "title"))
    calls = CallRecord.objects.filter(user_id=person.pk).values_list("client_id", "virtual_mcp")
    used = {(client, slug): at for client, slug, at in calls.annotate(last=Max("at")).order_by()}
    return [
        AuthorizedClient(
            record,
            titles.get(record.virtual_mcp_slug, record.virtual_mcp_slug),
            used.get((record.client.client_id, record.virtual_mcp_slug)),
            agreement.news(record),
        )
        for record in records
    ]


def _vouched_clients(person: User) -> list[VouchedClient]:
    titles = dict(VirtualMcp.objects.values_list("slug", "title"))
    standing = vouched_access.standing(person)
    providers = vouched_access.provider_names({access.issuer for access in standing})
    return [
        VouchedClient(access, titles.get(access.slug, access.slug), providers[access.issuer])
        for access in standing
    ]


def _own_upstreams(person: User) -> list[ConnectedUpstream]:
    held = {account.upstream_id: account for account in UpstreamAccount.objects.filter(user=person)}
    reachable = reachable_upstreams(person).filter(credential_kind__in=OWN_ACCOUNT)
    shown = (reachable | Upstream.objects.filter(pk__in=held)).distinct().order_by("title")
    shown = shown.select_related("health")
    return [
        ConnectedUpstream(upstream, accounts.status_for(person, upstream), held.get(upstream.pk))
        for upstream in shown
    ]


def _person(request: HttpRequest) -> User:
    user = request.user
    assert isinstance(user, User)
    return user


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))
