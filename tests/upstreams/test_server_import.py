"""Servers taken over from a registry's or a client's file, with what they hold of keys."""

import io
import json
import re
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from tests.upstreams.connecting import browser_of, person
from upstreams import sealed_secrets
from upstreams.models import Upstream
from upstreams.server_documents import MAX_BYTES, DocumentRefused, read_document

IMPORT = "/admin/upstreams/upstream/import/"
SECRET = "canary-4711"
CLAUDE = {
    "mcpServers": {
        "Team wiki": {"url": "https://wiki.example/mcp"},
        "search": {
            "type": "http",
            "url": "https://search.example/mcp",
            "headers": {"Authorization": f"Bearer {SECRET}", "X-Org": "7"},
        },
        "files": {"command": "npx", "args": ["-y", "@x/files", "/home"], "env": {"A": SECRET}},
    }
}
VSCODE = """{
  // as VS Code writes it
  "inputs": [{"type": "promptString", "id": "k", "password": true}],
  "servers": {
    "maps": {"type": "http", "url": "https://maps.example/mcp",
             "headers": {"X-Api-Key": "${input:k}"}},
    "old": {"type": "sse", "url": "https://old.example/sse"}, /* retired */
  },
}"""
REGISTRY = {
    "server": {
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": "com.example/weather",
        "title": "Weather",
        "description": "Forecasts",
        "version": "1.0.0",
        "remotes": [
            {"type": "sse", "url": "https://weather.example/sse"},
            {
                "type": "streamable-http",
                "url": "https://weather.example/mcp",
                "headers": [
                    {"name": "X-Key", "isSecret": True, "description": "From your profile."}
                ],
            },
        ],
    },
    "_meta": {},
}


def read(document: Any) -> dict[str, Any]:
    text = document if isinstance(document, str) else json.dumps(document)
    return {one.name: one for one in read_document(text)}


def test_the_forms_of_clients_are_understood() -> None:
    found = read(CLAUDE)
    assert found["Team wiki"].fields["key"] == "team-wiki"
    assert found["Team wiki"].fields["credential_kind"] == "user_oauth"
    search = found["search"]
    assert search.secret == SECRET and SECRET not in repr(search)
    assert search.fields["credential_kind"] == "fixed"
    assert search.fields["credential_prefix"] == "Bearer "
    assert any("X-Org" in note for note in search.notes)
    maps = read(VSCODE)["maps"]
    assert maps.fields["credential_kind"] == "user_key" and not maps.secret
    assert maps.fields["credential_name"] == "X-Api-Key"
    assert maps.fields["credential_prefix"] == ""


def test_the_registrys_form_is_understood_alone_wrapped_and_in_a_list() -> None:
    for document in (REGISTRY, REGISTRY["server"], {"servers": [REGISTRY]}, [REGISTRY]):
        weather = read(document)["com.example/weather"]
        assert weather.fields["url"] == "https://weather.example/mcp"
        assert (weather.fields["key"], weather.fields["title"]) == ("weather", "Weather")
        assert weather.fields["user_key_help"] == "From your profile."


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"command": "/opt/tools/run.sh"}, "runs a program (run.sh)"),
        ({"type": "sse", "url": "https://x.example/sse"}, "HTTP+SSE"),
        ({"url": "https://x.example/sse"}, "HTTP+SSE"),
        ({"type": "websocket", "url": "https://x.example/"}, "websocket"),
        ({"url": "https://alice:secret-pw@x.example/mcp"}, "holds a password"),
        ({"url": "https://{tenant}.x.example/mcp"}, "filled in"),
        ({"url": "file:///etc/passwd"}, "no http:// or https:// address"),
        ({"url": "https://[::1"}, "not a URL"),
        ({}, "no http:// or https:// address"),
        (7, "no description"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_a_clear_sentence(entry: Any, sentence: str) -> None:
    candidate = read({"mcpServers": {"one": entry}})["one"]
    assert sentence in candidate.refusal and "secret-pw" not in candidate.refusal
    assert not candidate.fields and not candidate.secret


def test_a_bridge_to_a_remote_server_is_taken_as_that_server() -> None:
    arguments = ["-y", "mcp-remote@latest", "https://mcp.linear.app/mcp"]
    found = read({"mcpServers": {"lin": {"command": "npx", "args": arguments}}})["lin"]
    assert found.fields["url"] == "https://mcp.linear.app/mcp"
    assert found.fields["key"] == "linear"
    with_key = [*arguments, "--header", f"Authorization: Bearer {SECRET}"]
    found = read({"mcpServers": {"lin": {"command": "npx", "args": with_key}}})["lin"]
    assert found.secret == SECRET


def test_a_key_in_an_address_is_taken_out_of_it() -> None:
    url = f"https://x.example/mcp?project=7&api_key={SECRET}"
    found = read({"mcpServers": {"x": {"url": url}}})["x"]
    assert found.secret == SECRET
    assert found.fields["url"] == "https://x.example/mcp?project=7"
    assert found.fields["credential_placement"] == "query"


@pytest.mark.parametrize(
    "entry",
    [
        {"url": f"https://x.example/mcp?api_key=one&client_secret={SECRET}"},
        {"url": f"https://x.example/mcp?api_key=one&api_key={SECRET}"},
        {"url": f"https://x.example/mcp?token={SECRET}", "headers": {"Authorization": "Bearer a"}},
    ],
)
def test_an_address_with_more_keys_than_can_be_sealed_is_refused(entry: Any) -> None:
    found = read({"mcpServers": {"x": entry}})["x"]
    assert found.refusal == "Its address holds more than one key. Add it by hand."
    assert not found.fields and not found.secret and not found.notes


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"mcpServers": {}}', b"[" * 100_000,
     b'{"a": "' + b"x" * MAX_BYTES + b'"}',
     json.dumps({"mcpServers": {str(n): {} for n in range(101)}}).encode()],
)  # fmt: skip
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(DocumentRefused):
        read_document(content)


