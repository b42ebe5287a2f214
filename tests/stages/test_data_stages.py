"""Landed batches become features and outcomes; finished work is not repeated, and changed inputs are processed."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from platform_assets.base.settings import Settings
from platform_assets.data import validated
from platform_assets.product.spec import Source
from platform_assets.store.artifacts import ArtifactStore, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.versions import REBUILDS, Rebuild
from platform_assets.store.tables import MissingPartitions, TableProblem, TableStore
from tests.doubles import numbered_batches as batches
from tests.doubles.advancing import metadata_of

pytestmark = pytest.mark.slow

Run = Callable[..., dg.ExecuteInProcessResult]
Advanced = Callable[..., TableStore]
LABEL_STAGES = ("raw_verdicts", "validated_verdicts", "quarantine_verdicts", "outcomes")


def memoised(result: dg.ExecuteInProcessResult, stage: str) -> set[str | None]:
    events = (event.step_materialization_data.materialization for event in result.get_asset_materialization_events())
    return {
        materialisation.partition
        for materialisation in events
        if materialisation.asset_key.path[-1] == stage
        and (mark := materialisation.metadata.get("is_memoised"))
        and mark.value
    }


def sequences(tables: TableStore, stage: str) -> dict[str, int]:
    return {key: record.sequence for key, record in tables.records(stage).items()}


@pytest.mark.costly
def test_batches_become_features_and_outcomes(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0040")
    result = run("0001", "0040")
    rows = tables.read("features", ["0001", "0032"])
    assert rows["entity"].to_list() == [f"s{sensor}" for sensor in range(batches.SENSORS)] * 2
    assert rows["reading"].to_list() == [10.0 * batch + sensor for batch in (1, 32) for sensor in range(6)]
    assert rows["recent_mean"].to_list() == [10.0 + sensor for sensor in range(6)] + [
        310.0 + sensor for sensor in range(6)
    ]
    assert rows["weight"].to_list() == [100, 101, 102, 103, 104, None] * 2
    assert tables.read("outcomes", ["0038"])["label"].to_list() == [0, 1, 0, 1, 0, 1]
    assert set(tables.records("outcomes")) == set(batches.GRAIN.span("0001", "0038"))
    assert metadata_of(result, "outcomes", "0040") == {**metadata_of(result, "outcomes", "0040"), "is_landed": False}
    assert metadata_of(result, "outcomes", "0038")["labels"] == {"positives": 3}
    assert metadata_of(result, "features", "0032")["dagster/row_count"] == 6
    for event in result.get_asset_materialization_events():
        assert next(iter(event.step_materialization_data.materialization.metadata)) == "result"
    sentences = {
        stage: metadata_of(result, stage, "0032")["result"] for stage in ("raw_readings", "validated_readings")
    }
    assert sentences["raw_readings"] == f"6 rows landed in {len(batches.readings('0032'))} bytes"
    assert sentences["validated_readings"] == "6 valid rows; none quarantined"
    assert metadata_of(result, "quarantine_readings", "0032")["result"] == "no row in quarantine"
    assert metadata_of(result, "features", "0032")["result"] == "6 rows of features"
    assert metadata_of(result, "outcomes", "0038")["result"] == "6 labels"
    assert metadata_of(result, "outcomes", "0040")["result"] == "no labels have landed for this key yet"
    assert metadata_of(result, "predictions", "0032")["result"] == "no answers"
    assert str(metadata_of(result, "drift", "0032")["result"]).startswith("fine: no fault; no model")
    assert str(metadata_of(result, "decision", "0032")["result"]).startswith("wait: ")


@pytest.mark.costly
def test_a_raw_key_records_the_origin_of_its_file(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0003")
    metadata = metadata_of(run("0001", "0003"), "raw_readings", "0002")
    data = batches.readings("0002").encode()
    assert metadata["uri"] == f"{settings.root}/landing/numbered_batches/readings/0002.csv"
    assert (metadata["sha256"], metadata["bytes"]) == (sha256(data)[:12], len(data))
    assert ArtifactStore(settings.root).get(sha256(data)) == data
    raw = tables.read("raw_readings", ["0002"])
    assert raw["source_offset"].to_list() == list(range(batches.SENSORS))
    assert raw["reading"].to_list() == [f"{20 + sensor}.0" for sensor in range(batches.SENSORS)]
    assert metadata["arrived_at_utc"] == raw["arrived_at_utc"][0].isoformat()


@pytest.mark.costly
def test_a_second_run_writes_nothing(settings: Settings, tables: TableStore, run: Run, advance_to: Advanced) -> None:
    advance_to("0006")
    before = files(settings)
    result = run("0001", "0006")
    assert files(settings) == before
    assert memoised(result, "features") == set(batches.GRAIN.span("0001", "0006"))
    assert memoised(result, "raw_catalogue") == {None}
    assert metadata_of(result, "features", "0003")["run_memoised_keys"] == 6


@pytest.mark.costly
def test_a_run_with_nothing_to_do_builds_no_schema(settings: Settings, run: Run, monkeypatch: pytest.MonkeyPatch):
    """Pandera's import, pandas among it, took a third of such a run."""
    batches.land_all(settings.root, "0001", "0003")
    run("0001", "0003")
    monkeypatch.setattr(Source, "columns", lambda _: pytest.fail("a schema was built"))
    assert memoised(run("0001", "0003"), "validated_readings") == {"0001", "0002", "0003"}


