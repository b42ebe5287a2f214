"""A key keeps the snapshot of a slow table that it was built with, until a person asks for a rebuild of all keys."""

import getpass
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data import closing, features, key_changes, raw, validated
from platform_assets.engine.store_resource import StoreResource
from platform_assets.monitoring.drift_maker import Judging
from platform_assets.monitoring.fault_records import FaultRecords
from platform_assets.operations import doctor, status
from platform_assets.operations.trace import _features as traced
from platform_assets.product.spec import Product, Source, Tables, Window
from platform_assets.store import upkeep
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.faults import FailedCheck
from platform_assets.store.records.versions import REBUILDS
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches
from tests.doubles.built import running
from tests.stages.conftest import NOW

pytestmark = pytest.mark.slow

Run = Callable[..., dg.ExecuteInProcessResult]
NAME = batches.SPEC.name
TABLE = f"validated_{batches.SPEC.sources[1].name}"


def weighing(number: int) -> str:
    return "\n".join(["sensor,weight", *(f"s{sensor},{number}" for sensor in range(batches.SENSORS)), ""])


def deliver(settings: Settings, number: int) -> None:
    batches.land(settings.root, "catalogue", naming.UNPARTITIONED, weighing(number))


def weights(tables: TableStore) -> dict[str, int]:
    """Return by key the one weight in its features, which tells its snapshot."""
    by_key = tables.read("features", tables.records("features")).group_by("key").agg(pl.col("weight").unique())
    return {key: single for key, (single,) in sorted(by_key.iter_rows())}


def problem(result: dg.ExecuteInProcessResult) -> str:
    [failed] = [event for event in result.all_events if event.is_step_failure]
    error = failed.step_failure_data.error
    return f"{error.message} {error.cause.message if error.cause else ''}"


@pytest.fixture
def world(settings: Settings, tables: TableStore, run: Run) -> TableStore:
    """A store whose keys 0001 to 0003 were built with weight 1, and 0004 and 0005 with weight 2."""
    batches.land_all(settings.root, "0001", "0009", labels_until="0003")
    for number, first, last in ((1, "0001", "0003"), (2, "0004", "0005")):
        deliver(settings, number)
        run(first, last)
    assert weights(tables) == {"0001": 1, "0002": 1, "0003": 1, "0004": 2, "0005": 2}
    return tables


@pytest.fixture
def ask(settings: Settings, instance: dg.DagsterInstance) -> Callable[..., dg.ExecuteInProcessResult]:
    clock.move(settings, NAME, NOW)
    job = build_defs(
        specs=[batches.SPEC], resources={"store": StoreResource(variables=settings.to_environment())}
    ).resolve_job_def(naming.job("rebuild", NAME))

    def execute(why: str = "the weights were wrong", **options: Any) -> dg.ExecuteInProcessResult:
        config = {"ops": {f"rebuild_keys__{NAME}": {"config": {"why": why}}}}
        return job.execute_in_process(instance=instance, run_config=config, raise_on_error=False, **options)

    return execute


def run_with(settings: Settings, instance: dg.DagsterInstance, spec: Product, first: str, last: str) -> Any:
    return running(settings, instance, spec, raw, validated, features)(first, last)


@pytest.mark.costly
def test_a_key_that_is_run_again_keeps_its_snapshot_and_a_new_key_takes_the_newest(
    settings: Settings, world: TableStore, run: Run
) -> None:
    before = world.records("features")
    deliver(settings, 3)
    run("0001", "0006")
    assert weights(world) == {"0001": 1, "0002": 1, "0003": 1, "0004": 2, "0005": 2, "0006": 3}
    after = world.records("features")
    assert {key: after[key].sequence for key in before} == {key: before[key].sequence for key in before}


@pytest.mark.costly
def test_a_repaired_key_and_those_that_look_back_on_it_keep_theirs(settings: Settings, world: TableStore, run: Run):
    deliver(settings, 3)
    batches.land(settings.root, "readings", "0003", batches.readings("0003").replace("33.0", "39.0"))
    before = world.records("features")
    run("0003", "0005")
    assert weights(world) == {"0001": 1, "0002": 1, "0003": 1, "0004": 2, "0005": 2}
    after = world.records("features")
    assert all(after[key].sequence > before[key].sequence for key in ("0003", "0004", "0005"))
    rows = world.read("features", ["0005"])
    assert rows.filter(entity="s3")["recent_mean"].item() == (39.0 + 43.0 + 53.0) / 3


