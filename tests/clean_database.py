"""Empties the database after a test that commits, in a fraction of the time of ``flush``.

Django empties every table and then makes all content types and permissions anew. Here only
tables that hold rows are emptied, and what a migration made stays, unless a test changed it.
"""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase

# What ``migrate`` fills.
MADE_BY_MIGRATE = ("auth_permission", "django_content_type", "django_migrations")
_flush = TransactionTestCase._fixture_teardown
_fingerprints: dict[str, list[Any]] = {}


def install() -> None:
    """Let tests with ``transaction=True`` end this way; called once, by pytest's set-up."""
    TransactionTestCase._fixture_teardown = _empty_all


def remember_what_migrate_made(alias: str = "default") -> None:
    """Note what the database holds before any test; called when it was made."""
    _fingerprints[alias] = _fingerprint(connections[alias])


def start_anew() -> None:
    """Take a new file for the database, where it is one, after another process has used it.

    What that process left of the write-ahead log's index may be another one than what this process
    still has open; with a new file nothing of it matters.
    """
    connection = connections["default"]
    if connection.vendor != "sqlite":
        return
    from tests.running_gateway import migrated_database

    connections.close_all()
    database = Path(connection.settings_dict["NAME"])
    for name in (database.name, f"{database.name}-wal", f"{database.name}-shm"):
        database.with_name(name).unlink(missing_ok=True)
    shutil.copy(migrated_database(), database)


def _empty_all(case: TransactionTestCase) -> None:
    for alias in case._databases_names(include_mirrors=False):
        connection = connections[alias]
        try:
            changed = _fingerprint(connection) != _fingerprints.get(alias)
            if not changed:
                _empty(connection, alias)
        except DatabaseError:
            # A test that left its connection broken must not break all that come after it.
            connection.close()
            changed = True
        if changed:
            _flush(case)
            # New content types have new numbers.
            remember_what_migrate_made(alias)
            return


def _fingerprint(connection: BaseDatabaseWrapper) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT '{table}', count(*), sum(id) FROM {table}" for table in MADE_BY_MIGRATE
            )
        )
        return list(cursor.fetchall())


def _empty(connection: BaseDatabaseWrapper, alias: str) -> None:
    """Delete every row; foreign keys are checked when the transaction ends."""
    tables = _tables(alias)
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Like TRUNCATE, wait for threads that still write; SQLite's transactions exclude them.
            cursor.execute(f"LOCK TABLE {', '.join(tables)} IN EXCLUSIVE MODE")
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in tables
            )
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"DELETE FROM {table}")


@cache
def _tables(alias: str) -> tuple[str, ...]:
    connection = connections[alias]
    names = connection.introspection.django_table_names(only_existing=True, include_views=False)
    return tuple(sorted(set(names).difference(MADE_BY_MIGRATE)))