@pytest.mark.costly
@pytest.mark.parametrize("damage", [b"", b"PAR1", None], ids=["empty", "cut", "gone"])
def test_a_key_with_damaged_rows_is_recomputed(
    settings: Settings, tables: TableStore, run: Run, advance_to: Advanced, damage: bytes | None
) -> None:
    advance_to("0003")
    before = tables.records("validated_readings")
    path = Path(settings.root, "tables", batches.SPEC.name, "validated_readings", before["0002"].files[0])
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(TableProblem, match=r"gone|cannot be read"):
        tables.read("validated_readings", ["0002"])
    result = run("0001", "0003")
    assert memoised(result, "validated_readings") == {"0001", "0003"}
    assert memoised(result, "features") == {"0001", "0002", "0003"}
    assert tables.records("validated_readings")["0002"].content_digest == before["0002"].content_digest
    assert tables.read("validated_readings", ["0002"]).height == before["0002"].rows


@pytest.mark.costly
def test_a_changed_file_rewrites_its_key_and_the_keys_that_look_back_on_it(
    settings: Settings, tables: TableStore, run: Run
) -> None:
    batches.land_all(settings.root, "0001", "0007")
    run("0001", "0007")
    before = tables.read("features", batches.GRAIN.span("0001", "0007"))
    batches.land(settings.root, "readings", "0003", batches.readings("0003").replace("33.0", "39.0"))
    result = run("0001", "0007")
    keys = set(batches.GRAIN.span("0001", "0007"))
    assert memoised(result, "raw_readings") == memoised(result, "validated_readings") == keys - {"0003"}
    assert memoised(result, "features") == keys - {"0003", "0004", "0005"}
    changed = tables.read("features", sorted(keys)).filter(pl.col("recent_mean") != before["recent_mean"])
    assert changed.select("key", "entity", "recent_mean").rows() == [
        ("0003", "s3", 25.0),
        ("0004", "s3", 35.0),
        ("0005", "s3", 45.0),
    ]


@pytest.mark.costly
def test_an_equal_second_delivery_changes_nothing_and_another_one_replaces_the_key(
    settings: Settings, tables: TableStore, run: Run
) -> None:
    batches.land_all(settings.root, "0001", "0002")
    run("0001", "0002")
    before = files(settings)
    batches.land(settings.root, "readings", "0002", batches.readings("0002"))
    run("0001", "0002")
    assert files(settings) == before
    shorter = "\n".join(batches.readings("0002").splitlines()[:-1]) + "\n"
    batches.land(settings.root, "readings", "0002", shorter)
    run("0001", "0002")
    assert tables.read("raw_readings", ["0002"]).height == batches.SENSORS - 1
    assert tables.read("features", ["0002"]).height == batches.SENSORS - 1
    assert tables.read("features", ["0001"]).height == batches.SENSORS


@pytest.mark.costly
def test_a_late_label_rewrites_only_its_key(settings: Settings, tables: TableStore, run: Run, advance_to: Advanced):
    advance_to("0006")
    before = {stage: sequences(tables, stage) for stage in (*LABEL_STAGES, "features")}
    batches.land(settings.root, "verdicts", "0005", batches.verdicts("0005"))
    run("0001", "0006")
    for stage in LABEL_STAGES:
        after = sequences(tables, stage)
        assert {key for key in after if after[key] != before[stage].get(key)} == {"0005"}
    assert sequences(tables, "features") == before["features"]


@pytest.mark.costly
def test_the_quarantined_share_warns_and_blocks_nothing(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0002")
    batches.land(settings.root, "readings", "0002", batches.readings("0002").replace("20.0", "hot"))
    result = run("0001", "0002")
    evaluations = [item for item in result.get_asset_check_evaluations() if item.check_name == validated.CHECK]
    checks = {(item.asset_key.path[-1], item.partition): item for item in evaluations}
    assert not checks["validated_readings", "0002"].passed
    assert checks["validated_readings", "0002"].severity is dg.AssetCheckSeverity.WARN
    assert str(checks["validated_readings", "0002"].description).startswith("readings of 0002 has 16.7%")
    assert checks["validated_readings", "0001"].passed
    metadata = metadata_of(result, "validated_readings", "0002")
    assert (metadata["rows_in"], metadata["rows_quarantined"], metadata["dagster/row_count"]) == (6, 1, 5)
    assert [*metadata["quarantined_by_reason"].values()] == [1]
    assert tables.read("features", ["0002"]).height == batches.SENSORS - 1


@pytest.mark.costly
def test_a_window_with_a_missing_key_fails_and_names_it(settings: Settings, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0005")
    run("0001", "0002")
    with pytest.raises(MissingPartitions, match=r"validated_readings.*0003"):
        run("0004", "0005")


@pytest.mark.costly
def test_a_key_alone_equals_the_same_key_of_a_range(settings: Settings, tables: TableStore, run: Run) -> None:
    batches.land_all(settings.root, "0001", "0004")
    for key in batches.GRAIN.span("0001", "0004"):
        run(key)
    alone = {key: record.content_digest for key, record in tables.records("features").items()}
    batches.land(settings.root, "catalogue", "all", batches.catalogue() + "s9,900\n")
    Ledgers(settings.root, batches.SPEC.name).of(REBUILDS).append(Rebuild(why="all at once", by="a test", at_utc=None))
    assert memoised(run("0001", "0004"), "features") == set()
    assert {key: record.content_digest for key, record in tables.records("features").items()} == alone


def files(settings: Settings) -> dict[Path, tuple[int, int]]:
    """Return every stored file except landed ones, with its size and time of writing."""
    root = Path(settings.root)
    files = (path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != "landing")
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}
