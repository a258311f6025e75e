"""``manage.py gateway_demo``: the demo in, or with ``--remove`` out."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway_site.config_file import ConfigurationRefused
from gateway_site.demo import installation, processes


class Command(BaseCommand):
    """Door to ``demo.installation``; ``bin/serve`` runs the processes that belong to it."""

    help = "Set up the demo (three upstreams, two Virtual MCPs), or remove all of it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what to do and where the upstreams listen."""
        parser.add_argument("--remove", action="store_true", help="remove everything it made")
        parser.add_argument("--ports", help="ports of harbor, board and parcels: 8001,8002,8003")
        parser.add_argument("--json", action="store_true", help="answer with one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Set up or remove, and say what was done."""
        try:
            if options["remove"]:
                self._remove()
            else:
                self._install(options["ports"], bool(options["json"]))
        except (installation.DemoRefused, ConfigurationRefused) as refused:
            raise CommandError(str(refused)) from refused

    def _remove(self) -> None:
        removed = installation.remove(settings.DATA_DIR)
        self.stdout.write("The demo is removed." if removed else "There was no demo to remove.")

    def _install(self, ports: str | None, as_json: bool) -> None:
        if ports:
            numbers = [int(port) for port in ports.split(",") if port.strip().isdecimal()]
            if len(numbers) != len(processes.NAMES):
                raise CommandError("Give three ports, such as --ports 8001,8002,8003.")
            chosen = dict(zip(processes.NAMES, numbers, strict=True))
        else:
            chosen = processes.choose_ports(settings.DATA_DIR, 8000)
        servers = [
            {"url": f"{settings.PUBLIC_URL}/v1/mcp/{server.slug}", "title": server.title}
            for server in installation.install(settings.DATA_DIR, chosen)
        ]
        if as_json:
            self.stdout.write(json.dumps({"virtual_mcps": servers}))
            return
        for server in servers:
            self.stdout.write(f"{server['url']}   {server['title']}")
        self.stdout.write("bin/serve starts its upstreams together with the gateway.")