@pytest.mark.costly
def test_changed_code_makes_each_key_with_its_own_snapshot(
    settings: Settings, world: TableStore, instance: dg.DagsterInstance
) -> None:
    deliver(settings, 3)

    def doubled(tables: Tables, window: Window) -> pl.DataFrame:
        return batches.features(tables, window).with_columns(pl.col("reading") * 2)

    run_with(settings, instance, replace(batches.SPEC, features=doubled), "0001", "0006")
    assert weights(world) == {"0001": 1, "0002": 1, "0003": 1, "0004": 2, "0005": 2, "0006": 3}
    assert world.read("features", ["0004"]).filter(entity="s0")["reading"].item() == 80.0


@pytest.mark.costly
def test_a_slow_table_with_other_columns_was_read_in_another_way_and_the_newest_is_taken(
    settings: Settings, world: TableStore, instance: dg.DagsterInstance
) -> None:
    def schema() -> Any:
        import pandera.polars as pa

        return batches.catalogue_schema().add_columns({"height": pa.Column(pl.Int64)})

    def heights(tables: Tables, window: Window) -> pl.DataFrame:
        built = batches.features(tables, window)
        height = tables["catalogue"].select(pl.col("sensor").alias("entity"), "height")
        return built.drop("weight").join(height, on="entity", how="left").rename({"height": "weight"})

    catalogue = replace(batches.SPEC.sources[1], schema=schema)
    sources = tuple(catalogue if source.name == "catalogue" else source for source in batches.SPEC.sources)
    tall = weighing(3).replace("weight", "weight,height").replace(",3", ",3,7")
    batches.land(settings.root, "catalogue", naming.UNPARTITIONED, tall)
    run_with(settings, instance, replace(batches.SPEC, sources=sources, features=heights), "0001", "0005")
    assert set(weights(world).values()) == {7}


@pytest.mark.costly
def test_a_slow_source_that_a_key_has_not_read_yet_is_taken_as_it_is_now(
    settings: Settings, world: TableStore, instance: dg.DagsterInstance
) -> None:
    def added(tables: Tables, window: Window) -> pl.DataFrame:
        heights = dict(tables["heights"].select("sensor", "weight").iter_rows())
        return batches.features(tables, window).with_columns(reading=pl.col("entity").replace_strict(heights) * 1.0)

    deliver(settings, 3)
    batches.land(settings.root, "heights", naming.UNPARTITIONED, weighing(9))
    source = Source(name="heights", description="Heights.", schema=batches.catalogue_schema, is_slow=True)
    spec = replace(batches.SPEC, sources=(*batches.SPEC.sources, source), features=added)
    run_with(settings, instance, spec, "0001", "0005")
    assert list(weights(world).values()) == [1, 1, 1, 2, 2]
    assert set(world.read("features", ["0001", "0005"])["reading"]) == {9.0}


@pytest.mark.costly
def test_a_rebuild_is_a_record_with_person_and_reason_and_a_request_for_all_keys(
    settings: Settings, world: TableStore, ask: Run
) -> None:
    assert ask("the weights were wrong").success
    ledgers = Ledgers(settings.root, NAME)
    number, rebuild = ledgers.of(REBUILDS).latest()
    assert (number, rebuild.by, rebuild.why) == (1, getpass.getuser(), "the weights were wrong")
    _, request = ledgers.latest(naming.REQUESTS)
    assert (request["kind"], request["first"], request["last"], request["by"]) == (
        *("advance", "0001", "0005"),
        getpass.getuser(),
    )
    assert request["why"] == "rebuild 1 with the slow tables of today: the weights were wrong"


def test_a_rebuild_without_keys_is_refused(settings: Settings, ask: Run) -> None:
    assert f"no features of {NAME} have been built yet" in problem(ask())
    assert Ledgers(settings.root, NAME).newest_number(REBUILDS.ledger) == 0


@pytest.mark.costly
def test_in_a_cluster_a_rebuild_needs_a_person(settings: Settings, world: TableStore, instance: dg.DagsterInstance):
    store = StoreResource(variables={**settings.to_environment(), "DRIFTLINE_ENV": "cluster"})
    job = build_defs(specs=[batches.SPEC], resources={"store": store}).resolve_job_def(f"rebuild__{NAME}")
    config = {"ops": {f"rebuild_keys__{NAME}": {"config": {"why": "from a shell of a pod"}}}}
    result = job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    assert f"rebuild__{NAME} needs a person" in problem(result)
    assert Ledgers(settings.root, NAME).newest_number(REBUILDS.ledger) == 0


