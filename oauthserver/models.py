"""OAuth clients, and what the token policy must remember beside the library's own tables.

The library's token models stay as they are (``oauth2_provider``); rows here refer to them by
checksum, because a foreign key would make the two apps' first migrations depend on each other.
"""

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from oauth2_provider.models import AbstractApplication
from oauth2_provider.utils import jwk_from_pem

from oauthserver import redirect_uris
from oauthserver.client_facts import ClientFacts


class OAuthClient(AbstractApplication):  # type: ignore[misc]
    """An MCP client that may ask for tokens; swapped in for the library's application model.

    ``registration_source`` (manual, dcr, cimd) and ``cimd_expires_at`` are the library's.
    ``metadata`` holds ``auth_methods`` and ``grant_types`` (lists) and ``document``, the last
    registration request or metadata document as it came, for an administrator to look at.
    """

    class Review(models.TextChoices):
        NONE = "", "Not asked for"
        WAITING = "waiting", "Waiting for an administrator"
        APPROVED = "approved", "Approved by an administrator"
        REFUSED = "refused", "Refused by an administrator"

    # How it proved who it is in the request at hand; "" before that, and where it did not.
    proven_by: str = ""

    enabled = models.BooleanField(default=True)
    review = models.CharField(
        max_length=8, choices=Review, default=Review.NONE, blank=True, db_index=True
    )
    review_asked_by = models.CharField(max_length=150, blank=True, editable=False)
    reviewed_at = models.DateTimeField(null=True, editable=False)
    # Digests of the RFC 7592 token, and of the one before until its successor is first used.
    registration_token = models.CharField(max_length=64, blank=True, editable=False)
    registration_token_before = models.CharField(max_length=64, blank=True, editable=False)
    token_endpoint_auth_method = models.CharField(max_length=40, default="none")
    token_endpoint_auth_signing_alg = models.CharField(max_length=16, blank=True)
    jwks_uri = models.CharField(max_length=2000, blank=True)
    jwks = models.JSONField(null=True, blank=True)
    client_uri = models.CharField(max_length=2000, blank=True)
    logo_uri = models.CharField(max_length=2000, blank=True)
    software_id = models.CharField(max_length=200, blank=True)
    metadata = models.JSONField(default=dict, blank=True, editable=False)
    approved_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta(AbstractApplication.Meta):  # type: ignore[misc]
        verbose_name = "OAuth client"
        verbose_name_plural = "OAuth clients"

    def is_usable(self, request: object) -> bool:
        """A client that an administrator switched off or refused gets nothing more."""
        return self.enabled and self.review != self.Review.REFUSED

    def redirect_uri_allowed(self, uri: str) -> bool:
        """Whether ``uri`` is one of the registered ones (protocol.md 5.6)."""
        return any(redirect_uris.matches(uri, known) for known in self.redirect_uris.split())

    def get_allowed_schemes(self) -> list[str]:
        """Schemes of the registered redirect URIs: nothing else is ever redirected to."""
        return sorted({uri.partition(":")[0] for uri in self.redirect_uris.split()})

    def take(self, facts: ClientFacts) -> None:
        """Set what a registration or a metadata document says; the caller saves."""
        self.name = facts.name
        self.redirect_uris = " ".join(facts.redirect_uris)
        self.authorization_grant_type = self.GRANT_AUTHORIZATION_CODE
        public = "none" in facts.auth_methods
        self.client_type = self.CLIENT_PUBLIC if public else self.CLIENT_CONFIDENTIAL
        self.client_secret = ""
        # The stored form is a digest already; the library must not hash it again.
        self.hash_client_secret = False
        self.token_endpoint_auth_method = facts.auth_method
        self.token_endpoint_auth_signing_alg = facts.signing_alg
        self.jwks_uri = facts.jwks_uri
        self.jwks = facts.jwks
        self.client_uri = facts.client_uri
        self.logo_uri = facts.logo_uri
        self.software_id = facts.software_id
        self.metadata = {
            "auth_methods": list(facts.auth_methods),
            "grant_types": list(facts.grant_types),
            "document": facts.document,
        }

    @property
    def jwk_key(self) -> Any:
        """The key that signs ID tokens: the server's, for every client."""
        return jwk_from_pem(settings.OIDC_RSA_PRIVATE_KEY)

    @property
    def auth_methods(self) -> frozenset[str]:
        """Ways this client may authenticate at the token endpoint."""
        listed = self.metadata.get("auth_methods") or [self.token_endpoint_auth_method]
        return frozenset(listed)

    @property
    def wants_refresh_tokens(self) -> bool:
        """Whether the client registered the refresh grant (clients.md 3.3)."""
        return "refresh_token" in self.metadata.get("grant_types", ["refresh_token"])


