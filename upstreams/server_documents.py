"""Read what describes MCP servers elsewhere: registry documents and clients' files (pure).

Understood are the ``server.json`` of the MCP Registry (alone, wrapped as its API answers,
or as a list), and the ``mcp.json`` of clients: ``mcpServers`` (Claude, Cursor, Windsurf),
``servers`` (VS Code), also inside ``mcp``. Whatever a file holds is data: nothing in it is
run or fetched, and programs to be started (stdio) are refused.
"""

import itertools
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from upstreams.models import CredentialKind, CredentialPlacement
from upstreams.preset_catalogue import preset_for

MAX_BYTES: Final = 256 * 1024
MAX_SERVERS: Final = 100
_STREAMABLE: Final = frozenset({"http", "streamable-http", "streamablehttp", "streamable_http"})
_ADDRESS_NAMES: Final = ("url", "serverUrl", "httpUrl")
_PLACEHOLDER: Final = re.compile(r"\$\{|\$[A-Z_]|\{[A-Za-z_]|<[^>]+>|YOUR[_-]|^\s*$")
_SECRET_NAME: Final = re.compile(
    r"auth|token|secret|api[-_]?key|access[-_]?key|password|credential|^key$", re.IGNORECASE
)
_SCHEME: Final = re.compile(r"(Bearer|Basic|Token|ApiKey) +(?=\S)", re.IGNORECASE)


class DocumentRefused(ValueError):
    """The document describes no servers that can be read; the text is for the administrator."""


@dataclass(slots=True)
class Candidate:
    """One server of a document. ``refusal`` says why it cannot be taken, "" if it can.

    ``secret`` is what the file holds of a key; it is shown nowhere.
    """

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    notes: list[str] = field(default_factory=list)
    refusal: str = ""


@dataclass(slots=True, frozen=True)
class _Header:
    name: str
    value: str = field(repr=False)
    secret: bool
    help: str = ""


def read_document(content: bytes | str) -> list[Candidate]:
    """Return the servers a document describes, in its order.

    Raises:
        DocumentRefused: too large, not JSON, or none of the forms that are understood.
    """
    if len(content) > MAX_BYTES:
        raise DocumentRefused(f"The file is larger than {MAX_BYTES // 1024} KiB.")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        document = json.loads(_without_comments(text))
    except (ValueError, RecursionError) as error:
        raise DocumentRefused("This is not JSON in UTF-8.") from error
    found = _servers(document)
    if not found:
        raise DocumentRefused(
            "No servers were found. Give a server.json of the MCP Registry, or a client's file "
            "with “mcpServers” or “servers”."
        )
    if len(found) > MAX_SERVERS:
        raise DocumentRefused(f"The file describes more than {MAX_SERVERS} servers.")
    return found


def _without_comments(text: str) -> str:
    """Take out comments and commas before a closing bracket, as VS Code's files have them."""
    strings_kept = re.sub(
        r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/',
        lambda match: match.group(1) or " ",
        text,
        flags=re.DOTALL,
    )
    return re.sub(
        r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', lambda match: match.group(1) or "", strings_kept
    )


def _servers(document: Any) -> list[Candidate]:
    if isinstance(document, list):
        return [one for entry in document for one in _servers(entry)]
    if not isinstance(document, dict):
        return []
    named = document.get("mcpServers", document.get("servers"))
    if isinstance(named, dict):
        return [_from_client(str(name), entry) for name, entry in named.items()]
    if isinstance(named, list):
        return [one for entry in named for one in _servers(entry)]
    for wrapper in ("mcp", "server"):
        if isinstance(document.get(wrapper), dict):
            return _servers(document[wrapper])
    if isinstance(document.get("name"), str) and ("remotes" in document or "packages" in document):
        return [_from_registry(document)]
    return []


def _from_client(name: str, entry: Any) -> Candidate:
    candidate = Candidate(name)
    if not isinstance(entry, dict):
        candidate.refusal = "This is no description of a server."
        return candidate
    url = next((entry[key] for key in _ADDRESS_NAMES if isinstance(entry.get(key), str)), "")
    given = entry.get("headers")
    headers = [
        _Header(str(key), str(value), bool(_SECRET_NAME.search(str(key))))
        for key, value in (given.items() if isinstance(given, dict) else ())
    ]
    kind = str(entry.get("type") or entry.get("transport") or "").lower()
    if not url and "command" in entry:
        url, headers = _bridged(entry)
        if not url:
            candidate.refusal = _runs_a_program(str(entry["command"]))
            return candidate
        candidate.notes.append("The program that only passes calls on to this address is left out.")
        kind = ""
    if isinstance(entry.get("env"), dict) and entry["env"]:
        candidate.notes.append("Environment variables are not imported.")
    _fill(candidate, url, kind, headers)
    return candidate


def _bridged(entry: dict[str, Any]) -> tuple[str, list[_Header]]:
    """Return what ``mcp-remote`` and its like are told to connect to; "" for other programs."""
    given = entry.get("args")
    arguments = [str(one) for one in given] if isinstance(given, list) else []
    if not any(one.split("@")[0].endswith("mcp-remote") for one in arguments):
        return "", []
    url = next((one for one in arguments if one.startswith(("https://", "http://"))), "")
    headers = []
    for flag, value in itertools.pairwise(arguments):
        name, colon, content = value.partition(":")
        if flag == "--header" and colon:
            headers.append(_Header(name.strip(), content.strip(), bool(_SECRET_NAME.search(name))))
    return url, headers


