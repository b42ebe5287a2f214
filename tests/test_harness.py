"""The harness of `make bench` and `make chaos`: what it prints, and the pages it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import harness
from tests.benchmarks.harness import Measure

ROW = '''"""A row for this test.

What is compared.
"""
from tests.benchmarks.harness import Measure

def run():
    return [Measure(measure="CPU s", ours={ours}, peers={{"peer": 4.0}}, limit=1.0, target="<= 1.5x limit")]
'''


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "benchmarks.md"
    path.write_text("# Benchmarks\n\nIntroduction.\n", encoding="utf-8")
    monkeypatch.setattr(harness, "DOCUMENT", path)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    for name, ours in (("p2", 1.25), ("p11", 1.75), ("p6a", 1.0)):
        (folder / f"{name}.py").write_text(ROW.format(ours=ours), encoding="utf-8")
    (folder / "child.py").write_text("raise AssertionError('this is not a row')", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("ours", "limit", "target", "ratio", "is_met"),
    [
        (59.0, 6.0, "<= 60 ms", 59 / 6, True),
        (61.0, 6.0, "<= 60 ms", 61 / 6, False),
        (1.2, 1.0, "<= 1.2x limit", 1.2, True),
        (1.3, 1.0, "<= 1.2x limit", 1.3, False),
        (0.007, None, ">= 0.007 AUC", None, True),
        (0.006, None, ">= 0.007 AUC", None, False),
        (-0.001, None, ">= -0.002", None, True),
        (5.0, 0.0, "<= 1.2x limit", None, False),
        (None, 1.0, "<= 60 ms", None, False),
        (5.0, 0.0, None, None, None),
    ],
)
def test_targets_bound_the_number_or_its_ratio_to_the_limit(
    ours: float | None, limit: float | None, target: str | None, ratio: float | None, is_met: bool | None
) -> None:
    measure = Measure(measure="m", ours=ours, limit=limit, target=target)
    assert measure.ratio_to_limit == (None if ratio is None else pytest.approx(ratio))
    assert measure.is_met is is_met


def test_a_target_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="target is 'fast'"):
        Measure(measure="m", ours=1.0, target="fast")


def test_a_line_has_exactly_the_agreed_keys(rows: Path, document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main("bench", rows, ["P11,P2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["row"] for line in lines] == ["P11", "P2"]
    assert lines[0] == {
        "row": "P11",
        "measure": "CPU s",
        "ours": 1.75,
        "peers": {"peer": 4.0},
        "limit": 1.0,
        "ratio_to_limit": 1.75,
        "target": "<= 1.5x limit",
        "is_met": False,
    }


def test_rows_are_found_by_name_and_in_order(rows: Path) -> None:
    assert list(harness.rows_of(rows)) == ["P2", "P6a", "P11"]


def test_a_missed_target_fails_only_when_strict(rows: Path, document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main("bench", rows, ["P11"]) == 0
    assert harness.main("bench", rows, ["P11", "--strict"]) == 1
    assert harness.main("bench", rows, ["P2", "--strict"]) == 0
    assert "falls short: P11: CPU s" in capsys.readouterr().err


def test_a_row_has_a_page_and_its_targets_a_line_in_the_document(
    rows: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        harness.main("bench", rows, [])
    page = (document.parent / "rows" / "p11.md").read_text(encoding="utf-8")
    assert page.startswith("# P11: A row for this test\n\nWhat is compared.\n\n| measure |")
    assert "| CPU s | 1.75 | peer 4 | 1 | 1.75 | <= 1.5x limit | **falls short** |" in page
    assert "\n`make bench ROWS=P11`, " in page
    text = document.read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks\n\nIntroduction.\n\n## Serving\n")
    assert text.index("## Serving") < text.index("| [P2](rows/p2.md) | CPU s | <= 1.5x limit | 1.25x | met | ")
    assert text.index("## Cost") < text.index("| 1.75x | **falls short by 0.25x** | ")
    assert text.count("CPU s") == 3


def test_of_cases_with_one_target_the_worst_is_shown(document: Path) -> None:
    figures = {"small": 2.0, "large": 3.0, "none": None}
    measures = [Measure(measure=f"{case}: s", ours=ours, target="<= 4 s") for case, ours in figures.items()]
    harness.write("bench", "P1", "Title.", [measure.line("P1") for measure in measures[:2]], ())
    assert "| [P1](rows/p1.md) | s (worst of 2) | <= 4 s | 3 | met | " in document.read_text(encoding="utf-8")
    harness.write("bench", "P1", "Title.", [measure.line("P1") for measure in measures], ())
    text = document.read_text(encoding="utf-8")
    assert "| [P1](rows/p1.md) | s (worst of 3) | <= 4 s | — | **falls short** | " in text


def test_a_row_without_targets_is_listed_by_its_title(document: Path) -> None:
    harness.write("bench", "P17", "Several models.", [Measure(measure="s", ours=1.0).line("P17")], ())
    assert "| [P17](rows/p17.md) | Several models | none | | | " in document.read_text(encoding="utf-8")


def test_a_row_may_summarise_its_results_in_words(
    rows: Path, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "shown = []\n" + ROW.format(ours=1.0).replace(
        "    return", "    shown[:] = ['The peer wins.']\n    return"
    )
    (rows / "p3.py").write_text(source, encoding="utf-8")
    harness.main("bench", rows, ["P3"])
    page = (document.parent / "rows" / "p3.md").read_text(encoding="utf-8")
    table, below = page.split("\n\n- The peer wins.\n\n")
    assert table.endswith("| met |")
    assert below.startswith("`make bench ROWS=P3`")


def test_the_document_shows_the_rows_pages_and_every_row_has_an_area() -> None:
    assert harness.verdicts() == harness.DOCUMENT.read_text(encoding="utf-8")
    folders = [Path(harness.__file__).parent, Path(harness.__file__).parents[1] / "chaos"]
    rows = sorted(row for folder in folders for row in harness.rows_of(folder))
    assert rows == sorted(row for area in harness.AREAS.values() for row in area)


def test_an_empty_folder_is_reported_and_unknown_rows_are_refused(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert harness.main("chaos", tmp_path / "none", []) == 0
    assert "there are no rows yet" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        harness.main("bench", rows, ["P99"])
    assert "there is no row P99; known are P2, P6a, P11" in capsys.readouterr().err