class ClientPolicy(models.Model):
    """Which clients may come to this gateway by themselves: one row, or its defaults.

    ``allowed_hosts`` holds host names; see ``client_admission`` for what each form matches.
    """

    class Mode(models.TextChoices):
        OPEN = "open", "Every client"
        HOSTS = "hosts", "Only clients of the hosts listed below"
        APPROVAL = "approval", "After an administrator has approved the client"
        OFF = "off", "No client: only those that an administrator registers"

    documents = models.CharField(
        "Clients with a metadata document",
        max_length=8,
        choices=Mode,
        default=Mode.OPEN,
        help_text="ChatGPT, Claude and VS Code publish one (CIMD); its host is proven.",
    )
    registration = models.CharField(
        "Clients that register themselves",
        max_length=8,
        choices=Mode,
        default=Mode.OPEN,
        help_text="Dynamic client registration: what such a client says of itself is not proven.",
    )
    allowed_hosts = models.JSONField(default=list, blank=True)
    advice = models.CharField(
        "What people should do",
        max_length=300,
        blank=True,
        help_text="Shown to a person whose client is not admitted: whom to ask, and how.",
    )
    forget_after_days = models.PositiveIntegerField(
        "Forget unused clients after days",
        default=0,
        help_text="Removes clients that registered themselves, hold no live token and were not "
        "used for so long; they have to be added again in the client. 0 keeps them for good.",
    )

    machine_access = models.BooleanField(
        "Service accounts may get tokens",
        default=False,
        help_text="Programs without a person (client_credentials). Make the accounts under "
        "Service accounts.",
    )

    class Meta:
        verbose_name = verbose_name_plural = "client policy"

    def __str__(self) -> str:
        return "Client policy"

    @classmethod
    def current(cls) -> "ClientPolicy":
        """Return the one row, or its defaults while nobody has saved it."""
        return cls.objects.order_by("pk").first() or cls()


class TrustedIssuer(models.Model):
    """An identity provider whose identity assertions stand in for consent (d18).

    ``provider`` is the one people sign in with here: it gives each of them their subject.
    """

    issuer = models.CharField(
        max_length=500, unique=True, help_text="Exactly as in the 'iss' of its tokens."
    )
    provider = models.CharField(
        "identity provider",
        max_length=200,
        help_text="ID of the identity provider with which people sign in here.",
    )
    jwks_uri = models.CharField(
        "key set URL", max_length=2000, blank=True, help_text="https, on the internet."
    )
    jwks = models.JSONField(
        "keys",
        null=True,
        blank=True,
        help_text='In place of a URL that the gateway cannot reach: {"keys": [...]}',
    )
    enabled = models.BooleanField(default=True)
    person_claim = models.CharField(
        "claim that names the person",
        max_length=200,
        default="sub",
        help_text="sub, where the provider names people alike in sign-ins and assertions, as the "
        "draft asks. oid for Microsoft Entra ID, whose sub differs for each application. It has to "
        "be unique, never given to somebody else, and nothing that people change themselves; what "
        "is inside another claim is named with dots. An aud_sub in an assertion comes first: it "
        "has to be the person's id here, as SCIM and UserInfo of this gateway call them.",
    )
    tenant_claim = models.CharField(
        "claim that names the tenant",
        max_length=200,
        blank=True,
        help_text="tid for oid. Needed wherever the claim above is unique within a tenant only; "
        "sign-in and assertion then have to name the same one.",
    )
    sign_in_claim = models.CharField(
        "the person's claim in sign-ins",
        max_length=200,
        blank=True,
        help_text="Where it is called differently there, such as a SAML attribute; sub is the "
        "NameID. Empty: the same.",
    )
    sign_in_tenant_claim = models.CharField(
        "the tenant's claim in sign-ins",
        max_length=200,
        blank=True,
        help_text="Where it is called differently there. Empty: the same.",
    )
    domains = models.JSONField(
        default=list,
        blank=True,
        help_text="For the claim email only, which can be given to somebody else: the domains "
        "whose verified addresses name people, such as contoso.com.",
    )

    class Meta:
        verbose_name = "trusted issuer"

    def __str__(self) -> str:
        return self.issuer

    @property
    def by_subject_alone(self) -> bool:
        """Whether the subject of a sign-in is what assertions name people by."""
        return self.person_claim == "sub" and not self.tenant_claim and not self.sign_in_claim


