"""The harness of `make bench` and `make chaos`: what it prints, and what it keeps and renders."""

import json
from pathlib import Path

import pytest

from proof.benchmarks import harness
from proof.benchmarks.harness import Measure

ROW = '''"""A row for this test.

What is compared.
"""
from proof.benchmarks.harness import Measure

def run():
    return [Measure(measure="CPU s", ours={ours}, peers={{"peer": 4.0}}, limit=1.0, target="<= 1.5x limit")]
'''


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "proof" / "rows"
    folder.mkdir(parents=True)
    for name, ours in (("p2", 1.25), ("p11", 1.75), ("p6a", 1.0)):
        (folder / f"{name}.py").write_text(ROW.format(ours=ours), encoding="utf-8")
    (folder / "child.py").write_text("raise AssertionError('this is not a row')", encoding="utf-8")
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    return folder


def page(rows: Path) -> str:
    return (rows.parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


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
    measure = Measure("m", ours, limit=limit, target=target)
    assert measure.ratio_to_limit == (None if ratio is None else pytest.approx(ratio))
    assert measure.is_met is is_met


def test_a_target_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="target is 'fast'"):
        Measure("m", 1.0, target="fast")


def test_a_line_has_exactly_the_agreed_keys(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_missed_target_fails_only_when_strict(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main("bench", rows, ["P11"]) == 0
    assert harness.main("bench", rows, ["P11", "--strict"]) == 1
    assert harness.main("bench", rows, ["P2", "--strict"]) == 0
    assert "falls short: P11: CPU s" in capsys.readouterr().err


def test_a_row_replaces_its_stored_lines_and_the_page_shows_them(rows: Path) -> None:
    for _ in range(2):
        harness.main("bench", rows, [])
    lines = (rows.parents[1] / "docs" / "benchmarks.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["row"] for line in lines] == ["P2", "P6a", "P11"], "in the order of the page"
    assert json.loads(lines[2])["command"] == "make bench ROWS=P11"
    text = page(rows)
    assert text.startswith(harness.HEAD + "\n## Serving\n\n### P2\nA row for this test.\n\nWhat is compared.\n\n|")
    assert text.index("| CPU s | 1.25 (1.25x) | peer 4 | 1 | <= 1.5x limit | met |") < text.index("## Cost")
    assert "| CPU s | 1.75 (1.75x) | peer 4 | 1 | <= 1.5x limit | **falls short by 0.25x** |" in text
    harness.write("make bench ROWS=P11", [Measure("CPU s", None, target="<= 4 s").line("P11")])
    assert "| CPU s | — | — | — | <= 4 s | **falls short** |" in page(rows), "no number never passes"


def test_measures_without_a_target_are_shown_where_their_row_has_none(rows: Path) -> None:
    shown = Measure("MB", 1.0)
    harness.write("", [shown.line("P2"), Measure("s", 1.0, target="<= 4 s").line("P2")])
    assert "| MB |" not in page(rows)
    harness.write("", [shown.line("P2")])
    assert "| MB | 1 | — | — | — |  |" in page(rows)


def test_a_row_may_summarise_its_results_in_words(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = "shown = []\n" + ROW.format(ours=1.0).replace(
        "    return", "    shown[:] = ['The peer wins.']\n    return"
    )
    (rows / "p3.py").write_text(source, encoding="utf-8")
    harness.main("bench", rows, ["P3"])
    assert capsys.readouterr().err.endswith("| met |\n\nThe peer wins.\n")


def test_the_page_shows_the_stored_lines_and_every_row_has_an_area() -> None:
    stored = harness.stored()
    assert harness.page(stored) == (harness.ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    folders = [Path(harness.__file__).parent, Path(harness.__file__).parents[1] / "chaos"]
    rows = sorted([*harness.ON_A_CLUSTER, *(row for folder in folders for row in harness.rows_of(folder))])
    assert rows == sorted(row for area in harness.AREAS.values() for row in area)
    assert stored.keys() <= set(rows)


def test_an_empty_folder_is_reported_and_unknown_rows_are_refused(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert harness.main("chaos", tmp_path / "none", []) == 0
    assert "there are no rows yet" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        harness.main("bench", rows, ["P99"])
    assert "there is no row P99; known are P2, P6a, P11" in capsys.readouterr().err
