"""The maps name every requirement and case, and only tests that exist.

A test may also carry the number of a case in its name (``test_79_…``) or its requirement map;
then the map must know it: a number that is proven somewhere is proven in the map.
"""

import ast
import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAPS = [
    name
    for name in ("security_map", "security_map_beyond", "protocol_map", "bridge_rows")
    if find_spec(f"tests.requirements.{name}") is not None
]
# The second one is for the sections of the catalogue after 4G.
SECURITY = [name for name in MAPS if name.startswith("security_map")]
NUMBERED = re.compile(r"test_(\d{1,3})_")


def read(name: str) -> Any:
    return import_module(f"tests.requirements.{name}")


@cache
def names_in(file: str) -> frozenset[str]:
    """Name the tests of a file, also those in classes, without importing it."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(path.read_text()))
    names = (node.name for node in nodes if isinstance(node, functions))
    return frozenset(name for name in names if name.startswith("test_"))


@pytest.mark.parametrize("name", MAPS)
def test_every_named_test_exists(name: str) -> None:
    missing = [
        (number, test)
        for number, tests in read(name).MAP.items()
        for test in tests
        if test.rpartition("::")[2] not in names_in(test.partition("::")[0])
    ]
    assert missing == []


@pytest.mark.parametrize("name", MAPS)
def test_nothing_is_named_without_a_proof(name: str) -> None:
    assert [number for number, tests in read(name).MAP.items() if not tests] == []


@pytest.mark.parametrize("name", SECURITY)
def test_every_case_of_the_catalogue_is_proven(name: str) -> None:
    security = read(name)
    assert security.CASES ^ set(security.MAP) == set()


@pytest.mark.parametrize("name", SECURITY)
def test_a_case_named_by_a_test_is_in_the_map(name: str) -> None:
    security = read(name)
    known = {test for tests in security.MAP.values() for test in tests}
    unknown = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        where = file.relative_to(ROOT).as_posix()
        for test in names_in(where):
            found = NUMBERED.match(test)
            if found and f"#{found[1]}" in security.CASES and f"{where}::{test}" not in known:
                unknown.append(f"{where}::{test}")
    assert unknown == []