@pytest.fixture
def admin() -> Client:
    return browser_of(person("root", is_staff=True, is_superuser=True))


def preview(admin: Client, document: Any) -> tuple[str, dict[str, str]]:
    """Paste a document; returns the page and what its form would send."""
    text = document if isinstance(document, str) else json.dumps(document)
    page = admin.post(IMPORT, {"pasted": text})
    assert page.status_code == 200
    shown = page.content.decode()
    sent = dict.fromkeys(re.findall(r'name="(take-\d+)"', shown), "on")
    held = re.search(r'name="held" value="([^"]+)"', shown)
    assert held is not None, shown
    return shown, {**sent, "held": held.group(1)}


@pytest.mark.django_db
def test_an_administrator_previews_and_imports_and_sees_no_key(admin) -> None:
    shown, sent = preview(admin, CLAUDE)
    assert SECRET not in shown and "Holds a key (not shown)" in shown
    assert "runs a program (npx)" in shown
    assert not Upstream.objects.exists()
    answer = admin.post(IMPORT, sent, follow=True)
    assert SECRET not in answer.content.decode()
    search = Upstream.objects.get(key="search")
    assert sealed_secrets.open_fixed(search) == SECRET
    assert set(Upstream.objects.values_list("key", flat=True)) == {"team-wiki", "search"}
    assert "Already there" in preview(admin, CLAUDE)[0]


@pytest.mark.django_db
def test_another_way_to_log_in_drops_the_files_key(admin) -> None:
    _, sent = preview(admin, CLAUDE)
    del sent["take-0"]
    admin.post(IMPORT, {**sent, "kind-1": "user_key"})
    search = Upstream.objects.get()
    assert search.credential_kind == "user_key" and not search.sealed_fixed_credential


@pytest.mark.django_db
def test_two_servers_of_one_name_keep_the_way_chosen_for_each(admin) -> None:
    twice = [
        {"name": "a/x", "remotes": [{"type": "http", "url": f"https://{host}.example/mcp"}]}
        for host in ("one", "two")
    ]
    _, sent = preview(admin, twice)
    admin.post(IMPORT, {**sent, "kind-0": "none", "kind-1": "user_key"})
    kinds = Upstream.objects.order_by("url").values_list("credential_kind", flat=True)
    assert list(kinds) == ["none", "user_key"]


@pytest.mark.django_db
def test_an_import_is_all_or_nothing_and_says_why(admin) -> None:
    bad = {"mcpServers": {"a": {"url": "https://a.example/mcp"},
                          "b": {"url": "https://b.example/mcp",
                                "headers": {"Host-Token": f"{SECRET}\u00e9"}}}}  # fmt: skip
    _, sent = preview(admin, bad)
    page = admin.post(IMPORT, sent).content.decode()
    assert "Nothing was imported. b:" in page and SECRET not in page
    assert not Upstream.objects.exists()


@pytest.mark.django_db
def test_a_preview_is_its_own_administrators_and_for_an_hour(admin, monkeypatch) -> None:
    _, sent = preview(admin, CLAUDE)
    other = browser_of(person("second", is_staff=True, is_superuser=True))
    assert "give the file again" in other.post(IMPORT, sent, follow=True).content.decode()
    monkeypatch.setattr("upstreams.admin_onboarding.PREVIEW_SECONDS", -1)
    assert "older than an hour" in admin.post(IMPORT, sent, follow=True).content.decode()
    assert not Upstream.objects.exists()


@pytest.mark.django_db
def test_what_was_pasted_wrongly_is_not_sent_back(admin) -> None:
    page = admin.post(IMPORT, {"pasted": '{"key": "' + SECRET}).content.decode()
    assert "not JSON" in page and SECRET not in page


@pytest.mark.django_db
def test_the_command_shows_first_and_prints_no_key(tmp_path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps(CLAUDE))
    said = io.StringIO()
    call_command("import_servers", str(file), "--dry-run", stdout=said)
    assert "2 would be added" in said.getvalue() and not Upstream.objects.exists()
    call_command("import_servers", str(file), "--only", "search", stdout=said)
    call_command("import_servers", str(file), stdout=said)
    assert "exists  search" in said.getvalue() and "refused files: It runs" in said.getvalue()
    assert SECRET not in said.getvalue()
    assert Upstream.objects.count() == 2
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_servers", str(tmp_path / "none"))
