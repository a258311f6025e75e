"""``manage.py gateway_init``: tables and an administrator."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from gateway_site import first_run


class Command(BaseCommand):
    """Door to ``first_run``; run it once per release, on any node."""

    help = "Make or update the tables, and make an administrator if there is none."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare ``--json``, for programs that start the gateway."""
        parser.add_argument("--json", action="store_true", help="answer with one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepare the database and say what was made."""
        administrator = first_run.prepare_database()
        if options["json"]:
            answer = {"username": administrator.username, "password": administrator.password}
            self.stdout.write(json.dumps(answer))
        elif administrator.password:
            self.stdout.write(f"Administrator: {administrator.username}")
            self.stdout.write(f"Password:      {administrator.password}   (shown only now)")
        else:
            self.stdout.write(f"Ready. The administrator is {administrator.username}.")
