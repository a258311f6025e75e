"""Upstream MCP servers, our OAuth clients at their authorization servers, people's accounts."""

import uuid

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

UPSTREAM_KEY = RegexValidator(
    r"^[a-z][a-z0-9-]{0,30}$",
    "Use 1 to 31 lower-case letters, digits and hyphens, beginning with a letter.",
)


class EraChoice(models.TextChoices):
    """Which family of protocol revisions the gateway speaks to an upstream."""

    AUTO = "auto", "Find out"
    MODERN = "modern", "Stateless (2026-07-28)"
    LEGACY = "legacy", "Stateful (2025-11-25 and before)"


class CredentialKind(models.TextChoices):
    """How the gateway logs in to an upstream."""

    NONE = "none", "No credential"
    FIXED = "fixed", "One fixed header or query key for everybody"
    USER_KEY = "user_key", "Each person's own key"
    USER_OAUTH = "user_oauth", "OAuth, each person's own account"
    SHARED_OAUTH = "shared_oauth", "OAuth, one account for everybody, made by an administrator"
    ENTERPRISE = "enterprise", "Each person's sign-in at the company (ID-JAG)"


class ClientAuthentication(models.TextChoices):
    """How the gateway proves itself at a token endpoint."""

    AUTOMATIC = "", "As the server's metadata says"
    NONE = "none", "Not at all (public client)"
    BASIC = "client_secret_basic", "Secret in the Authorization header"
    POST = "client_secret_post", "Secret in the form"
    KEY = "private_key_jwt", "Signed by the gateway's own key"


class ScopeDelimiter(models.TextChoices):
    """What stands between scopes in an authorization request; a space, by RFC 6749."""

    SPACE = "space", "Space"
    COMMA = "comma", "Comma"


class SubjectTokenKind(models.TextChoices):
    """Which token of a person's sign-in is shown to the company's identity provider."""

    ID_TOKEN = "id_token", "ID token"
    REFRESH_TOKEN = "refresh_token", "Refresh token"
    ACCESS_TOKEN = "access_token", "Access token"


class CredentialPlacement(models.TextChoices):
    """Where a fixed credential or a person's key travels."""

    HEADER = "header", "Request header"
    QUERY = "query", "Query parameter"


class SessionScope(models.TextChoices):
    """Who shares a session with a stateful upstream (protocol.md 2.3.1)."""

    PERSON = "person", "One for each person, shared by their clients"
    CLIENT = "client", "One for each session of a client"
    CALL = "call", "One for each call, ended with it"


