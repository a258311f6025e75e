"""``manage.py gateway_demo``: the demo in, or with ``--remove`` out."""

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

    def handle(self, *args: Any, **options: Any) -> None:
        """Set up or remove, and say what was done."""
        try:
            if options["remove"]:
                self._remove()
            else:
                self._install(options["ports"])
        except (ValueError, installation.DemoRefused, ConfigurationRefused) as refused:
            raise CommandError(str(refused)) from refused

    def _remove(self) -> None:
        removed = installation.remove(settings.DATA_DIR)
        self.stdout.write("The demo is removed." if removed else "There was no demo to remove.")

    def _install(self, ports: str | None) -> None:
        chosen = (
            processes.parse_ports(ports)
            if ports
            else processes.choose_ports(settings.DATA_DIR, processes.USUAL_GATEWAY_PORT)
        )
        for server in installation.install(settings.DATA_DIR, chosen):
            self.stdout.write(f"{server.url}   {server.title}")
        self.stdout.write("bin/serve starts its upstreams together with the gateway.")
