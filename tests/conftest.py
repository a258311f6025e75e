"""What concerns every test: which of them a leg of CI runs."""

import os
import shutil

import hypothesis
import pytest
from django.conf import settings
from django.db import connection

from tests.running_gateway import migrated_database, migrated_postgres

DATABASE_FIXTURES = frozenset({"db", "transactional_db", "django_db_reset_sequences"})

# A busy machine makes every example slow; that says nothing of the code.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a leg leave out what would run no differently on another database."""
    parser.addoption(
        "--only-database",
        action="store_true",
        help="run only tests that use the database of the environment, or make one on PostgreSQL",
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
    # The gateways of the journeys have SQLite unless the test is about PostgreSQL.
    return bool(fixtures) or marked or item.get_closest_marker("postgres") is not None


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Begin with a copy of the migrated database: migrating takes each worker half a minute."""
    if _on_sqlite():
        shutil.copy(migrated_database(), settings.DATABASES["default"]["TEST"]["NAME"])
    elif server := os.environ.get("GATEWAY_TEST_POSTGRES_URL"):
        connection.settings_dict["TEST"]["TEMPLATE"] = migrated_postgres(server)


@pytest.fixture(scope="session")
def django_db_keepdb(request: pytest.FixtureRequest) -> bool:
    """Use what was copied; it goes with the process."""
    return _on_sqlite() or bool(request.config.getvalue("reuse_db"))


def _on_sqlite() -> bool:
    return str(settings.DATABASES["default"]["ENGINE"]).endswith("sqlite3")