class Upstream(models.Model):
    """A remote MCP server and how to log in to it."""

    key = models.CharField(max_length=31, unique=True, validators=[UPSTREAM_KEY])
    title = models.CharField(max_length=100)
    description = models.TextField(blank=True)
    url = models.CharField("address", max_length=2000)
    enabled = models.BooleanField(default=True)
    era = models.CharField(max_length=8, choices=EraChoice, default=EraChoice.AUTO)
    session_scope = models.CharField(
        "sessions", max_length=6, choices=SessionScope, default=SessionScope.PERSON
    )

    credential_kind = models.CharField(
        max_length=16, choices=CredentialKind, default=CredentialKind.NONE
    )
    credential_placement = models.CharField(
        max_length=8, choices=CredentialPlacement, default=CredentialPlacement.HEADER
    )
    credential_name = models.CharField(max_length=100, blank=True, default="Authorization")
    credential_prefix = models.CharField(max_length=20, blank=True, default="Bearer ")
    sealed_fixed_credential = models.TextField(blank=True, editable=False)
    user_key_help = models.TextField(blank=True)
    # Go with every request, whatever the kind; the names are no secret, the values are.
    further_header_names = models.JSONField(default=list, blank=True, editable=False)
    sealed_further_headers = models.TextField(blank=True, editable=False)

    # The authorization server the administrator's client id belongs to; empty = as discovered,
    # and from then on only that one (a client secret is never shown to another).
    oauth_issuer = models.CharField(max_length=500, blank=True)
    oauth_client_id = models.CharField(max_length=500, blank=True)
    sealed_oauth_client_secret = models.TextField(blank=True, editable=False)
    oauth_scopes = models.CharField(max_length=1000, blank=True)
    oauth_scope_delimiter = models.CharField(
        max_length=8, choices=ScopeDelimiter, default=ScopeDelimiter.SPACE
    )
    oauth_auth_method = models.CharField(
        max_length=20, choices=ClientAuthentication, blank=True, default=""
    )
    # In the place of what the upstream's metadata says it is called.
    oauth_resource = models.CharField(max_length=2000, blank=True)
    oauth_send_resource = models.BooleanField(default=True)
    oauth_extra_authorize_parameters = models.JSONField(default=dict, blank=True)
    oauth_allowed_hosts = models.JSONField(default=list, blank=True)
    oauth_allow_missing_pkce = models.BooleanField(default=False)

    enterprise_token_url = models.CharField(max_length=500, blank=True)
    enterprise_provider = models.CharField(max_length=200, blank=True)
    enterprise_client_id = models.CharField(max_length=500, blank=True)
    sealed_enterprise_client_secret = models.TextField(blank=True, editable=False)
    enterprise_auth_method = models.CharField(
        max_length=20, choices=ClientAuthentication, blank=True, default=""
    )
    enterprise_subject_token = models.CharField(
        max_length=16, choices=SubjectTokenKind, default=SubjectTokenKind.ID_TOKEN
    )
    enterprise_audience = models.CharField(max_length=500, blank=True)
    enterprise_audience_parameter = models.CharField(max_length=40, blank=True, default="audience")
    enterprise_resource_parameter = models.CharField(max_length=40, blank=True, default="resource")

    private_network = models.CharField(max_length=200, blank=True)
    call_timeout = models.PositiveIntegerField(default=50)
    list_timeout = models.PositiveIntegerField(default=5)
    # Per server process: calls running at the same time, and the largest answer in MiB.
    max_in_flight = models.PositiveIntegerField("calls at a time", default=200)
    max_answer_mib = models.PositiveIntegerField("largest answer (MiB)", default=10)
    # For each person, over all processes; empty for the gateway's own numbers.
    sampling_per_minute = models.PositiveIntegerField(
        "questions to a person's model a minute", null=True, blank=True
    )
    sampling_tokens_per_day = models.PositiveIntegerField(
        "tokens of a person's model a day", null=True, blank=True
    )

    detected_era = models.CharField(max_length=8, blank=True, editable=False)
    detected_revision = models.CharField(max_length=10, blank=True, editable=False)
    last_checked_at = models.DateTimeField(null=True, editable=False)
    last_check = models.JSONField(default=dict, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["title"]

    def __str__(self) -> str:
        return self.title


class UpstreamClient(models.Model):
    """The gateway as OAuth client of one authorization server; shared by all, keyed by issuer."""

    class Registration(models.TextChoices):
        PREREGISTERED = "preregistered", "Registered by an administrator"
        CIMD = "cimd", "Client ID metadata document"
        DCR = "dcr", "Dynamic client registration"

    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="clients")
    issuer = models.CharField(max_length=500)
    registration = models.CharField(max_length=16, choices=Registration)
    client_id = models.CharField(max_length=500)
    sealed_client_secret = models.TextField(blank=True, editable=False)
    token_endpoint_auth_method = models.CharField(max_length=40, default="none")
    redirect_uri = models.CharField(max_length=500)
    server_metadata = models.JSONField(default=dict)
    secret_expires_at = models.DateTimeField(null=True)
    # The server no longer knows it: accounts that were made with it keep it, new ones do not.
    retired_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["upstream", "issuer", "redirect_uri"],
                condition=models.Q(retired_at__isnull=True),
                name="one_client_per_issuer",
            )
        ]

    def __str__(self) -> str:
        return f"{self.client_id} at {self.issuer}"


class ClientKey(models.Model):
    """A key with which the gateway proves itself to authorization servers, sealed."""

    kid = models.CharField(max_length=100, unique=True)
    sealed_key = models.TextField(editable=False)
    signs_from = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.kid


