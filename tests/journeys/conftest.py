"""The shared world of the journeys."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.chatgpt_client import ChatGptDocuments, chatgpt_documents
from tests.journeys.two_nodes import Nodes, two_nodes
from tests.journeys.world import Person, World, running_world

# The first journey of a process also starts the gateway and its upstreams.
SECONDS_PER_JOURNEY = 150


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give journeys the time that starting real processes takes on a busy machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS_PER_JOURNEY))


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """Run the gateway and its upstreams, once."""
    with running_world() as running:
        yield running


@pytest.fixture
def person(world: World) -> Iterator[Person]:
    """Return somebody new."""
    somebody = world.person()
    yield somebody
    somebody.browser.close()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Run a gateway of two processes, for each file of tests."""
    with two_nodes() as running:
        yield running


@pytest.fixture(scope="session")
def chatgpt() -> Iterator[ChatGptDocuments]:
    """Serve ChatGPT's documents, once."""
    with chatgpt_documents() as documents:
        yield documents
