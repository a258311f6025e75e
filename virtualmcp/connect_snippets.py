"""How each MCP client is pointed at a Virtual MCP: steps, commands and settings to paste.

Pure functions of the address, so that the pages, the tests and the documentation say the same.
What a client's file or command looks like is the client's business and changes without notice;
every snippet here is covered by a test that parses it.
"""

import base64
import json
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote, urlencode, urlsplit


@dataclass(frozen=True, slots=True)
class Snippet:
    """Text to paste, and where it goes."""

    caption: str
    text: str


@dataclass(frozen=True, slots=True)
class InstallLink:
    """A link that opens the client and adds the server there."""

    label: str
    href: str


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    text: str
    snippet: Snippet | None = None
    link: InstallLink | None = None


@dataclass(frozen=True, slots=True)
class ClientGuide:
    """All steps for one client; ``warning`` names what stops it at this address, if anything."""

    key: str
    name: str
    steps: tuple[Step, ...]
    note: str = ""
    warning: str = ""


SIGN_IN = Step(
    "A browser window opens. Sign in, choose Connect next to each service that asks for it, "
    "then choose Authorize."
)


def guides_for(url: str, slug: str) -> tuple[ClientGuide, ...]:
    """Return the guides in the order of the page's tabs.

    ``url`` is the Virtual MCP's public address; ``slug`` names it in settings files, since it is
    made of characters that need no quoting anywhere.
    """
    return (
        _chatgpt(url),
        _claude(url),
        _claude_code(url, slug),
        _cursor(url, slug),
        _vscode(url, slug),
        _codex(url, slug),
        _gemini(url, slug),
        _others(url, slug),
    )


