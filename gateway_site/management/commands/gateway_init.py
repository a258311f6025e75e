"""``manage.py gateway_init``: tables and an administrator, and the demo if it is wanted."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway_site import first_run
from gateway_site.config_file import ConfigurationRefused
from gateway_site.demo import installation, processes


class Command(BaseCommand):
    """Door to ``first_run``; run it once per release, on any node."""

    help = "Make or update the tables, and make an administrator if there is none."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what programs that start the gateway use."""
        parser.add_argument("--json", action="store_true", help="answer with one JSON object")
        parser.add_argument("--demo-ports", help="also set up the demo, on these three ports")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepare the database and say what was made."""
        administrator = first_run.prepare_database()
        servers = []
        if options["demo_ports"]:
            try:
                ports = processes.parse_ports(options["demo_ports"])
                servers = installation.install(settings.DATA_DIR, ports)
            except (ValueError, installation.DemoRefused, ConfigurationRefused) as refused:
                raise CommandError(str(refused)) from refused
        if options["json"]:
            answer = {
                "username": administrator.username,
                "password": administrator.password,
                "virtual_mcps": [{"url": one.url, "title": one.title} for one in servers],
            }
            self.stdout.write(json.dumps(answer))
        elif administrator.password:
            self.stdout.write(f"Administrator: {administrator.username}")
            self.stdout.write(f"Password:      {administrator.password}   (shown only now)")
        else:
            self.stdout.write(f"Ready. The administrator is {administrator.username}.")
