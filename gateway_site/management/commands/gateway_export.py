"""``manage.py gateway_export``: the configuration as a file for ``gateway_apply``."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway_site import config_export
from gateway_site.config_file import MOST_BYTES


class Command(BaseCommand):
    """Door to ``config_export``."""

    help = "Write the configuration as a file that gateway_apply takes, without secrets."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare where to write, and what becomes of secrets."""
        parser.add_argument("--output", default="-", help='the file, or "-" for standard output')
        parser.add_argument(
            "--name-secrets",
            action="store_true",
            help="write a reference (env:NAME) for each secret, to set up another gateway",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the file; on standard error say which variables it refers to."""
        text, variables = config_export.exported(name_secrets=bool(options["name_secrets"]))
        if options["output"] == "-":
            self.stdout.write(text, ending="")
        else:
            try:
                Path(options["output"]).write_text(text, encoding="utf-8")
            except OSError as failure:
                message = f"{options['output']} cannot be written: {failure.strerror}."
                raise CommandError(message) from failure
        if variables:
            self.stderr.write("Set these variables where the file is applied:")
            for name in variables:
                self.stderr.write(f"  {name}")
        if len(text.encode()) > MOST_BYTES:
            limit = MOST_BYTES // 1024
            self.stderr.write(f"The file is larger than the {limit} KiB that gateway_apply takes.")
