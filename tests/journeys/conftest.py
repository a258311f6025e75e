"""The shared world of the journeys."""

from collections.abc import Iterator

import pytest

from tests.journeys.chatgpt_client import ChatGptDocuments, chatgpt_documents
from tests.journeys.world import Person, World, running_world


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


@pytest.fixture(scope="session")
def chatgpt() -> Iterator[ChatGptDocuments]:
    """Serve ChatGPT's documents, once."""
    with chatgpt_documents() as documents:
        yield documents
