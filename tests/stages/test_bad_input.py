"""Bad files, killed runs and concurrent runs: a clear error, nothing lost, and the next run recovers."""

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

pytestmark = pytest.mark.slow

Run = Callable[..., dg.ExecuteInProcessResult]


def failure(result: dg.ExecuteInProcessResult, step: str) -> str:
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


@pytest.mark.costly
def test_a_missing_file_is_named_and_changes_nothing(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0005")
    run("0001", "0003")
    before = content(tables)
    Path(batches.land(settings.root, "readings", "0004", "")).unlink()
    result = run("0003", "0005", raise_on_error=False)
    assert not result.success
    assert re.search("there is no file .*readings/0004.csv", failure(result, "raw_readings"))
    assert content(tables) == before


@pytest.mark.costly
def test_chunks_before_a_missing_file_stay(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0040")
    Path(batches.land(settings.root, "readings", "0035", "")).unlink()
    assert not run("0001", "0040", raise_on_error=False).success
    assert set(tables.records("raw_readings")) == set(batches.GRAIN.span("0001", "0031"))


@pytest.mark.costly
def test_an_unseen_category_is_accepted(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0001")
    batches.land(settings.root, "readings", "0001", batches.readings("0001").replace("green", "ultraviolet"))
    run("0001")
    assert "ultraviolet" in tables.read("features", ["0001"])["colour"].to_list()


@pytest.fixture
def landed(settings: Settings, run: Run) -> Settings:
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


@pytest.mark.costly
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


@pytest.mark.costly
def test_the_kills_cover_every_write(landed: Settings, tmp_path: Path) -> None:
    variables = copied(landed, tmp_path / "all")
    assert runs.exit_codes([runs.start(variables, "0003", die_before=len(runs.WRITES))]) == [0]


@pytest.mark.costly
def test_two_concurrent_runs_write_a_day_once(landed: Settings, tmp_path: Path, run_on: Run) -> None:
    expected = undisturbed(landed, tmp_path / "undisturbed", run_on)
    variables = copied(landed, tmp_path / "met")
    tables = TableStore(variables["DRIFTLINE_ROOT"], batches.SPEC.name)
    assert runs.exit_codes([runs.start(variables, "0003") for _ in range(2)]) == [0, 0]
    assert content(tables) == expected
    assert tables.read("features", ["0003"]).height == batches.SENSORS
