"""Row D1: a change is hidden if bytes moved and neither digest nor inputs did; runs are changed in lines that ran."""

from random import Random
from typing import Any

import pytest

from proof.chaos import d1, d1_runs
from proof.chaos.d1_mutants import KINDS, Mutant, mutants, running

MUTANT = Mutant("platform_assets.store.tables", "constant", 1, "1 -> 2", "")
ONE, TWO = "1" * 64, "2" * 64
BEFORE: d1.Measured = (
    {"raw": "a", "features": "b", "drift": "c"},
    {"raw K": ONE, "raw K inputs": ONE, "features K": ONE, "features K inputs": ONE},
)


@pytest.mark.parametrize(
    ("digests", "items", "counted"),
    [
        ({}, {}, {}),
        ({}, {"raw K": TWO}, {"moved": 1, "hidden": 1}),
        ({}, {"raw K": TWO, "raw K inputs": TWO}, {"moved": 1}),
        ({}, {"raw K inputs": TWO}, {"moved": 1}),
        ({}, {"raw K": "nothing"}, {"moved": 1, "stopped": 1}),
        ({"raw": "x"}, {"raw K": TWO}, {"moved": 1, "both": 1}),
        ({"raw": "x"}, {}, {"wide": 1}),
        ({"raw": "x", "drift": "x"}, {"features K": TWO}, {"moved": 1, "hidden": 1, "wide": 2}),
    ],
    ids=["nothing", "bytes", "made again", "asked again", "stopped", "for a reason", "for nothing", "the wrong digest"],
)
def test_what_moved_is_counted_once(digests: dict[str, str], items: dict[str, str], counted: dict[str, int]) -> None:
    tally, after = d1.Tally(), ({**BEFORE[0], **digests}, {**BEFORE[1], **items})
    d1._judge(MUTANT, BEFORE, after, set(BEFORE[0]), tally)
    counts = {name: tally.counts[name] for name in ("moved", "both", "stopped")}
    counts |= {"hidden": len(tally.hidden), "wide": tally.wide.total()}
    assert {name: count for name, count in counts.items() if count} == counted
    assert tally.modules.total() == tally.wide.total()


TEXT = """\
LIMIT = 3


def ran(rows,
        most=7):
    if rows:
        return LIMIT + 1
    return 2


def rested(rows, most=8):
    return rows + 5
"""


def test_a_run_depends_on_its_lines_their_heads_and_what_is_outside_of_functions() -> None:
    assert running(TEXT, {6, 7}) & {1, 4, 5, 6, 7, 8, 11, 12} == {1, 4, 5, 6, 7}


@pytest.mark.parametrize(("kind", "lines"), [("constant", {1, 5, 7}), ("default", {5}), ("operator", {7})])
def test_mutants_change_lines_that_a_run_depends_on(kind: str, lines: set[int]) -> None:
    drawn = mutants("module", TEXT, kind, Random(1), running(TEXT, {6, 7}))
    assert {mutant.line for mutant in drawn} == lines
    assert kind in KINDS


def document(content: Any = "rows", **notes: Any) -> d1_runs.Document:
    return {"content": content, "notes": notes, "inputs": {"file": "x"}}


@pytest.mark.parametrize(
    ("after", "is_same"),
    [
        (document(late=1), True),
        (document(late=1, cpu_s_=2), True),
        (document(late=2), False),
        (document(late_=1), False),
        (document("other rows", late=1), False),
    ],
    ids=["the same", "another name for a time", "a note", "another name for a note", "rows"],
)
def test_content_is_rows_and_the_notes_that_the_unchanged_code_makes(after: d1_runs.Document, is_same: bool) -> None:
    expected = {"raw K": document(late=1)}
    before = d1_runs.digests_of_items(expected, expected)
    assert (d1_runs.digests_of_items({"raw K": after}, expected) == before) is is_same
    assert d1_runs.digests_of_items({}, expected) == {"raw K": "nothing", "raw K inputs": "nothing"}