class IssuerSubject(models.Model):
    """What an issuer's assertions call somebody, as their last sign-in said it.

    ``tenant`` is "" where the issuer's people are unique without one.
    """

    issuer = models.ForeignKey(TrustedIssuer, on_delete=models.CASCADE, related_name="subjects")
    account = models.ForeignKey(
        "socialaccount.SocialAccount", on_delete=models.CASCADE, related_name="+"
    )
    tenant = models.CharField(max_length=255, blank=True)
    value = models.CharField(max_length=255)

    class Meta:
        indexes = [models.Index(fields=["issuer", "value", "tenant"], name="subject_of_issuer")]
        constraints = [
            models.UniqueConstraint(fields=["issuer", "account"], name="one_subject_per_account")
        ]

    def __str__(self) -> str:
        return self.value


class VouchedAccess(models.Model):
    """That a trusted issuer let a client act for a person; what stands in a consent's place.

    Written with every token of that kind, so that the person and the administrator see it and can
    end it. ``ended_at``: when somebody did; the next assertion begins it anew.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="vouched_access"
    )
    client = models.ForeignKey(
        settings.OAUTH2_PROVIDER_APPLICATION_MODEL,
        on_delete=models.CASCADE,
        related_name="vouched_access",
    )
    # Address of the Virtual MCP.
    resource = models.CharField(max_length=500)
    issuer = models.CharField(max_length=500)
    scopes = models.CharField(max_length=1000)
    first_at = models.DateTimeField("first let in", auto_now_add=True)
    last_at = models.DateTimeField("last let in")
    ended_at = models.DateTimeField("ended", null=True)

    class Meta:
        verbose_name = "access by the company"
        verbose_name_plural = "access by the company"
        ordering = ["-last_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "client", "resource"], name="one_vouched_access_per_resource"
            )
        ]

    def __str__(self) -> str:
        return f"{self.client} for {self.user} at {self.slug}"

    @property
    def slug(self) -> str:
        """The end of the Virtual MCP's address."""
        return self.resource.rpartition("/")[2]


class ServiceAccount(models.Model):
    """A client that acts for itself; ``resources`` are addresses of Virtual MCPs."""

    client = models.OneToOneField(
        settings.OAUTH2_PROVIDER_APPLICATION_MODEL,
        on_delete=models.CASCADE,
        related_name="service_account",
    )
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="service_account"
    )
    resources = models.JSONField(default=list)

    class Meta:
        verbose_name = "service account"

    def __str__(self) -> str:
        return str(self.client)


class IssuedCode(models.Model):
    """What became of an authorization code, kept after the code itself is gone.

    The row is what parallel redemptions lock, and what a replayed code is recognised by
    (RFC 6749 4.1.2). ``family`` is the token family that the code starts.
    """

    digest = models.CharField(max_length=64, unique=True)
    # The approval that produced the code: an approval counts once.
    transaction = models.CharField(max_length=64, unique=True)
    application = models.ForeignKey(
        settings.OAUTH2_PROVIDER_APPLICATION_MODEL, on_delete=models.CASCADE, related_name="+"
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    family = models.UUIDField(default=uuid.uuid4)
    access_token_checksum = models.CharField(max_length=64, blank=True)
    failed_tries = models.PositiveSmallIntegerField(default=0)
    # When the person last proved who they are, for the ID token; seconds since 1970.
    authenticated_at = models.FloatField(default=0)
    issued_at = models.DateTimeField(auto_now_add=True, db_index=True)
    redeemed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"Code #{self.pk}"


class RotationAnswer(models.Model):
    """The answer to a refresh, sealed so that only the holder of the old token can read it.

    Written in the transaction of the rotation: whichever of the two a crash leaves behind,
    the client's next try succeeds.
    """

    checksum = models.CharField(max_length=64, unique=True)
    sealed = models.TextField()
    until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"Answer #{self.pk}"


class UsedAssertion(models.Model):
    """A ``jti`` that a client has already presented (RFC 7523 3, item 7)."""

    digest = models.CharField(max_length=64, unique=True)
    until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"Assertion #{self.pk}"
