"""`raw` takes a file in when it is complete by its source's rule, also when a person materialises it."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import obstore
import pytest

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.data import arrivals, raw
from platform_assets.engine.store_resource import StoreResource
from platform_assets.store import landing
from platform_assets.store.artifacts import sha256
from platform_assets.store.landing import LandedFiles
from platform_assets.store.objects import open_store
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import instances, recorded
from tests.doubles.built import built

pytestmark = pytest.mark.slow

KEY = "2020-01-01"
LINES = recorded.deliver("readings", KEY)
assert LINES is not None
HALF = b"".join(LINES.splitlines(keepends=True)[:5])
Take = Callable[..., dg.ExecuteInProcessResult]


def put(root: str, data: bytes, companion: str = "") -> None:
    path = naming.landing_location("", "recorded/readings", KEY, f".csv{companion}").lstrip("/")
    obstore.put(open_store(root), path, data)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the durations of sleeps, without sleeping."""
    pauses: list[float] = []
    monkeypatch.setattr(arrivals.time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def take(settings: Settings, instance: dg.DagsterInstance) -> Take:
    """Return a function that materialises the readings of the key, from a source with these arrival settings."""
    clock.move(settings, "recorded", datetime(2020, 1, 2, tzinfo=UTC))

    def execute(
        *, tags: dict[str, str] | None = None, remembering: dg.DagsterInstance | None = None, **changes: Any
    ) -> Any:
        source = replace(recorded.SPEC.source("readings"), **changes)
        others = [item for item in recorded.SPEC.sources if item.name != "readings"]
        spec = replace(recorded.SPEC, sources=(source, *others))
        asset = next(item for item in built(spec, raw) if item.key.path[-1] == "raw_readings")
        return dg.materialize(
            [asset],
            instance=remembering or instance,
            partition_key=KEY,
            resources={"driftline_store": StoreResource(variables=settings.to_environment())},
            tags=tags,
            raise_on_error=False,
        )

    return execute


def messages(result: dg.ExecuteInProcessResult) -> str:
    data = result.failure_data_for_node("recorded__raw_readings")
    assert data is not None and data.user_failure_data is not None
    return str(data.user_failure_data.description)


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, "recorded")


