"""mcp-remote's sign-in: once for a computer, renewed by itself, asked again when it was revoked.

What goes through it is in ``test_official_clients.py``.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.journeys.official_client import official_client
from tests.journeys.world import Person, World

pytestmark = pytest.mark.npm


def tokens_in(folder: Path) -> Path:
    """Return the file in which it keeps the tokens."""
    found = list(folder.rglob("*_tokens.json"))
    assert len(found) == 1, list(folder.rglob("*"))
    return found[0]


def change(file: Path, **members: Any) -> dict[str, Any]:
    """Write some members of a JSON file anew; returns what it held."""
    before: dict[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps({**before, **members}))
    return before


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_mcp_remote_signs_in_once_refreshes_and_signs_in_anew_when_revoked(
    world: World, person: Person, tmp_path: Path, mode: str
) -> None:
    endpoint = world.gateway.endpoint("guarded-alone")
    kept = {"MCP_REMOTE_CONFIG_DIR": str(tmp_path)}

    def started() -> Any:
        return official_client(
            "mcp-remote", endpoint, person.authorize, mode=mode, environment=kept
        )

    with started() as client:
        client.do("connect")
        asked = parse_qs(urlsplit(client.authorizations[0]).query)
        assert asked["resource"] == [endpoint]
        assert asked["code_challenge_method"] == ["S256"]
        assert urlsplit(asked["redirect_uri"][0]).hostname == "localhost"
        assert "echo" in client.do("tools")["names"]

    before = change(tokens_in(tmp_path), access_token="no-longer-valid")
    with started() as client:
        client.do("connect")
        assert client.do("call", name="echo", arguments={"text": "hi"})["text"] == "hi"
        assert client.authorizations == []
    after = json.loads(tokens_in(tmp_path).read_text())
    assert after["access_token"] not in (before["access_token"], "no-longer-valid")
    assert after["refresh_token"] != before["refresh_token"]

    person.revoke_client()
    with started() as client:
        client.do("connect")
        assert client.do("call", name="echo", arguments={"text": "back"})["text"] == "back"
        assert len(client.authorizations) == 1
