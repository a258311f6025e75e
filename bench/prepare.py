"""Set up a gateway's database for a benchmark; prints its bearer tokens on the last line.

python bench/prepare.py PORT [PORT ...]      (ports of the upstreams)
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import django

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_site.settings")


def main(ports: list[int]) -> None:
    """Migrate, configure two Virtual MCPs, print a token for each."""
    django.setup()
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.utils import timezone
    from oauth2_provider.models import get_access_token_model, get_application_model

    from oauthserver.token_values import new_access_token
    from upstreams.models import Upstream
    from virtualmcp.models import UpstreamChoice, VirtualMcp

    call_command("migrate", verbosity=0)
    servers: list[Any] = [
        VirtualMcp.objects.create(slug=slug, title=slug, audience=VirtualMcp.Audience.EVERYONE)
        for slug in ("one", "many")
    ]
    for position, port in enumerate(ports):
        upstream = Upstream.objects.create(
            key=f"fast{position}", title=f"Fast {position}", url=f"http://127.0.0.1:{port}/mcp"
        )
        for server in servers if position == 0 else servers[1:]:
            UpstreamChoice.objects.create(virtual_mcp=server, upstream=upstream, position=position)
    user = get_user_model().objects.create_user("bench")
    client = get_application_model().objects.create(
        name="bench",
        client_type="public",
        authorization_grant_type="authorization-code",
        redirect_uris="http://localhost/callback",
    )
    tokens = {server.slug: new_access_token() for server in servers}
    for server in servers:
        get_access_token_model().objects.create(
            user=user,
            application=client,
            token=tokens[server.slug],
            scope="mcp:tools",
            expires=timezone.now() + timedelta(hours=2),
            resource=[f"{settings.PUBLIC_URL}/v1/mcp/{server.slug}"],
        )
    print(json.dumps(tokens))


if __name__ == "__main__":
    main([int(port) for port in sys.argv[1:]])
