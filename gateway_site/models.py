"""What spans the rooms: the audit trail, the site's own settings, the change counter."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import models


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
        return f"{self.kind} {self.target}"

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

    name = models.CharField(max_length=100, default="MCP Gateway")
    support_contact = models.CharField(max_length=200, blank=True)
    openai_apps_challenge = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = verbose_name_plural = "site profile"

    def __str__(self) -> str:
        return self.name


class ChangeCounter(models.Model):
    """Counts changes of one kind, so that every process notices within a second (see change_feed)."""

    kind = models.CharField(max_length=32, unique=True)
    value = models.PositiveBigIntegerField(default=0)
