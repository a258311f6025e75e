"""Seal every stored secret with the first key of ``GATEWAY_ENCRYPTION_KEYS``."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upstreams import key_rotation
from upstreams.token_vault import VaultError


class Command(BaseCommand):
    """Run after a new key was put first; can be stopped and started again."""

    help = (
        "Seal every stored secret with the first key of GATEWAY_ENCRYPTION_KEYS. Put the new key "
        "first, restart the gateway, run this, then remove the old key."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Show progress and the result.

        Raises:
            CommandError: there is no usable key, or some values could not be opened.
        """
        try:
            report = key_rotation.reseal_all(self._progress)
        except VaultError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{report.resealed} sealed again, {report.current} were current already.")
        if report.unreadable:
            raise CommandError(
                f"{report.unreadable} values could not be opened with any configured key. Keep "
                "the old keys in GATEWAY_ENCRYPTION_KEYS and run this again; otherwise those "
                "people have to connect again."
            )

    def _progress(self, done: int, total: int) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"\r{done} of {total}", ending="\n" if done == total else "")
