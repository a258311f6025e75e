"""What a gateway needs before it can serve: tables and an administrator."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction

from gateway_site import audit_trail

ADMINISTRATOR = "admin"
# Any number, the same in every node: holds off a second node that migrates at the same time.
MIGRATION_LOCK = 4_215_302_211


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who may configure the gateway; ``password`` is "" unless it was made just now."""

    username: str
    password: str


@contextlib.contextmanager
def one_node_at_a_time() -> Iterator[None]:
    """Let one node after the other migrate the shared database.

    SQLite needs nothing: its migrations take the file's write lock.
    """
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])


def prepare_database() -> Administrator:
    """Migrate, and make an administrator if there is none.

    Returns:
        The administrator, with the generated password when this call made the account.
    """
    with one_node_at_a_time():
        call_command("migrate", verbosity=0, interactive=False)
        return ensure_administrator()


@transaction.atomic
def ensure_administrator() -> Administrator:
    """Return the first administrator, made with a random password if there is none."""
    existing = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if existing is not None:
        return Administrator(existing.username, "")
    username = ADMINISTRATOR
    while User.objects.filter(username=username).exists():
        username = f"{ADMINISTRATOR}-{secrets.token_hex(2)}"
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser(username, "", password)
    audit_trail.record("person.administrator_made", target=username)
    return Administrator(username, password)
