"""What a person agreed to."""

from django.conf import settings
from django.db import models


class ConsentRecord(models.Model):
    """One person's yes to one client for one Virtual MCP; replaced when they agree again.

    Every earlier yes stays in the audit trail with the same facts.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="consents"
    )
    client = models.ForeignKey(
        settings.OAUTH2_PROVIDER_APPLICATION_MODEL,
        on_delete=models.CASCADE,
        related_name="consents",
    )
    resource = models.CharField(max_length=500)
    virtual_mcp_slug = models.CharField(max_length=63)
    scopes = models.CharField(max_length=1000)
    # Keys of the upstreams that were on the page and connected, in the page's order.
    upstreams = models.JSONField(default=list)
    # What the page said: client, upstreams, tools; see ``agreement.offered``.
    agreed = models.JSONField(default=dict)
    redirect_uri = models.CharField(max_length=2000)
    given_at = models.DateTimeField(auto_now=True)
    revoked_at = models.DateTimeField(null=True)
    # When a refresh was first refused because the person has to be asked again.
    outgrown_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-given_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "client", "resource"], name="one_consent_per_client_and_resource"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user} let {self.client} use {self.virtual_mcp_slug}"
