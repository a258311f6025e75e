"""What concerns every test: the database, and which tests a leg of CI runs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

DATABASE_FIXTURES = frozenset({"db", "transactional_db", "django_db_reset_sequences"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a leg leave out what would run no differently on another database."""
    parser.addoption(
        "--only-database",
        action="store_true",
        help="run only tests that use the database, and the journeys, which start processes",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what does not touch the database, if that is wanted."""
    if not config.getoption("--only-database"):
        return
    kept = [item for item in items if _touches_database(item)]
    left_out = [item for item in items if not _touches_database(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def _touches_database(item: pytest.Item) -> bool:
    fixtures = DATABASE_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    marked = item.get_closest_marker("django_db") is not None
    return bool(fixtures) or marked or "/journeys/" in item.path.as_posix()


@pytest.fixture(scope="session")
def django_db_keepdb(django_db_modify_db_settings: None) -> bool:
    """Start from a database that is migrated already, where it is a file (pytest-django asks)."""
    from django.conf import settings

    from tests.running_gateway import migrated_database

    database = settings.DATABASES["default"]
    if not database["ENGINE"].endswith("sqlite3"):
        return False
    shutil.copy(migrated_database(), Path(database["TEST"]["NAME"]))
    return True


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Make the database; what tests commit is deleted quickly."""
    from tests import clean_database

    with django_db_blocker.unblock():
        clean_database.remember_what_migrate_made()
    clean_database.install()
