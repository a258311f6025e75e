"""Make the gateway's next key as OAuth client of upstreams."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from upstreams import client_keys
from upstreams.token_vault import VaultError


class Command(BaseCommand):
    """The gateway does this by itself every ninety days."""

    help = (
        "Make the next key with which the gateway proves itself to authorization servers. It is "
        "published at once and signs after a day. With --now it signs at once and the others are "
        "taken back, for a key that leaked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the switch."""
        parser.add_argument("--now", action="store_true", help="sign with it at once")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it and say when it signs.

        Raises:
            CommandError: the vault has no usable key.
        """
        try:
            kid = client_keys.rotate(at_once=options["now"])
        except VaultError as error:
            raise CommandError(str(error)) from error
        when = "now" if options["now"] else "in a day"
        self.stdout.write(f"Key {kid} is published and signs {when}.")
