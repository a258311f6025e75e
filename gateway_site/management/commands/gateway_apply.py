"""``manage.py gateway_apply gateway.yaml``: configuration as a file."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway_site import declarative_config
from gateway_site.config_changes import Change
from gateway_site.config_file import (
    ConfigurationRefused,
    SecretReferences,
    parse,
    read_configuration,
)


class Command(BaseCommand):
    """Door to ``declarative_config``."""

    help = "Apply a configuration file (docs/gateway.example.yaml), all of it or nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the file and the dry run."""
        parser.add_argument("file", help='the file, or "-" for standard input')
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would change, and change nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply the file and print one line per object that is not as before."""
        file = Path(options["file"])
        try:
            if options["file"] == "-":
                configuration = parse(sys.stdin.buffer.read(), "standard input")
                secrets = SecretReferences(Path.cwd())
            else:
                configuration = read_configuration(file)
                secrets = SecretReferences(file.absolute().parent)
            changes = declarative_config.apply(
                configuration, secrets, dry_run=bool(options["dry_run"])
            )
        except ConfigurationRefused as refused:
            raise CommandError(
                "\n".join(
                    ["Nothing was changed:", *(f"  {line}" for line in str(refused).splitlines())]
                )
            ) from refused
        self._report(changes, bool(options["dry_run"]))

    def _report(self, changes: list[Change], dry_run: bool) -> None:
        effective = [change for change in changes if change.what != "unchanged"]
        for change in effective:
            self.stdout.write(str(change))
        unchanged = len(changes) - len(effective)
        would = "would change" if dry_run else "changed"
        self.stdout.write(f"{len(effective)} {would}, {unchanged} as before.")
