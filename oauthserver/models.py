"""OAuth clients: pre-registered by an administrator, or registered by themselves (DCR, CIMD)."""

from django.db import models
from oauth2_provider.models import AbstractApplication


class OAuthClient(AbstractApplication):
    """An MCP client that may ask for tokens; swapped in for DOT's application model.

    ``registration_source`` (manual, dcr, cimd) and ``cimd_expires_at`` come from DOT.
    """

    enabled = models.BooleanField(default=True)
    token_endpoint_auth_method = models.CharField(max_length=40, default="none")
    token_endpoint_auth_signing_alg = models.CharField(max_length=16, blank=True)
    jwks_uri = models.CharField(max_length=2000, blank=True)
    jwks = models.JSONField(null=True, blank=True)
    client_uri = models.CharField(max_length=2000, blank=True)
    logo_uri = models.CharField(max_length=2000, blank=True)
    software_id = models.CharField(max_length=200, blank=True)
    # The last document or registration request as it came, for the admin to look at.
    metadata = models.JSONField(default=dict, blank=True, editable=False)
    approved_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta(AbstractApplication.Meta):
        verbose_name = "OAuth client"
        verbose_name_plural = "OAuth clients"

    def is_usable(self, request: object) -> bool:
        """A client that an administrator switched off gets nothing more."""
        return self.enabled
