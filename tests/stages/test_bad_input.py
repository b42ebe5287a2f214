"""Bad files, killed runs and concurrent runs: a clear error, nothing lost, and the next run recovers."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from platform_assets.base.settings import Settings
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches
from tests.doubles import runs
from tests.volume import some

Run = Callable[..., dg.ExecuteInProcessResult]


def failure(result: dg.ExecuteInProcessResult, step: str) -> str:
    """Return the message of a failed step."""
    data = result.failure_data_for_node(f"numbered_batches__{step}")
    assert data is not None
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)


def content(tables: TableStore) -> dict[str, dict[str, str]]:
    """Return the digests of everything recorded, each verified by reading it."""
    failures = {}
    for stage in runs.STAGES:
        records = tables.records(stage)
        if records:
            tables.read(stage, list(records))
        failures[stage] = {key: record.content_digest for key, record in records.items()}
    return failures


BAD_FILES = {
    "empty": ("", "0004.csv cannot be taken in: the file is empty"),
    "cut in a line": (
        batches.readings("0004")[:-9],
        "0004.csv cannot be taken in: the file is cut short: its last line",
    ),
    "other columns": (
        batches.readings("0004").replace("reading", "measure", 1),
        "the columns sensor, measure, colour, known_at_utc; expected sensor, .*Missing: reading; not expected: measure",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_and_holds_its_key_alone(
    settings: Settings, tables: TableStore, run: Run, name: str
) -> None:
    """Other keys go on, and a sound file in its place is taken in: `test_unreadable` has the rest."""
    text, expected = BAD_FILES[name]
    batches.land_all(settings.root, "0001", "0005")
    run("0001", "0003")
    before = content(tables)
    batches.land(settings.root, "readings", "0004", text)
    assert run("0003", "0005").success
    record = tables.records("raw_readings")["0004"]
    message = f"{record.notes['uri']} cannot be taken in: {record.notes['unreadable']}"
    assert record.rows == 0 and re.search(expected, message), message
    after = content(tables)
    for stage, digests in before.items():
        assert {key: after[stage][key] for key in digests} == digests
        assert set(after[stage]) == {*digests, "0004", "0005"}
    batches.land(settings.root, "readings", "0004", batches.readings("0004"))
    run("0003", "0005")
    assert tables.read("features", ["0005"])["recent_mean"].to_list() == [40.0 + sensor for sensor in range(6)]


def test_a_missing_file_is_named_and_changes_nothing(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0005")
    run("0001", "0003")
    before = content(tables)
    Path(batches.land(settings.root, "readings", "0004", "")).unlink()
    result = run("0003", "0005", raise_on_error=False)
    assert not result.success
    assert re.search("there is no file .*readings/0004.csv", failure(result, "raw_readings"))
    assert content(tables) == before


def test_chunks_before_a_missing_file_stay(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0040")
    Path(batches.land(settings.root, "readings", "0035", "")).unlink()
    assert not run("0001", "0040", raise_on_error=False).success
    assert set(tables.records("raw_readings")) == set(batches.GRAIN.span("0001", "0031"))


def test_broken_records_go_to_quarantine_with_their_lines_and_all_others_stay(
    settings: Settings, tables: TableStore, run: Run
) -> None:
    batches.land_all(settings.root, "0001", "0002")
    header, first, *others, last = batches.readings("0001").splitlines()
    swallowed = '"s9,1.0,red\ns9,1.0,red,2024-01-01T01:00:00Z\ns9",x'
    broken = [first.rpartition(",")[0], "\0" * 40, "# taken over", "", swallowed]
    batches.land(settings.root, "readings", "0001", "\n".join([header, first, *broken, *others, last, ""]))
    run("0001", "0002")
    good, refused = (tables.read(f"{stage}_readings", ["0001"]) for stage in ("validated", "quarantine"))
    assert good["source_offset"].to_list() == [0, *range(6, 11)]
    assert good["sensor"].to_list() == tables.read("validated_readings", ["0002"])["sensor"].to_list()
    assert refused.select("source_offset", "reason").rows() == [
        (1, "line 3 has 3 fields; the header has 4"),
        (2, "line 4 has 40 zero bytes"),
        (3, "line 5 has 1 field; the header has 4"),
        (4, "line 6 is empty"),
        (5, "the record in lines 7 to 9 has 2 fields; the header has 4"),
    ]
    rows = [json.loads(row) for row in refused["row"]]
    assert rows[4] == {"first_line": 7, "last_line": 9, "record": swallowed}
    assert [row["record"] for row in rows] == broken
    record = tables.records("raw_readings")["0001"]
    assert (record.rows, good.height + refused.height) == (11, 11)
    assert "broken_record" in record.columns and "broken_record" not in tables.records("raw_readings")["0002"].columns
    batches.land(settings.root, "readings", "0001", batches.readings("0001"))
    run("0001", "0002")
    assert tables.read("quarantine_readings", ["0001"]).is_empty()
    assert "broken_record" not in tables.records("raw_readings")["0001"].columns


def test_an_unseen_category_is_accepted(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0001")
    batches.land(settings.root, "readings", "0001", batches.readings("0001").replace("green", "ultraviolet"))
    run("0001")
    assert "ultraviolet" in tables.read("features", ["0001"])["colour"].to_list()


@pytest.fixture
def landed(settings: Settings, run: Run) -> Settings:
    """A store with two processed batches and a third landed one."""
    batches.land_all(settings.root, "0001", "0003")
    run("0001", "0002")
    return settings


def undisturbed(landed: Settings, folder: Path, run_on: Run) -> dict[str, dict[str, str]]:
    variables = copied(landed, folder)
    run_on(variables, "0003")
    return content(TableStore(variables["DRIFTLINE_ROOT"], batches.SPEC.name))


def copied(landed: Settings, folder: Path) -> dict[str, str]:
    """Copy the store, including times of arrival, and return the variables that name the copy."""
    shutil.copytree(landed.root, folder / "store")
    return {"DRIFTLINE_ROOT": str(folder / "store"), "DRIFTLINE_STATE": str(folder / "state")}


def test_the_next_run_repairs_a_run_killed_at_any_write(landed: Settings, tmp_path: Path, run_on: Run) -> None:
    expected = undisturbed(landed, tmp_path / "undisturbed", run_on)
    before = {stage: {key: digests[key] for key in ("0001", "0002")} for stage, digests in expected.items()}
    for number, write in some([*enumerate(runs.WRITES)]):
        variables = copied(landed, tmp_path / str(number))
        tables = TableStore(variables["DRIFTLINE_ROOT"], batches.SPEC.name)
        assert runs.exit_codes([runs.start(variables, "0003", die_before=number)]) == [-signal.SIGKILL], write
        after_kill = content(tables)
        for stage, digests in after_kill.items():
            assert digests in (before[stage], expected[stage]), f"{stage} after a kill before {write}"
        assert after_kill["features"] == before["features"]
        run_on(variables, "0003")
        assert content(tables) == expected, f"after a kill before {write}"


def test_the_kills_cover_every_write(landed: Settings, tmp_path: Path) -> None:
    variables = copied(landed, tmp_path / "all")
    assert runs.exit_codes([runs.start(variables, "0003", die_before=len(runs.WRITES))]) == [0]


def test_two_concurrent_runs_write_a_day_once(landed: Settings, tmp_path: Path, run_on: Run) -> None:
    expected = undisturbed(landed, tmp_path / "undisturbed", run_on)
    variables = copied(landed, tmp_path / "met")
    tables = TableStore(variables["DRIFTLINE_ROOT"], batches.SPEC.name)
    assert runs.exit_codes([runs.start(variables, "0003") for _ in range(2)]) == [0, 0]
    assert content(tables) == expected
    assert tables.read("features", ["0003"]).height == batches.SENSORS
