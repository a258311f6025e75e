"""Files and functions stay readable: we aim at 400 and 50 lines, and fail at 450 and 60."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("gateway_site", "consent", "virtualmcp", "upstreams", "oauthserver")
LONGEST_FILE, LONGEST_FUNCTION = 450, 60
VAGUE_NAMES = re.compile(r"^(utils?|helpers?|common|misc|managers?|services?|base)$")


def product_files() -> list[Path]:
    files = [file for room in (*ROOMS, "bin") for file in sorted((ROOT / room).rglob("*.py"))]
    return [file for file in files if "migrations" not in file.parts]


def test_files_stay_short():
    lengths = {file: len(file.read_text().splitlines()) for file in product_files()}
    assert {str(f.relative_to(ROOT)): n for f, n in lengths.items() if n > LONGEST_FILE} == {}


def test_functions_stay_short():
    long = {}
    for file in product_files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long[f"{file.relative_to(ROOT)}:{node.name}"] = length
    assert long == {}


def test_file_names_say_what_is_inside():
    assert [f for f in product_files() if VAGUE_NAMES.match(f.stem)] == []


def test_public_things_have_docstrings():
    missing = []
    for file in product_files():
        tree = ast.parse(file.read_text())
        if file.name != "__init__.py" and ast.get_docstring(tree) is None:
            missing.append(str(file.relative_to(ROOT)))
        for node in tree.body:
            is_public = isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            ) and not node.name.startswith("_")
            exempt = file.name == "apps.py"
            if is_public and not exempt and ast.get_docstring(node) is None:
                missing.append(f"{file.relative_to(ROOT)}:{node.name}")
    assert missing == []


def test_nothing_is_left_for_later():
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [f for f in product_files() if marks.search(f.read_text())] == []