@pytest.mark.costly
def test_a_rebuild_covers_all_keys_with_the_table_that_is_there_now(
    settings: Settings, world: TableStore, run: Run, ask: Run
) -> None:
    deliver(settings, 3)  # delivered and not taken in yet
    ask()
    run("0001", "0005")
    assert set(weights(world).values()) == {3}
    sequences = {key: record.sequence for key, record in world.records("features").items()}
    run("0001", "0005")
    assert {key: record.sequence for key, record in world.records("features").items()} == sequences


@pytest.mark.costly
def test_an_interrupted_rebuild_goes_on_with_the_snapshot_that_it_began_with(
    settings: Settings, world: TableStore, run: Run, ask: Run
) -> None:
    deliver(settings, 3)
    ask()
    run("0001", "0002")
    assert list(weights(world).values()) == [3, 3, 1, 2, 2]
    deliver(settings, 4)
    run("0003", "0004")
    run("0005", "0006")  # closes a key too
    assert weights(world) == dict.fromkeys(batches.GRAIN.span("0001", "0006"), 3)
    run("0001", "0007")
    assert weights(world) == {**dict.fromkeys(batches.GRAIN.span("0001", "0006"), 3), "0007": 4}


@pytest.mark.costly
def test_a_rebuild_is_made_in_bounded_runs_by_the_requests_that_landings_follows(
    settings: Settings, world: TableStore, run: Run, ask: Run
) -> None:
    deliver(settings, 3)
    ask()
    product, spans = ProductStore(batches.SPEC, settings), []
    while requests := key_changes.open_requests(product.history)[0]:
        work = closing.plan(batches.GRAIN, closing.Findings(newest="0005", requests=requests), 2)
        assert isinstance(work, closing.Plan)
        if work.rest is not None:
            key_changes.request(product.ledgers, work.rest, "the rest", NOW)
        spans.append((work.first, work.last))
        run(work.first, work.last)
        key_changes.answer(product, work.takes, "advanced", NOW)
    assert spans == [("0001", "0002"), ("0003", "0004"), ("0005", "0005")]
    assert set(weights(world).values()) == {3}


@pytest.mark.costly
def test_keys_closed_between_the_request_and_its_first_run_are_covered(
    settings: Settings, world: TableStore, run: Run, ask: Run
) -> None:
    ask()
    deliver(settings, 3)
    run("0006")
    run("0001", "0006")
    assert set(weights(world).values()) == {3}


@pytest.mark.costly
def test_after_a_rebuild_keys_keep_the_snapshot_of_the_rebuild(
    settings: Settings, world: TableStore, run: Run, ask: Run
) -> None:
    ask()
    run("0001", "0005")
    deliver(settings, 4)
    batches.land(settings.root, "readings", "0002", batches.readings("0002").replace("23.0", "29.0"))
    run("0001", "0006")
    assert list(weights(world).values()) == [2, 2, 2, 2, 2, 4]


@pytest.mark.costly
def test_a_second_rebuild_takes_over_from_one_that_is_not_over(
    settings: Settings, world: TableStore, run: Run, ask: Run
) -> None:
    deliver(settings, 3)
    ask()
    run("0001", "0002")
    deliver(settings, 4)
    ask("once more")
    run("0001", "0005")
    assert set(weights(world).values()) == {4}


@pytest.mark.costly
def test_status_counts_the_keys_with_older_snapshots_in_one_line(
    settings: Settings, world: TableStore, run: Run, ask: Run
) -> None:
    product = ProductStore(batches.SPEC, settings)

    def lines() -> list[str]:
        text = status.as_text(status.of_product(product))
        return [line.strip() for line in text.splitlines() if line.startswith("  snapshots ")]

    assert lines() == [
        f"snapshots  catalogue: 3 of 5 batches keep an older snapshot; rebuild__{NAME} makes them with the newest"
    ]
    deliver(settings, 3)
    ask()
    assert lines() == ["snapshots  catalogue: 3 of 5 batches keep an older snapshot; rebuild 1 has not begun"]
    run("0001", "0002")
    assert lines() == ["snapshots  catalogue: 3 of 5 batches keep an older snapshot; rebuild 1 has 3 batches to make"]
    run("0003", "0005")
    assert lines() == []


