"""``manage.py import_servers mcp.json``: add upstreams from a registry's or a client's file."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from upstreams.models import CredentialKind
from upstreams.server_documents import MAX_BYTES, Candidate, DocumentRefused, read_document
from upstreams.server_import import already_there, import_servers


class Command(BaseCommand):
    """Door to ``server_import``."""

    help = (
        "Add upstreams from a server.json of the MCP Registry or a client's mcp.json "
        "(Claude, Cursor, VS Code). Keys in the file are stored encrypted and not printed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the file, the choice and the dry run."""
        parser.add_argument("file", help='the file, or "-" for standard input')
        parser.add_argument("--only", action="append", help="take only the server of this name")
        parser.add_argument(
            "--credential", choices=CredentialKind.values, help="how people log in to all of them"
        )
        parser.add_argument("--dry-run", action="store_true", help="show only, and add nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Show every server of the file and add those that can be added."""
        try:
            candidates = read_document(self._content(options["file"]))
            only = options["only"]
            if only:
                candidates = [one for one in candidates if one.name in only]
            usable = [one for one in candidates if self._shown(one)]
            if options["dry_run"]:
                self.stdout.write(f"{len(usable)} would be added, nothing was changed.")
                return
            kind = options["credential"] or ""
            made = import_servers([(one, kind) for one in usable], None)
        except DocumentRefused as refused:
            raise CommandError(f"Nothing was added. {refused}") from refused
        self.stdout.write(f"{len(made)} added. Test each connection in the administration.")

    def _content(self, name: str) -> bytes:
        try:
            if name == "-":
                return sys.stdin.buffer.read(MAX_BYTES + 1)
            with Path(name).open("rb") as stream:
                return stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise CommandError(f"{name} cannot be read: {error.strerror}.") from error

    def _shown(self, candidate: Candidate) -> bool:
        """Write what becomes of one server; return whether it can be added."""
        there = None if candidate.refusal else already_there(candidate)
        if candidate.refusal:
            self.stdout.write(f"refused {candidate.name}: {candidate.refusal}")
        elif there is not None:
            self.stdout.write(f"exists  {candidate.name}: {there.key} has the same address")
        else:
            fields = candidate.fields
            self.stdout.write(
                f"new     {candidate.name}: {fields['url']} ({fields['credential_kind']})"
            )
            for note in candidate.notes:
                self.stdout.write(f"        {note}")
        return not candidate.refusal and there is None
