"""A key is judged once; a broken one is held, and repaired, accepted, nulled or dropped with a record."""

import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.data import features, outcomes, raw, validated
from platform_assets.engine.store_resource import StoreResource
from platform_assets.evaluation.releases import next_release
from platform_assets.monitoring import drift
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore, canonical
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from platform_assets.training.histograms import histograms
from platform_assets.training.learn import learn
from platform_assets.training.matrix import inputs_of
from platform_assets.training.reference import Reference, reference_of
from tests.doubles import deciding, documents, histories, watched_runs
from tests.doubles import watched_batches as watched
from tests.doubles.built import built
from tests.volume import some

pytestmark = pytest.mark.slow

Run = Callable[..., dg.ExecuteInProcessResult]
SPEC = watched.SPEC
BROKEN = "0006"
WRITES = range(2, 9)
"""Writes of a run's judgement; the two before them are the features' rows and records."""


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, SPEC.name)


@pytest.fixture
def ledgers(settings: Settings) -> Ledgers:
    return Ledgers(settings.root, SPEC.name)


@pytest.fixture(scope="module")
def job() -> dg.JobDefinition:
    assets = built(SPEC, raw, validated, outcomes, features, drift)
    defs = dg.Definitions(
        assets=assets, resources={"driftline_store": StoreResource()}, executor=dg.in_process_executor
    )
    return defs.resolve_implicit_global_asset_job_def()


@pytest.fixture(scope="module")
def run_on(job: dg.JobDefinition, instance: dg.DagsterInstance) -> Run:
    def execute(variables: dict[str, str], first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=instance,
            resources={"driftline_store": StoreResource(variables=variables)},
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
        )

    return execute


