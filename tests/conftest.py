"""What concerns every test: which of them a leg of CI runs."""

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