def only_local(url: str) -> bool:
    """Whether clients that run in somebody's cloud cannot reach ``url``: not https, or loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return parts.scheme != "https"
    return parts.scheme != "https" or not address.is_global


def _cloud_warning(url: str, client: str) -> str:
    if not only_local(url):
        return ""
    return (
        f"{client} connects from its own servers and needs a public https address. "
        "It cannot reach this gateway at the address above."
    )


def _chatgpt(url: str) -> ClientGuide:
    return ClientGuide(
        "chatgpt",
        "ChatGPT",
        (
            Step(
                "In ChatGPT on the web, open Settings and turn on Developer mode. It is under the "
                "advanced settings of Apps & Connectors, and your workspace may have to allow it."
            ),
            Step(
                "In the same settings, choose to add or create a custom connector (some plans call "
                "it an app). Give it a name and paste this address:",
                Snippet("Server URL", url),
            ),
            Step("Leave authentication on OAuth, with no client id or secret, and create it."),
            SIGN_IN,
            Step(
                "Back in ChatGPT, turn the connector on for the chat, and ask for something its "
                "tools can do."
            ),
        ),
        note=(
            "Tools changed later? Open the connector in ChatGPT's settings and choose Refresh: "
            "ChatGPT keeps the list it first saw."
        ),
        warning=_cloud_warning(url, "ChatGPT"),
    )


def _claude(url: str) -> ClientGuide:
    return ClientGuide(
        "claude",
        "Claude",
        (
            Step("In Claude on the web or in Claude Desktop, open Settings, then Connectors."),
            Step(
                "Choose Add custom connector, give it a name and paste this address. On team plans "
                "an owner adds it once in the organization's settings.",
                Snippet("Remote MCP server URL", url),
            ),
            Step("Leave the advanced settings empty, choose Add, then Connect."),
            SIGN_IN,
            Step("In a chat, open the tools menu and turn the connector on."),
        ),
        warning=_cloud_warning(url, "Claude"),
    )


def _claude_code(url: str, slug: str) -> ClientGuide:
    return ClientGuide(
        "claude-code",
        "Claude Code",
        (
            Step(
                "Run this in a terminal. Use --scope project instead to share it with a team "
                "through .mcp.json.",
                Snippet("Terminal", f"claude mcp add --transport http --scope user {slug} {url}"),
            ),
            Step(
                f"Start Claude Code, enter this command, choose {slug} and then Authenticate.",
                Snippet("Claude Code", "/mcp"),
            ),
            SIGN_IN,
        ),
    )


def _cursor(url: str, slug: str) -> ClientGuide:
    config = base64.b64encode(_compact({"url": url}).encode()).decode()
    query = urlencode({"name": slug, "config": config})
    return ClientGuide(
        "cursor",
        "Cursor",
        (
            Step(
                "Let Cursor add it:",
                link=InstallLink(
                    "Add to Cursor", f"cursor://anysphere.cursor-deeplink/mcp/install?{query}"
                ),
            ),
            Step(
                "Or add it by hand, for all projects or for one:",
                Snippet(
                    "~/.cursor/mcp.json or .cursor/mcp.json",
                    _pretty({"mcpServers": {slug: {"url": url}}}),
                ),
            ),
            Step(
                "In Cursor's settings, open the MCP page and choose to log in next to the server."
            ),
            SIGN_IN,
        ),
    )


def _vscode(url: str, slug: str) -> ClientGuide:
    server = {"type": "http", "url": url}
    named = _compact({"name": slug, **server})
    escaped = named.replace('"', '\\"')
    return ClientGuide(
        "vscode",
        "VS Code",
        (
            Step(
                "Let VS Code add it:",
                link=InstallLink("Add to VS Code", f"vscode:mcp/install?{quote(named, safe='')}"),
            ),
            Step("Or from a terminal:", Snippet("Terminal", f'code --add-mcp "{escaped}"')),
            Step(
                "Or for everybody who works on a project:",
                Snippet(".vscode/mcp.json", _pretty({"servers": {slug: server}})),
            ),
            Step("Run the command “MCP: List Servers”, choose the server and start it."),
            SIGN_IN,
        ),
    )


def _codex(url: str, slug: str) -> ClientGuide:
    return ClientGuide(
        "codex",
        "Codex",
        (
            Step(
                "Run these in a terminal:",
                Snippet("Terminal", f"codex mcp add {slug} --url {url}\ncodex mcp login {slug}"),
            ),
            Step(
                "Or write it to the settings file, then run the login command:",
                Snippet("~/.codex/config.toml", f'[mcp_servers.{slug}]\nurl = "{url}"'),
            ),
            SIGN_IN,
            Step(
                "In Codex, /mcp shows the server and its tools. The IDE extension shares the file."
            ),
        ),
    )


def _gemini(url: str, slug: str) -> ClientGuide:
    return ClientGuide(
        "gemini",
        "Gemini CLI",
        (
            Step(
                "Run this in a terminal:",
                Snippet("Terminal", f"gemini mcp add --scope user --transport http {slug} {url}"),
            ),
            Step(
                "Or write it to the settings file. The name is httpUrl; url would mean an older "
                "protocol.",
                Snippet(
                    "~/.gemini/settings.json", _pretty({"mcpServers": {slug: {"httpUrl": url}}})
                ),
            ),
            Step("Start Gemini CLI and sign in:", Snippet("Gemini CLI", f"/mcp auth {slug}")),
            SIGN_IN,
        ),
    )


def _others(url: str, slug: str) -> ClientGuide:
    bridge = {"command": "npx", "args": ["-y", "mcp-remote", url]}
    return ClientGuide(
        "others",
        "Others",
        (
            Step(
                "Any client that speaks Streamable HTTP and OAuth needs only the address. It finds "
                "the sign-in by itself and registers itself.",
                Snippet("Server URL", url),
            ),
            Step(
                "A client that only starts local programs can use a bridge:",
                Snippet("mcpServers settings", _pretty({"mcpServers": {slug: bridge}})),
            ),
            Step(
                "To look inside, use the MCP Inspector: choose Streamable HTTP, paste the address, "
                "connect.",
                Snippet("Terminal", "npx @modelcontextprotocol/inspector@latest"),
            ),
            Step(
                "To see whether the address answers: the status is 401, and a WWW-Authenticate "
                "header says where to sign in.",
                Snippet("Terminal", f"curl -i -X POST {url}"),
            ),
        ),
    )


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