class UpstreamAccount(models.Model):
    """One person's account on one upstream: OAuth tokens or their own key, sealed by the vault.

    Without a person it is the account that an administrator connected for everybody.
    """

    class Status(models.TextChoices):
        CONNECTED = "connected", "Connected"
        NEEDS_RECONNECT = "needs_reconnect", "Needs reconnecting"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.CASCADE,
        related_name="upstream_accounts",
    )
    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="accounts")
    client = models.ForeignKey(UpstreamClient, null=True, on_delete=models.SET_NULL)
    status = models.CharField(max_length=16, choices=Status, default=Status.CONNECTED)
    # Changes with every new grant and never with a refresh: caches are keyed by it.
    grant_id = models.UUIDField(default=uuid.uuid4)
    sealed_secret = models.TextField(editable=False)
    issuer = models.CharField(max_length=500, blank=True)
    resource = models.CharField(max_length=2000, blank=True)
    # The upstream address the secret was given for; it is sent to that origin only.
    bound_url = models.CharField(max_length=2000, blank=True)
    scope = models.TextField(blank=True)
    # What the upstream asked for beyond ``scope``; the next connect asks for both.
    wanted_scope = models.TextField(blank=True)
    # How often a person was asked for which scopes that were not granted then.
    step_ups = models.JSONField(default=dict, editable=False)
    account_label = models.CharField(max_length=200, blank=True)
    expires_at = models.DateTimeField(null=True)
    version = models.PositiveIntegerField(default=1)
    refresh_lease_until = models.DateTimeField(null=True)
    refresh_lease_owner = models.CharField(max_length=64, blank=True)
    refreshed_at = models.DateTimeField(null=True)
    # After a failure that passes: no new attempt before this moment.
    refresh_not_before = models.DateTimeField(null=True)
    refresh_failures = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=500, blank=True)
    # Why it needs reconnecting, as a code of ``account_endings``.
    ended_because = models.CharField(max_length=24, blank=True)
    connected_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "upstream"], name="one_account_per_upstream"),
            models.UniqueConstraint(
                fields=["upstream"],
                condition=models.Q(user__isnull=True),
                name="one_shared_account_per_upstream",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or 'everybody'} on {self.upstream}"


class PendingAuthorization(models.Model):
    """A person on their way through an upstream's authorization server; single use, ten minutes."""

    state_digest = models.CharField(max_length=64, unique=True)
    browser_digest = models.CharField(max_length=64)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE)
    client = models.ForeignKey(UpstreamClient, on_delete=models.CASCADE)
    # The account is to be everybody's.
    shared = models.BooleanField(default=False)
    issuer = models.CharField(max_length=500)
    iss_required = models.BooleanField(default=False)
    sealed_verifier = models.TextField()
    redirect_uri = models.CharField(max_length=500)
    resource = models.CharField(max_length=2000, blank=True)
    scope = models.TextField(blank=True)
    return_to = models.TextField(default="/connections/")
    expires_at = models.DateTimeField()
    consumed_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.user} connecting {self.upstream}"


class UpstreamHealth(models.Model):
    """How an upstream does, as the scheduled probe and the calls through the gateway saw it."""

    class Status(models.TextChoices):
        UNKNOWN = "unknown", "Not checked yet"
        WORKING = "working", "Works"
        FAILING = "failing", "Fails"

    upstream = models.OneToOneField(Upstream, on_delete=models.CASCADE, related_name="health")
    status = models.CharField(max_length=8, choices=Status, default=Status.UNKNOWN)
    checked_at = models.DateTimeField(null=True)
    # Whoever moves this into the future does the next probe; so one node probes, not all.
    next_probe_at = models.DateTimeField(db_index=True)
    latency_ms = models.PositiveIntegerField(null=True)
    tools = models.PositiveIntegerField(null=True)
    last_success_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True)
    last_error_at = models.DateTimeField(null=True)
    circuit_opened_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "upstream health"

    def __str__(self) -> str:
        return f"{self.upstream}: {self.get_status_display()}"


class OAuthTrace(models.Model):
    """What was sent and received in one attempt to get or renew a credential, without secrets."""

    class Purpose(models.TextChoices):
        CONNECT = "connect", "Connecting an account"
        REFRESH = "refresh", "Renewing tokens"
        TEST = "test", "Test of the connection"

    class Outcome(models.TextChoices):
        OK = "ok", "Good"
        UNDER_WAY = "under_way", "The person has not come back"
        FAILED = "failed", "Failed"

    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="traces")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    purpose = models.CharField(max_length=10, choices=Purpose)
    # Joins the way to an authorization server with the way back; part of the state's digest.
    attempt = models.CharField(max_length=32, blank=True, db_index=True)
    outcome = models.CharField(max_length=10, choices=Outcome)
    failed_step = models.CharField(max_length=60, blank=True)
    message = models.CharField(max_length=500, blank=True)
    steps = models.JSONField(default=list)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField()

    class Meta:
        ordering = ["-pk"]
        verbose_name = "OAuth trace"

    def __str__(self) -> str:
        return f"{self.get_purpose_display()} at {self.upstream}"
