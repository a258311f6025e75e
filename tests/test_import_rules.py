"""Rooms import each other only in the allowed directions (contracts in pyproject.toml)."""

import ast
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent
# Which module alone may import a library that is easily misused.
SINGLE_OWNERS = {"httpx": {"upstreams/http_client.py"}}


def test_no_room_imports_one_above_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def imports_of(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def product_files() -> list[Path]:
    rooms = ("gateway_site", "consent", "virtualmcp", "upstreams", "oauthserver")
    return [file for room in rooms for file in sorted((ROOT / room).rglob("*.py"))]


def test_each_http_client_has_one_owner():
    for library, owners in SINGLE_OWNERS.items():
        users = {
            str(file.relative_to(ROOT)) for file in product_files() if library in imports_of(file)
        }
        assert users == owners


def test_no_sdk_is_used_at_run_time():
    for file in product_files():
        assert not imports_of(file) & {"mcp", "mcp_types", "fastmcp", "pytest", "tests"}, file
