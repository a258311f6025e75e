"""Every requirement of the protocol has its proof or a reason (``test_maps``: they exist)."""

import re
from collections import Counter
from pathlib import Path

from tests.requirements import bridge_rows
from tests.requirements.protocol_map import MAP, NO_PROOF

ROOT = Path(__file__).resolve().parents[2]
ROLES = {"a": 50, "b": 24, "c": 12, "d": 19, "e": 17}
BRIDGE = ("2.2", *(f"2.3.{n}" for n in range(1, 13)), *(f"2.4.{n}" for n in range(1, 5)))
OTHERS = (*BRIDGE, "2.5", "2.6", "3.1", *(f"3.2.{n}" for n in range(1, 8)))
OTHERS += ("3.3", "3.4", "3.5", "3.6")
# How many rows the table of each section has.
ROWS = {1: 9, 2: 5, 3: 6, 4: 6, 5: 6, 6: 7, 7: 5, 8: 5, 9: 17, 10: 3, 11: 5, 12: 5}
# A requirement named in the words of a test or a test's module: "(a29)", "(2.3.4, a41)".
CITED = re.compile(r"(?<=[(,] )([a-e]\d{1,2})\b|(?<=\()([a-e]\d{1,2})\b|\b(2\.3\.\d{1,2})\b")


def required() -> set[str]:
    """Return every number there is."""
    return {f"{role}{n}" for role, most in ROLES.items() for n in range(1, most + 1)} | set(OTHERS)


def test_every_requirement_has_a_proof_or_a_reason_and_not_both():
    assert set(MAP) | set(NO_PROOF) == required()
    assert set(MAP) & set(NO_PROOF) == set()
    assert all(tests for tests in MAP.values())
    assert all(len(reason) > 20 for reason in NO_PROOF.values())


def test_every_row_of_the_bridge_has_a_proof_or_a_reason_and_not_both():
    rows = [*bridge_rows.MAP, *bridge_rows.NO_PROOF]
    counted = Counter(row.partition(" ")[0] for row in rows)
    assert counted == {f"2.3.{section}": rows for section, rows in ROWS.items()}
    assert len(rows) == len(set(rows))
    assert all(len(reason) > 20 for reason in bridge_rows.NO_PROOF.values())


def test_no_test_cites_a_requirement_that_is_not_in_the_map():
    unknown = []
    for file in (ROOT / "tests").rglob("test_*.py"):
        for line in file.read_text().splitlines():
            if "protocol.md" in line or line.lstrip().startswith(('"""', "#")):
                cited = {one for found in CITED.findall(line) for one in found if one}
                unknown += [f"{file.name}: {one}" for one in cited if one not in required()]
    assert unknown == []
