"""Every snippet is parsed by the rules of the file or command it is made for."""

import base64
import json
import shlex
import tomllib
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from virtualmcp.connect_snippets import ClientGuide, guides_for, only_local

URL = "https://gateway.example.com/v1/mcp/team-1"


def guide(key: str) -> ClientGuide:
    return next(g for g in guides_for(URL, "team-1") if g.key == key)


def snippets(key: str) -> dict[str, str]:
    return {s.snippet.caption: s.snippet.text for s in guide(key).steps if s.snippet}


def link(key: str) -> str:
    return next(s.link.href for s in guide(key).steps if s.link)


def test_guides_come_in_the_order_of_the_tabs():
    keys = [g.key for g in guides_for(URL, "team-1")]
    expected = "chatgpt claude claude-code cursor vscode codex gemini others"
    assert keys == expected.split()


def test_every_guide_holds_the_address():
    for one in guides_for(URL, "team-1"):
        assert any(URL in s.snippet.text for s in one.steps if s.snippet), one.key


def test_claude_code_command_has_options_before_the_name():
    words = shlex.split(snippets("claude-code")["Terminal"])
    assert words[:3] == ["claude", "mcp", "add"]
    assert words[3:] == ["--transport", "http", "--scope", "user", "team-1", URL]


def test_cursor_file_and_link_say_the_same():
    file = json.loads(snippets("cursor")["~/.cursor/mcp.json or .cursor/mcp.json"])
    assert file == {"mcpServers": {"team-1": {"url": URL}}}
    parts = urlsplit(link("cursor"))
    assert (parts.scheme, parts.netloc) == ("cursor", "anysphere.cursor-deeplink")
    assert parts.path == "/mcp/install"
    query = parse_qs(parts.query)
    assert query["name"] == ["team-1"]
    assert json.loads(base64.b64decode(query["config"][0])) == {"url": URL}


def test_vscode_file_command_and_link_say_the_same():
    file = json.loads(snippets("vscode")[".vscode/mcp.json"])
    assert file == {"servers": {"team-1": {"type": "http", "url": URL}}}
    words = shlex.split(snippets("vscode")["Terminal"])
    assert words[:2] == ["code", "--add-mcp"]
    named = {"name": "team-1", "type": "http", "url": URL}
    assert json.loads(words[2]) == named
    address, _, query = link("vscode").partition("?")
    assert address == "vscode:mcp/install"
    assert json.loads(unquote(query)) == named


def test_codex_file_is_toml_and_its_commands_use_the_same_name():
    file = tomllib.loads(snippets("codex")["~/.codex/config.toml"])
    assert file == {"mcp_servers": {"team-1": {"url": URL}}}
    add, login = snippets("codex")["Terminal"].splitlines()
    assert shlex.split(add) == ["codex", "mcp", "add", "team-1", "--url", URL]
    assert shlex.split(login) == ["codex", "mcp", "login", "team-1"]


def test_gemini_uses_the_member_for_streamable_http():
    file = json.loads(snippets("gemini")["~/.gemini/settings.json"])
    assert file == {"mcpServers": {"team-1": {"httpUrl": URL}}}


def test_bridge_for_local_programs_names_the_address():
    file = json.loads(snippets("others")["mcpServers settings"])
    assert file["mcpServers"]["team-1"]["args"][-1] == URL


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8000/v1/mcp/a", True),
        ("http://127.0.0.1:8000/v1/mcp/a", True),
        ("https://10.0.0.4/v1/mcp/a", True),
        ("https://[::1]/v1/mcp/a", True),
        ("http://gateway.example.com/v1/mcp/a", True),
        ("https://gateway.example.com/v1/mcp/a", False),
        ("https://8.8.8.8/v1/mcp/a", False),
    ],
)
def test_addresses_a_cloud_client_cannot_reach_are_told(url, local):
    assert only_local(url) is local
    warned = {g.key for g in guides_for(url, "a") if g.warning}
    assert warned == ({"chatgpt", "claude"} if local else set())
