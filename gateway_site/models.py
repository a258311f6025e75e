"""What spans the rooms: the audit trail, the site's own settings, the change notices."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import models

from gateway_site.audit_kinds import words_for


class AuditEvent(models.Model):
    """One security-relevant fact; written once, never changed."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    kind = models.CharField(max_length=64, db_index=True)
    actor = models.CharField(max_length=200, blank=True)
    user_id = models.BigIntegerField(null=True, db_index=True)
    target = models.CharField(max_length=500, blank=True)
    address = models.CharField(max_length=64, blank=True)
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        words = words_for(self.kind)
        return f"{words}: {self.target}" if self.target else words

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write the event.

        Raises:
            PermissionDenied: the event already exists.
        """
        if self.pk is not None:
            raise PermissionDenied("An audit event cannot be changed.")
        super().save(*args, **kwargs)


class SiteProfile(models.Model):
    """The one row of settings an administrator changes at run time."""

    name = models.CharField(
        max_length=100, default="MCP Gateway", help_text="Shown on every page people see."
    )
    support_contact = models.CharField(
        max_length=200,
        blank=True,
        help_text="E-mail address or sentence shown when something fails.",
    )
    openai_apps_challenge = models.CharField(
        "ChatGPT domain verification",
        max_length=500,
        blank=True,
        help_text="The token OpenAI asks to see at /.well-known/openai-apps-challenge.",
    )

    require_second_factor = models.BooleanField(
        default=False,
        help_text="People who sign in with a password have to add a second factor first. Who comes "
        "by an identity provider has it there.",
    )

    class Meta:
        verbose_name = verbose_name_plural = "site profile"

    def __str__(self) -> str:
        return self.name

    @classmethod
    def current(cls) -> "SiteProfile":
        """Return the one row, or its defaults while nobody has saved it."""
        return cls.objects.order_by("pk").first() or cls()


class ChangeNotice(models.Model):
    """One thing that caches must forget, so that every process hears of it (see change_feed)."""

    kind = models.CharField(max_length=32)
    key = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(auto_now_add=True, db_index=True)

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class GroupMapping(models.Model):
    """What an identity provider calls a group of the gateway."""

    provider = models.ForeignKey(
        "socialaccount.SocialApp", on_delete=models.CASCADE, related_name="group_mappings"
    )
    claim_value = models.CharField("the provider's name", max_length=255)
    group = models.ForeignKey("auth.Group", on_delete=models.CASCADE, related_name="+")

    class Meta:
        ordering = ["claim_value", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "claim_value", "group"], name="a_mapping_once_per_provider"
            )
        ]

    def __str__(self) -> str:
        return f"{self.claim_value} is {self.group}"


class ProvidedMembership(models.Model):
    """A person's membership in a group that an identity provider or SCIM gave (group_sync)."""

    user = models.ForeignKey("auth.User", on_delete=models.CASCADE, related_name="+")
    group = models.ForeignKey("auth.Group", on_delete=models.CASCADE, related_name="+")
    source = models.CharField(max_length=80)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "group", "source"], name="a_membership_once_per_source"
            )
        ]


class ProvidedRole(models.Model):
    """A person's right to administer that a group of an identity provider gave (identity.roles)."""

    class Role(models.TextChoices):
        STAFF = "staff", "Opens the administration"
        ADMINISTRATOR = "administrator", "Full administrator"

    user = models.ForeignKey("auth.User", on_delete=models.CASCADE, related_name="provided_roles")
    source = models.CharField(max_length=80)
    role = models.CharField(max_length=16, choices=Role)
    claim = models.CharField(max_length=255)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "source", "role", "claim"], name="a_role_once_per_reason"
            )
        ]


class ScimToken(models.Model):
    """A bearer token by which a company's directory provisions people; only its digest is kept."""

    name = models.CharField(max_length=60, unique=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "SCIM token"

    def __str__(self) -> str:
        return self.name


class ScimIdentity(models.Model):
    """Marks an account that a directory manages, with the directory's own id for it."""

    user = models.OneToOneField("auth.User", on_delete=models.CASCADE, related_name="scim_identity")
    external_id = models.CharField(max_length=254, blank=True, db_index=True)


class ScimGroup(models.Model):
    """A directory's own id for a group."""

    group = models.OneToOneField("auth.Group", on_delete=models.CASCADE, related_name="scim_group")
    external_id = models.CharField(max_length=254, blank=True, db_index=True)


class IdentityGrant(models.Model):
    """What a person's sign-in at a provider left, sealed, for what asks there in their name."""

    user = models.ForeignKey("auth.User", on_delete=models.CASCADE, related_name="+")
    provider = models.CharField(max_length=200)
    subject = models.CharField(max_length=500)
    # By kind of token: the sealed value, and the Unix time at which it runs out.
    sealed_tokens = models.JSONField(default=dict, editable=False)
    ends = models.JSONField(default=dict)
    version = models.PositiveIntegerField(default=1)
    renewing_until = models.DateTimeField(null=True)
    # The provider may have used up the refresh token, but its answer did not arrive.
    answer_lost = models.BooleanField(default=False, db_default=False)
    # It wants to see the person, or may: their clients get no new tokens before they signed in.
    sign_in_asked = models.BooleanField(default=False, db_default=False)
    # When the provider is asked next whether the person may still come in (identity_recheck).
    recheck_at = models.DateTimeField(null=True, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "provider"], name="a_grant_once_per_provider")
        ]

    def __str__(self) -> str:
        return f"{self.user} at {self.provider}"