def _runs_a_program(command: str) -> str:
    program = command.replace("\\", "/").rpartition("/")[2][:40]
    return (
        f"It runs a program ({program}) on the computer of whoever uses it. The gateway connects "
        "only to servers that are reached over HTTP; look whether its maker also runs it at an "
        "https:// address, or run it yourself behind one."
    )


def _from_registry(document: dict[str, Any]) -> Candidate:
    candidate = Candidate(document["name"])
    given = document.get("remotes")
    remotes = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    usable = [one for one in remotes if _kind_of(one) in _STREAMABLE]
    if not remotes:
        candidate.refusal = _runs_a_program("a package")
        return candidate
    remote = (usable or remotes)[0]
    given = remote.get("headers")
    headers = []
    for one in given if isinstance(given, list) else []:
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            value = str(one.get("value") or one.get("default") or "")
            secret = one.get("isSecret") is True or bool(_SECRET_NAME.search(one["name"]))
            headers.append(_Header(one["name"], value, secret, str(one.get("description") or "")))
    _fill(candidate, str(remote.get("url") or ""), _kind_of(remote), headers)
    for key in ("title", "description"):
        if candidate.fields and isinstance(document.get(key), str):
            candidate.fields[key] = document[key][: 100 if key == "title" else 1000]
    return candidate


def _kind_of(remote: dict[str, Any]) -> str:
    return str(remote.get("type") or remote.get("transport_type") or "").lower()


def _fill(candidate: Candidate, url: str, kind: str, headers: list[_Header]) -> None:
    """Work out the fields of an upstream, or why there can be none."""
    candidate.refusal = _unusable(url, kind)
    if candidate.refusal:
        return
    preset = preset_for(url)
    candidate.fields = {
        **(preset.fields() if preset is not None else _plain_fields(candidate.name)),
        "url": url,
    }
    if preset is not None:
        candidate.notes.append(f"Known as {preset.title}: its preset is used.")
    secrets = [header for header in headers if header.secret]
    for header in headers:
        if header not in secrets[:1]:
            candidate.notes.append(f"The header {header.name[:60]} is not imported.")
    if secrets:
        _take_header(candidate, secrets[0])
    else:
        _take_query(candidate)
    if any(_SECRET_NAME.search(name) for name, _ in _query_of(candidate.fields["url"])):
        # What is left in an address is stored and shown as it is.
        candidate.refusal = "Its address holds more than one key. Add it by hand."
        candidate.fields, candidate.secret, candidate.notes = {}, "", []
        return
    if preset is None and not secrets and "credential_kind" not in candidate.fields:
        candidate.fields["credential_kind"] = CredentialKind.USER_OAUTH
        candidate.notes.append("The file does not say how people log in; OAuth is assumed.")


def _unusable(url: str, kind: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "Its address is not a URL."
    if not host or parts.scheme not in ("https", "http"):
        return "It has no http:// or https:// address."
    if parts.username or parts.password:
        return "Its address holds a password. Add it by hand, with the password as a credential."
    if kind == "sse" or (not kind and parts.path.rstrip("/").endswith("/sse")):
        return (
            "It uses the transport HTTP+SSE, which MCP replaced in 2025. Look whether the server "
            "also answers at an address that ends in /mcp."
        )
    if kind and kind not in _STREAMABLE:
        return f"The gateway does not know the transport “{kind[:30]}”."
    if _PLACEHOLDER.search(f"{parts.netloc}{parts.path}"):
        return "Its address has a part that has to be filled in first."
    return ""


def _plain_fields(name: str) -> dict[str, Any]:
    return {"key": key_from(name), "title": name.rpartition("/")[2][:100] or name[:100]}


def key_from(name: str) -> str:
    """Return an upstream's key made from a name."""
    short = re.sub(r"[^a-z0-9]+", "-", name.rpartition("/")[2].lower()).strip("-")
    if not short or not short[0].isalpha():
        short = f"server-{short}".strip("-")
    return short[:31].rstrip("-")


def _take_header(candidate: Candidate, header: _Header) -> None:
    scheme = _SCHEME.match(header.value)
    value = header.value[scheme.end() :] if scheme else header.value
    default = "Bearer " if header.name.lower() == "authorization" else ""
    candidate.fields |= {
        "credential_placement": CredentialPlacement.HEADER,
        "credential_name": header.name,
        "credential_prefix": f"{scheme.group(1)} " if scheme else default,
    }
    _take_secret(candidate, value, header.help)


def _query_of(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def _take_query(candidate: Candidate) -> None:
    """Take a key out of the address: what stands in an address is shown to everybody."""
    parts = urlsplit(candidate.fields["url"])
    pairs = _query_of(candidate.fields["url"])
    secret = next((pair for pair in pairs if _SECRET_NAME.search(pair[0])), None)
    if secret is None:
        return
    pairs.remove(secret)
    candidate.fields |= {
        "url": urlunsplit(parts._replace(query=urlencode(pairs))),
        "credential_placement": CredentialPlacement.QUERY,
        "credential_name": secret[0],
        "credential_prefix": "",
    }
    _take_secret(candidate, secret[1], "")


def _take_secret(candidate: Candidate, value: str, help_text: str) -> None:
    if _PLACEHOLDER.search(value):
        candidate.fields["credential_kind"] = CredentialKind.USER_KEY
        if help_text:
            candidate.fields["user_key_help"] = help_text[:1000]
        candidate.notes.append("People enter a key of their own.")
        return
    candidate.secret = value
    candidate.fields["credential_kind"] = CredentialKind.FIXED
    candidate.notes.append(
        "The file holds a key. It is stored encrypted and used for everybody; if it is one "
        "person's, choose each person's own key."
    )