@pytest.fixture
def run(settings: Settings, run_on: Run) -> Run:
    def execute(first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        return run_on(settings.to_environment(), first, last)

    return execute


def judgement_of(tables: TableStore, key: str) -> PartitionRecord:
    return tables.records("drift", [key])[key]


def ledger(ledgers: Ledgers, key: str) -> list[dict[str, Any]]:
    return [record for _, record in ledgers.records(f"faults/{key}")]


def kinds(ledgers: Ledgers, key: str) -> list[str]:
    return [record["kind"] for record in ledger(ledgers, key)]


def requests(ledgers: Ledgers) -> list[tuple[str, str]]:
    return [(record["first"], record["last"]) for _, record in ledgers.records(naming.REQUESTS)]


def advance(settings: Settings, run: Run, first: str, last: str) -> None:
    """Land and run key by key, labels when they arrive, as the landings sensor does."""
    for key in watched.GRAIN.span(first, last):
        watched.land(settings.root, "readings", key)
        watched.land(settings.root, "air", key)
        index = watched.GRAIN.index(key) - SPEC.label_delay
        if index >= 0:
            watched.land(settings.root, "verdicts", watched.GRAIN.key_at(index))
        run(watched.GRAIN.key_at(max(index, 0)), key)


@pytest.fixture(scope="module")
def stored(run_on: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the store of sound keys up to one, judged; or with that key's air frozen. Made once, for tests to copy."""

    @cache
    def store(last: str, *, is_frozen: bool = False) -> Path:
        folder = tmp_path_factory.mktemp(f"judged_{last}")
        settings = Settings(root=str(folder / "store"), state=folder / "state")
        watched.land_all(settings.root, "0001", last)
        if is_frozen:
            watched.land(settings.root, "air", last, watched.frozen_air(last))
        run_on(settings.to_environment(), "0001", last)
        return Path(settings.root)

    return store


@pytest.fixture
def judge_to(settings: Settings, stored: Callable[..., Path]) -> Callable[[str], None]:
    """Put sound keys, landed and judged up to one, into this test's store."""
    return lambda last: shutil.copytree(stored(last), settings.root, dirs_exist_ok=True)


@pytest.fixture
def frozen(settings: Settings, stored: Callable[..., Path]) -> None:
    """Put sound keys and `BROKEN`, whose air is frozen, into this test's store, judged."""
    shutil.copytree(stored(BROKEN, is_frozen=True), settings.root, dirs_exist_ok=True)


@pytest.mark.costly
def test_sound_keys_are_fine_and_have_no_index_without_a_model(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run
) -> None:
    watched.land_all(settings.root, "0001", "0010")
    result = run("0001", "0010")
    for record in tables.records("drift").values():
        assert (record.notes["verdict"], record.notes["is_faulty"], record.notes["index"]) == ("fine", False, None)
        assert record.notes["primary"] is record.notes["reference"] is record.notes["bins"] is None
    rows = tables.read("drift", ["0010"])
    assert set(rows["check"]) >= {"frozen_columns", "volume", "overlap", "repeated_rows", "quarantined_share"}
    assert not rows["is_failing"].any()
    assert ledgers.newest_number("faults/0005") == 0
    assert all(item.passed for item in result.get_asset_check_evaluations() if item.check_name == "no_faults")


@pytest.mark.costly
@pytest.mark.usefixtures("frozen")
def test_a_frozen_source_holds_its_key_and_is_named(settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run):
    notes = judgement_of(tables, BROKEN).notes
    assert (notes["verdict"], notes["is_faulty"], notes["faults"]) == ("alert_fault", True, 1)
    assert (notes["primary"]["source"], notes["primary"]["check"]) == ("air", "frozen_columns")
    assert "temperature has 1 distinct value (usually 12 or more)" in notes["primary"]["came"]
    (record,) = ledger(ledgers, BROKEN)
    assert (record["kind"], record["source"], record["check"]) == ("fault", "air", "frozen_columns")
    assert (record["episode"], record["labels_are_broken"], record["column"]) == (BROKEN, False, None)
    assert histories.of(ledgers).holds([BROKEN])[BROKEN].is_held


@pytest.mark.costly
@pytest.mark.parametrize("damage", [None, b"", b"no gzip"])
def test_a_lost_sketch_is_reported_and_recomputed(
    settings: Settings,
    tables: TableStore,
    ledgers: Ledgers,
    run: Run,
    judge_to: Callable[[str], None],
    damage: bytes | None,
) -> None:
    judge_to("0005")
    watched.land_all(settings.root, "0006", "0006")
    before = judgement_of(tables, "0004")
    path = Path(settings.root, naming.blob_path(before.notes["sketch"]) + ".gz")
    data = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(ArtifactProblem, match=r"the sketch of \w+ 0004 cannot be read: .* Materialise drift for"):
        run("0006")
    run("0004")
    assert path.read_bytes() == data
    assert judgement_of(tables, "0004").content_digest == before.content_digest
    run("0006")
    assert not judgement_of(tables, "0006").notes["is_faulty"]


@pytest.mark.usefixtures("frozen")
def test_late_labels_are_judged_when_they_land_and_add_no_second_fault(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run
) -> None:
    first = judgement_of(tables, BROKEN)
    watched.land(settings.root, "verdicts", BROKEN)
    run(BROKEN)
    assert judgement_of(tables, BROKEN).inputs != first.inputs
    assert judgement_of(tables, BROKEN).notes["primary"] == first.notes["primary"]
    assert kinds(ledgers, BROKEN) == ["fault"]


@pytest.mark.usefixtures("frozen")
def test_contiguous_keys_with_one_fault_are_one_episode(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run
) -> None:
    for source in ("readings", "air"):
        watched.land(settings.root, source, "0007")
    watched.land(settings.root, "air", "0007", watched.frozen_air("0007"))
    run("0007")
    assert ledger(ledgers, "0007")[0]["episode"] == BROKEN


@pytest.mark.costly
@pytest.mark.usefixtures("frozen")
def test_later_keys_are_not_compared_with_a_held_key(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run
) -> None:
    """If the frozen key were in the record, its single values would make any freeze look usual."""
    watched.land_all(settings.root, "0007", "0008")
    watched.land(settings.root, "air", "0008", watched.frozen_air("0008"))
    run("0007", "0008")
    assert judgement_of(tables, "0007").notes["verdict"] == "fine"
    assert judgement_of(tables, "0008").notes["primary"]["check"] == "frozen_columns"


@pytest.mark.costly
@pytest.mark.usefixtures("frozen")
def test_a_sound_new_delivery_is_recorded_as_repaired(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run
) -> None:
    ledgers.append(f"faults/{BROKEN}", documents.fault("repair", BROKEN))
    watched.land(settings.root, "air", BROKEN)
    run(BROKEN)
    assert kinds(ledgers, BROKEN) == ["fault", "repair", "repaired"]
    notes = judgement_of(tables, BROKEN).notes
    assert (notes["verdict"], notes["is_faulty"], notes["was_faulty"]) == ("fine", False, True)
    assert not histories.of(ledgers).holds([BROKEN])[BROKEN].is_held
    run(BROKEN)
    assert kinds(ledgers, BROKEN) == ["fault", "repair", "repaired"]


@pytest.mark.usefixtures("frozen")
def test_a_broken_new_delivery_is_a_fault_again(settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run):
    ledgers.append(f"faults/{BROKEN}", documents.fault("repair", BROKEN))
    run(BROKEN)
    run(BROKEN)
    assert kinds(ledgers, BROKEN) == ["fault", "repair", "fault"]


@pytest.mark.costly
@pytest.mark.usefixtures("frozen")
def test_an_accepted_key_stays_accepted_when_labels_arrive(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run
) -> None:
    ledgers.append(f"faults/{BROKEN}", documents.fault("accept", BROKEN))
    watched.land(settings.root, "verdicts", BROKEN)
    run(BROKEN)
    assert kinds(ledgers, BROKEN) == ["fault", "accept"]
    watched.land(settings.root, "readings", BROKEN, watched.frame("readings", BROKEN).head(5))
    run(BROKEN)
    assert kinds(ledgers, BROKEN) == ["fault", "accept", "fault"]


def usable_keys(settings: Settings, tables: TableStore) -> int:
    """Return the number of labelled keys that a model trained after 0009 could use."""
    judgement_of = tables.records("drift", ["0009"])["0009"]
    now = datetime(2024, 1, 3, tzinfo=UTC)
    return deciding.facts(ProductStore(watched.SPEC, settings), "0009").at("0009", judgement_of, now=now).usable_keys


@pytest.mark.costly
@pytest.mark.usefixtures("frozen")
def test_after_waiting_the_source_is_nulled_and_features_are_built_without_it(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run
) -> None:
    advance(settings, run, "0007", "0007")
    assert kinds(ledgers, BROKEN) == ["fault"]
    assert tables.read("features", [BROKEN])["temperature"].null_count() == 0
    advance(settings, run, "0008", "0009")
    assert kinds(ledgers, BROKEN) == ["fault", "null"]
    record = ledger(ledgers, BROKEN)[-1]
    assert (record["source"], record["fault"], record["by"]) == ("air", 1, "drift")
    assert "nobody reacted within 2 keys" in record["why"]
    assert requests(ledgers) == [(BROKEN, "0007")]
    assert BROKEN in histories.of(ledgers).excluded([BROKEN])
    before = usable_keys(settings, tables)
    run(BROKEN, "0007")
    assert usable_keys(settings, tables) == before, "the training waits for it, so its build time does not matter"
    rows = tables.read("features", [BROKEN])
    assert rows.height == watched.SENSORS and rows["temperature"].null_count() == watched.SENSORS
    run(BROKEN, "0009")
    assert kinds(ledgers, BROKEN) == ["fault", "null"]
    assert requests(ledgers) == [(BROKEN, "0007")]
    assert not histories.of(ledgers).holds([BROKEN])[BROKEN].is_excluded


@pytest.mark.costly
def test_a_source_that_names_the_entities_cannot_be_left_out(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run
) -> None:
    watched.land_all(settings.root, "0001", BROKEN)
    watched.land(settings.root, "readings", BROKEN, watched.frame("readings", BROKEN).head(5))
    run("0001", BROKEN)
    watched.land_all(settings.root, "0007", "0008")
    run("0007", "0008")
    assert ledger(ledgers, BROKEN)[0]["check"] == "volume"
    assert kinds(ledgers, BROKEN) == ["fault", "drop"]
    assert "without readings there are no rows" in ledger(ledgers, BROKEN)[-1]["why"]
    assert requests(ledgers) == []


@pytest.mark.costly
def test_broken_labels_drop_the_key(settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run) -> None:
    watched.land_all(settings.root, "0001", "0008")
    twice = watched.frame("verdicts", BROKEN)
    watched.land(settings.root, "verdicts", BROKEN, pl.concat([twice, twice]))
    run("0001", "0008")
    notes = judgement_of(tables, BROKEN).notes
    assert (notes["primary"]["source"], notes["primary"]["check"]) == ("verdicts", "repeated_rows")
    fault = ledger(ledgers, BROKEN)[0]
    assert fault["labels_are_broken"] and {item["check"] for item in fault["checks"]} == {"repeated_rows", "volume"}
    advance(settings, run, "0009", "0010")
    assert kinds(ledgers, BROKEN) == ["fault", "drop"]
    assert "labels are broken" in ledger(ledgers, BROKEN)[-1]["why"]
    assert histories.of(ledgers).holds([BROKEN])[BROKEN].is_excluded


@pytest.mark.costly
@pytest.mark.usefixtures("frozen")
def test_a_run_killed_before_any_write_and_repeated_leaves_one_fault_one_null_and_one_request(
    settings: Settings, run: Run, run_on: Run, tmp_path: Path
) -> None:
    """The last run of this history finds one fault (0008) and nulls the source of another (0006)."""
    watched.land_all(settings.root, "0007", "0008")
    watched.land(settings.root, "air", "0008", watched.frozen_air("0008"))
    assets = built(SPEC, raw, validated)
    dg.materialize(
        assets,
        resources={"driftline_store": StoreResource(variables=settings.to_environment())},
        tags={"dagster/asset_partition_range_start": "0007", "dagster/asset_partition_range_end": "0008"},
    )
    for number in (*some(WRITES), WRITES.stop):
        root = tmp_path / f"killed_{number}"
        shutil.copytree(settings.root, root)
        variables = {**settings.to_environment(), "DRIFTLINE_ROOT": str(root)}
        ended = watched_runs.judge(variables, "0007", "0008", die_before=number)
        assert ended == (-signal.SIGKILL if number in WRITES else 0), f"killed at {number}"
        run_on(variables, "0007", "0008")
        book = Ledgers(str(root), SPEC.name)
        assert (kinds(book, BROKEN), kinds(book, "0008")) == (["fault", "null"], ["fault"]), f"killed at {number}"
        assert requests(book) == [(BROKEN, "0007")], f"killed at {number}"
        assert TableStore(str(root), SPEC.name).records("drift", ["0008"])["0008"].notes["is_faulty"]


def release(settings: Settings, tables: TableStore, ledgers: Ledgers, keys: tuple[str, ...]) -> Reference:
    """Seal a bundle with the inputs of drift, learned from these keys, and make it live."""
    rows = tables.read("features", keys)
    learned = learn(inputs_of(rows, SPEC.fields), SPEC.fields)
    reference = reference_of({key: histograms(rows.filter(pl.col("key") == key), learned) for key in keys})
    blobs = {"learned.json": canonical(learned.to_json()), "reference.json": canonical(reference.to_json())}
    digest = ArtifactStore(settings.root).write_bundle(blobs, {"cutoff": keys[-1]})
    at = watched.moment(keys[-1])
    release = {"product": SPEC.name, "contract_sha256": "c" * 64, "reason": "", "author": "a test", "previous": None}
    ledgers.append(naming.RELEASES, next_release(digest=digest, cutoff=keys[-1], at=at, **release).document())
    return reference


@pytest.mark.costly
def test_with_a_live_model_keys_are_ranked_among_its_training_windows(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run, judge_to: Callable[[str], None]
) -> None:
    judge_to("0012")
    reference = release(settings, tables, ledgers, watched.GRAIN.span("0001", "0012"))
    watched.land_all(settings.root, "0013", "0014")
    for key in ("0015", "0016"):
        shifted = watched.frame("readings", key).with_columns(pl.col("reading") + 5)
        watched.land(settings.root, "readings", key, shifted)
        watched.land(settings.root, "air", key)
    run("0013", "0016")
    record = judgement_of(tables, "0014")
    assert record.notes["index"]["keys"] == ["0013", "0014"]
    assert (record.notes["index"]["windows"], record.notes["verdict"]) == (11, "fine")
    drifted = judgement_of(tables, "0016").notes
    assert (drifted["verdict"], drifted["index"]["percentile"]) == ("drift", 1.0)
    assert drifted["index"]["mean_psi"] > drifted["index"]["limit"]
    rows = tables.read("drift", ["0016"]).filter(pl.col("check") == "psi")
    assert rows["column"].to_list()[0] == "reading" and set(rows["column"]) == set(reference.fields)
    assert rows["psi"].mean() == pytest.approx(drifted["index"]["mean_psi"])
    assert judgement_of(tables, "0012").notes["index"] is None, "a judgement remains until its own data change"


@pytest.mark.costly
def test_late_labels_keep_the_model_that_a_key_was_judged_against(
    settings: Settings, tables: TableStore, ledgers: Ledgers, run: Run, judge_to: Callable[[str], None]
) -> None:
    judge_to("0012")
    release(settings, tables, ledgers, watched.GRAIN.span("0001", "0010"))
    watched.land_all(settings.root, "0013", "0014")
    run("0013", "0014")
    before = judgement_of(tables, "0014")
    release(settings, tables, ledgers, watched.GRAIN.span("0001", "0012"))
    watched.land(settings.root, "verdicts", "0014")
    run("0014")
    assert judgement_of(tables, "0014").sequence > before.sequence
    assert judgement_of(tables, "0014").notes["reference"] == before.notes["reference"]
    assert judgement_of(tables, "0014").notes["index"] == before.notes["index"]
