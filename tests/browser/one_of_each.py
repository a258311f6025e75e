"""One row of every kind that the administration shows, so that each of its pages has something."""

PLANT = """
from datetime import timedelta
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import Group, User
from django.utils import timezone
from consent.models import ConsentRecord
from gateway_site import people_actions
from gateway_site.models import GroupMapping, ScimToken, SiteProfile
from oauthserver import actions as client_actions
from oauthserver.models import ClientPolicy, OAuthClient, ServiceAccount, TrustedIssuer
from oauthserver.models import VouchedAccess
from upstreams.models import OAuthTrace, Upstream, UpstreamAccount, UpstreamClient
from virtualmcp.models import AccessRule, CallRecord, PublicName, ToolDefinition, VirtualMcp

now = timezone.now()
from virtualmcp.route_table import resource_of
workspace_uri = resource_of("workspace")
maria = User.objects.get(username="maria")
board = Upstream.objects.get(key="board")
workspace = VirtualMcp.objects.get(slug="workspace")
group = Group.objects.create(name="Harbour staff")
rule = AccessRule.objects.create(
    virtual_mcp=VirtualMcp.objects.get(slug="harbour"), upstream=Upstream.objects.get(key="harbor"),
    tools=["close_ticket"],
)
rule.groups.add(group)
app = SocialApp(provider_id="walked", name="Walked")
values = {"client_id": "gw", "settings": {"server_url": "https://127.0.0.1:9"}}
people_actions.save_identity_provider(app, values, secret="sso-s3cret", actor=None)
GroupMapping.objects.create(provider=app, claim_value="harbour-staff", group=group)
ScimToken.objects.create(name="Directory", digest="0" * 64, last_used_at=now)
SiteProfile.objects.get_or_create(pk=1)
TOTP.activate(User.objects.create(username="with-a-factor"), "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXQ")
client, _ = client_actions.preregister_client(
    name="Portal", redirect_uris_allowed=["https://portal.example/callback"],
    confidential=True, actor=None,
)
OAuthClient.objects.create(
    client_id="waits", name="Waits for a decision", redirect_uris="https://waits.example/callback",
    registration_source="dcr", client_type="public", review="waiting",
    authorization_grant_type="authorization-code", review_asked_by="maria",
)
ClientPolicy.objects.get_or_create(pk=1)
machine = User.objects.create(username="nightly-report")
machine_client = OAuthClient.objects.create(
    client_id="nightly", name="Nightly report", client_type="confidential",
    registration_source="manual", authorization_grant_type="client-credentials",
    token_endpoint_auth_method="private_key_jwt",
)
ServiceAccount.objects.create(client=machine_client, user=machine, resources=[])
TrustedIssuer.objects.create(issuer="https://idp.walked.example", provider="Walked")
VouchedAccess.objects.create(
    user=maria, client=client, resource=workspace_uri, issuer="https://idp.walked.example",
    scopes="mcp:tools", last_at=now,
)
ConsentRecord.objects.create(
    user=maria, client=client, resource=workspace_uri, virtual_mcp_slug="workspace",
    scopes="mcp:tools", redirect_uri="https://portal.example/callback",
)
PublicName.objects.create(
    virtual_mcp=workspace, upstream=board, kind="tool", upstream_name="list_tickets_walked",
    public_name="board__list_tickets_walked",
)
definition = {
    "virtual_mcp": workspace, "upstream": board, "subject": "tool", "name": "walked",
}
ToolDefinition.objects.create(
    **definition, digest="a", state="approved", decided_at=now, decided_by="maria",
    content='{"name":"walked","description":"Closes a ticket","inputSchema":{"type":"object"}}',
)
ToolDefinition.objects.create(
    **definition, digest="b", state="waiting",
    content='{"name":"walked","description":"Closes every ticket","inputSchema":{"type":"object"}}',
)
CallRecord.objects.create(
    at=now, virtual_mcp="workspace", upstream="board", method="tools/call", name="close_ticket",
    user_id=maria.pk, client_id="waits", outcome="error -32603", duration_ms=12.5,
)
theirs = UpstreamClient.objects.create(
    upstream=board, issuer="https://walked.example", registration="dcr", client_id="gw",
    redirect_uri="https://gateway.example/connect/callback",
)
UpstreamAccount.objects.create(
    user=maria, upstream=Upstream.objects.get(key="harbor"), client=theirs,
    status="needs_reconnect", ended_because="refused", sealed_secret="", account_label="Maria L",
    last_error="The grant was refused.", last_used_at=now,
)
OAuthTrace.objects.create(
    upstream=board, user=maria, purpose="connect", outcome="failed", failed_step="exchange",
    message="It answered invalid_client.", finished_at=now,
    steps=[{
        "title": "Request", "request": "POST https://walked.example/token", "status": 401,
        "took_ms": 31, "sent": {"grant_type": "authorization_code"},
        "received": {"error": "invalid_client"}, "error": "It answered invalid_client.",
    }],
)
"""