@pytest.mark.costly
def test_a_lineage_names_the_snapshot_and_its_file(settings: Settings, world: TableStore) -> None:
    product = ProductStore(batches.SPEC, settings)
    slow = {
        key: next(source for source in traced(product, key).sources if source.source == "catalogue")
        for key in ("0001", "0005")
    }
    assert slow["0001"].validated != slow["0005"].validated
    assert slow["0001"].file.sha256 != slow["0005"].file.sha256
    assert product.artifacts.get(slow["0001"].file.sha256) == weighing(1).encode()


@pytest.mark.costly
def test_the_rows_left_without_a_source_are_counted_with_the_key_s_snapshot(
    settings: Settings, world: TableStore, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(settings, 3)
    run("0006")
    counted = []

    def spy(tables: Tables, window: Window) -> pl.DataFrame:
        counted.append(tables["catalogue"]["weight"].unique().to_list())
        return batches.features(tables, window)

    spec = replace(batches.SPEC, features=spy)
    records = FaultRecords(Judging.for_product(spec), ProductStore(spec, settings), ("0001", "0006"))
    broken = FailedCheck(source="readings", check="volume", column=None, came="2", expected="6", digest="d")
    for key in ("0001", "0006"):
        assert records._choice(key, [broken]) == (None, "without readings there are no rows")
    assert counted == [[1], [3]]


def lose(settings: Settings, tables: TableStore, number: int) -> None:
    for record in tables.versions(TABLE, naming.UNPARTITIONED):
        if tables.read_record(record, ["weight"])["weight"][0] == number:
            for file in record.files:
                Path(settings.root, "tables", NAME, TABLE, file).unlink()
            return
    raise AssertionError(f"no snapshot with weight {number}")


@pytest.mark.costly
def test_maintenance_keeps_every_snapshot(settings: Settings, world: TableStore, run: Run) -> None:
    deliver(settings, 3)
    run("0006")
    upkeep.tidy(settings.root, NAME, dry_run=False, retention_hours=0)
    batches.land(settings.root, "readings", "0001", batches.readings("0001").replace("13.0", "19.0"))
    run("0001", "0006")
    assert list(weights(world).values()) == [1, 1, 1, 2, 2, 3]


@pytest.mark.costly
def test_lost_files_of_a_snapshot_stop_only_a_key_that_must_be_made_again_and_name_the_cure(
    settings: Settings, world: TableStore, run: Run, ask: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(settings.root, NAME, is_repairing=False) == 0
    lose(settings, world, 1)
    assert run("0001", "0005").success
    capsys.readouterr()
    assert doctor.run(settings.root, NAME, is_repairing=False) == 1
    printed = capsys.readouterr().out
    assert (
        f"- {TABLE}: the snapshot that the features of keys 0001, 0002, 0003 were built with cannot be read." in printed
    )
    batches.land(settings.root, "readings", "0002", batches.readings("0002").replace("23.0", "29.0"))
    message = problem(run("0002", "0005", raise_on_error=False))
    assert (
        f"{NAME}/{TABLE}: the snapshot that the features of keys 0002, 0003 were built with cannot be read" in message
    )
    assert f"Put its files back from a backup, or launch rebuild__{NAME}" in message
    ask("its files are gone")
    assert run("0001", "0005").success
    assert set(weights(world).values()) == {2}
    assert doctor.run(settings.root, NAME, is_repairing=False) == 0


@pytest.mark.costly
def test_a_snapshot_without_a_record_is_not_replaced_in_silence(
    settings: Settings, world: TableStore, run: Run, ask: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TableStore.versions
    monkeypatch.setattr(TableStore, "versions", lambda *args: whole(*args)[:1])
    assert run("0001", "0005").success
    assert list(weights(world).values()) == [1, 1, 1, 2, 2]
    batches.land(settings.root, "readings", "0001", batches.readings("0001").replace("13.0", "19.0"))
    assert "were built with is not on record" in problem(run("0001", "0002", raise_on_error=False))
    ask("its record is gone")
    assert run("0001", "0005").success
    assert set(weights(world).values()) == {2}


def test_a_product_without_a_slow_table_is_built(settings: Settings, instance: dg.DagsterInstance) -> None:
    def features(tables: Tables, window: Window) -> pl.DataFrame:
        catalogue = pl.DataFrame({"sensor": ["s0"], "weight": [1]})
        return batches.features({**tables, "catalogue": catalogue}, window)

    sources = tuple(source for source in batches.SPEC.sources if not source.is_slow)
    spec = replace(batches.SPEC, sources=sources, features=features)
    batches.land_all(settings.root, "0001", "0002", labels_until="0002")
    assert run_with(settings, instance, spec, "0001", "0002").success