def test_a_manual_run_waits_for_a_second_look_and_a_growing_file_is_checked_again(
    settings: Settings, tables: TableStore, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            put(settings.root, LINES)

    monkeypatch.setattr(arrivals.time, "sleep", sleep)
    put(settings.root, HALF)
    assert take(arrives="settled").success
    assert [round(seconds) for seconds in slept] == [30, 30]
    assert tables.records("raw_readings")[KEY].rows == 13


def test_a_file_that_changes_in_each_look_is_left_for_later(
    settings: Settings, tables: TableStore, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        put(settings.root, HALF + b"x" * len(slept))

    monkeypatch.setattr(arrivals.time, "sleep", sleep)
    put(settings.root, HALF)
    assert f"{KEY}.csv changed in each of 3 looks, 0:00:30 apart. Deliver it, then materialise raw_readings" in (
        messages(take(arrives="settled"))
    )
    assert tables.records("raw_readings") == {}


def test_a_file_that_a_sensor_saw_settled_is_taken_immediately_unless_it_changed(
    settings: Settings, take: Take, sleeps: list[float]
) -> None:
    put(settings.root, LINES)
    mark = LandedFiles(root=settings.root, folder="recorded/readings", suffix=".csv").probe(KEY)
    assert mark is not None
    name = arrivals.settled_name("readings", KEY, mark)
    assert take(arrives="settled", tags={naming.TAG_SETTLED: f"00000000 {name}"}).success
    assert sleeps == []
    put(settings.root, LINES + LINES.splitlines(keepends=True)[-1])
    assert take(arrives="settled", tags={naming.TAG_SETTLED: name}).success
    assert len(sleeps) == 1


def test_a_bucket_shows_only_complete_files() -> None:
    source = replace(recorded.SPEC.source("readings"), arrives="settled")
    assert arrivals.arrival_kind(recorded.SPEC, source, "s3://bucket/store") == "rename"
    assert arrivals.arrival_kind(recorded.SPEC, source, "/store") == "settled"


def test_a_file_without_its_marker_is_named(settings: Settings, take: Take) -> None:
    put(settings.root, LINES)
    assert f"{KEY}.csv is there, and its marker {KEY}.csv.done is not. Deliver it" in messages(take(arrives="marker"))
    put(settings.root, b"", ".done")
    assert take(arrives="marker").success


def test_a_manifest_is_compared_with_the_bytes_taken_in(settings: Settings, take: Take) -> None:
    put(settings.root, HALF)
    assert f"its manifest {KEY}.csv.manifest.json is not" in messages(take(arrives="manifest"))
    put(settings.root, json.dumps({"rows": 13, "sha256": sha256(LINES).upper(), "by": "us"}).encode(), ".manifest.json")
    expected = (
        f"has the sha256 {sha256(HALF)[:12]} in {len(HALF)} bytes; its manifest says {sha256(LINES)[:12].upper()}"
    )
    assert expected in messages(take(arrives="manifest"))
    put(settings.root, LINES)
    assert take(arrives="manifest").success


def test_an_incomplete_file_at_its_deadline_is_a_gap_with_its_reason(
    settings: Settings, tables: TableStore, take: Take
) -> None:
    put(settings.root, HALF)
    put(settings.root, json.dumps({"rows": 13, "sha256": sha256(LINES)}).encode(), ".manifest.json")
    clock.move(settings, "recorded", datetime(2020, 1, 3, tzinfo=UTC))
    assert take(arrives="manifest").success
    record = tables.records("raw_readings")[KEY]
    assert (record.rows, record.notes["is_missing"]) == (0, True)
    assert record.notes["why"].startswith("has the sha256 ")
    put(settings.root, LINES)
    assert take(arrives="manifest").success
    assert tables.records("raw_readings")[KEY].rows == 13, "a file completed later is taken in"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pauses: list[str] = []
    real = LandedFiles.fetch

    def landed(files: LandedFiles, key: str, companion: str = "") -> Any:
        pauses.append(f"{key}{files.suffix}{companion}")
        return real(files, key, companion)

    monkeypatch.setattr(LandedFiles, "fetch", landed)
    return pauses


def rewrite_unseen(settings: Settings, data: bytes) -> None:
    """Replace the landed file's bytes, leaving its inode, size and time as they were."""
    path = Path(naming.landing_location(settings.root, "recorded/readings", KEY, ".csv"))
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_was_taken_in_is_not_read_again(
    settings: Settings, take: Take, reads: list[str], sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "SAMPLED", 2**256)
    put(settings.root, LINES)
    assert take().success
    assert (reads, sleeps) == ([f"{KEY}.csv"], []), "a recording's file is taken at once"
    second = take()
    assert reads == [f"{KEY}.csv"]
    (event,) = second.asset_materializations_for_node("recorded__raw_readings")
    assert event.metadata["is_memoised"].value is True
    put(settings.root, LINES)
    assert take().success
    assert len(reads) == 2, "another file is read, whatever its content"


@pytest.mark.parametrize(("tags", "sampled"), [({naming.TAG_REQUESTED: f"2020-01-09 {KEY}"}, 2**256), (None, 1)])
def test_changed_bytes_with_an_unchanged_mark_are_found_and_reported(
    settings: Settings,
    tables: TableStore,
    take: Take,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tags: dict[str, str] | None,
    sampled: int,
) -> None:
    monkeypatch.setattr(arrivals, "SAMPLED", 2**256)
    put(settings.root, LINES)
    assert take().success
    before = tables.records("raw_readings")[KEY]
    other = LINES.replace(b",102,", b",999,")
    rewrite_unseen(settings, other)
    assert take().success
    assert tables.records("raw_readings")[KEY] == before, "its bytes were not examined"
    monkeypatch.setattr(arrivals, "SAMPLED", sampled)
    assert take(tags=tags).success
    assert tables.records("raw_readings")[KEY].inputs == {"file": sha256(other)}
    assert f"{KEY}.csv has changed since it was taken in (sha256 {sha256(LINES)[:12]} then" in capfd.readouterr().err


def test_the_sample_is_one_in_64_and_differs_per_range(settings: Settings) -> None:
    keys = [f"{number:04d}" for number in range(2_000)]

    def sample(last: str) -> set[str]:
        context: Any = SimpleNamespace(run=SimpleNamespace(tags={arrivals.RANGE_END: last}), log=None)
        intake = arrivals.Intake(context, ProductStore(recorded.SPEC, settings), recorded.SPEC.source("readings"), "c")
        intake._looks = dict.fromkeys(keys, ("m", 0.0))
        record_fields: Any = {
            "inputs": {"file": "f"},
            "notes": {"mark": "m"},
            "code_digest": "c",
            "content_digest": "d",
        }
        records = [PartitionRecord(stage="raw", key=key, sequence=1, rows=1, **record_fields) for key in keys]
        return {record.key for record in records if intake.recorded_digest(record.key, record) is None}

    first, second = sample("a"), sample("b")
    assert 10 <= len(first) <= 60 and first != second
    assert first == sample("a")


def test_an_unknown_value_of_arrives_is_refused() -> None:
    source = recorded.SPEC.source("readings")
    with pytest.raises(ValueError, match="arrives='moved'; expected one of rename, marker, manifest, settled"):
        replace(source, arrives="moved")
    with pytest.raises(ValueError, match="settle=0:00:00; expected more than 0"):
        replace(source, settle=timedelta(0))
    live = replace(recorded.SPEC, is_live=True, history=None)
    assert (recorded.SPEC.arrives(source), live.arrives(source)) == ("rename", "settled")
    assert live.arrives(replace(source, arrives="marker")) == "marker"


def test_a_run_by_hand_is_refused_while_the_period_runs_with_the_moment_from_which_it_may(
    settings: Settings, tables: TableStore, instance: dg.DagsterInstance
) -> None:
    clock.move(settings, "recorded", datetime(2020, 1, 2, 23, 59, tzinfo=UTC))
    store = StoreResource(variables=settings.to_environment())
    for source in ("plans", "readings", "results"):
        for key in (KEY, "2020-01-02"):
            data = recorded.deliver(source, key)
            assert data is not None
            path = naming.landing_location("", f"recorded/{source}", key, ".csv").lstrip("/")
            obstore.put(open_store(settings.root), path, data)
    early = tuple(replace(source, is_early=source.name == "plans") for source in recorded.SPEC.sources)
    for asset in built(replace(recorded.SPEC, sources=early), raw):
        name = asset.key.path[-1]
        if name == "raw_sites":
            continue
        result = dg.materialize(
            [asset],
            instance=instance,
            resources={"driftline_store": store},
            tags={
                "dagster/asset_partition_range_start": KEY,
                "dagster/asset_partition_range_end": "2020-01-02",
            },
            raise_on_error=False,
        )
        assert result.success == (name == "raw_plans"), name
        if not result.success:
            data = result.failure_data_for_node(f"recorded__{name}")
            assert data is not None and data.user_failure_data is not None
            message = str(data.user_failure_data.description)
            assert "of 2020-01-02 may be taken in from 2020-01-03T00:00:00+00:00 on, and it is 2020-01-02T23:5" in (
                message
            )
            assert tables.records(name) == {}, "nothing of the range is taken in"


def test_a_pipe_in_a_files_place_hangs_no_run_and_is_named(settings: Settings, take: Take) -> None:
    path = Path(naming.landing_location(settings.root, "recorded/readings", KEY, ".csv"))
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert "is a pipe, a folder or a device; expected a file" in messages(take())
    assert "is a pipe, a folder or a device; expected a file" in messages(take(arrives="settled"))
    path.unlink()
    put(settings.root, LINES)
    os.mkfifo(path.with_name(f"{KEY}.csv.done"))
    assert "its marker 2020-01-01.csv.done is not" in messages(take(arrives="marker"))
    os.mkfifo(path.with_name(f"{KEY}.csv.manifest.json"))
    assert "its manifest 2020-01-01.csv.manifest.json is not" in messages(take(arrives="manifest"))


def test_a_run_reports_the_file_that_it_takes_in_before_a_sensor_has_looked(settings: Settings, take: Take) -> None:
    with instances.ephemeral() as instance:
        put(settings.root, LINES)
        for _ in range(2):
            assert take(remembering=instance).success
        records = instance.fetch_materializations(dg.AssetKey(["recorded", "landing_readings"]), limit=9).records
        channel = landing.channels(recorded.SPEC, settings.root)["readings"]
        reported = [(record.partition_key, record.asset_materialization.tags) for record in records]  # type: ignore[union-attr]
        assert reported == [(KEY, {"dagster/data_version": channel.probe(KEY)})]
        assert records[0].run_id == "", "an event without a run: the run makes the rows, not the file"
