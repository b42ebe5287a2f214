"""`raw` takes a file in when it is complete by its source's rule, also when a person materialises it."""

from __future__ import annotations

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

from platform_assets import clock, naming
from platform_assets.handle import Product
from platform_assets.intake import arrivals
from platform_assets.product.landing import LandedFiles
from platform_assets.settings import Settings
from platform_assets.stages import raw
from platform_assets.storage.artifacts import sha256
from platform_assets.storage.objects import open_store
from platform_assets.storage.records import PartitionRecord
from platform_assets.storage.tables import TableStore
from resources.store import StoreResource
from tests.doubles import recorded

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
    clock.move(settings, "recorded", datetime(2020, 1, 1, 20, tzinfo=UTC))

    def execute(*, tags: dict[str, str] | None = None, **changes: Any) -> Any:
        source = replace(recorded.SPEC.source("readings"), **changes)
        others = [item for item in recorded.SPEC.sources if item.name != "readings"]
        spec = replace(recorded.SPEC, sources=(source, *others))
        asset = next(item for item in raw.build(spec) if item.key.path[-1] == "raw_readings")
        return dg.materialize(
            [asset],
            instance=instance,
            partition_key=KEY,
            resources={"store": StoreResource(variables=settings.to_environment())},
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


def test_a_recordings_file_is_taken_immediately(
    settings: Settings, tables: TableStore, take: Take, sleeps: list[float]
) -> None:
    put(settings.root, LINES)
    assert take().success
    assert (sleeps, tables.records("raw_readings")[KEY].rows) == ([], 13)


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
    """Return the list of landed files that are read."""
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
    settings: Settings, take: Take, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "SAMPLED", 2**256)
    put(settings.root, LINES)
    assert take().success
    assert reads == [f"{KEY}.csv"]
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
        intake = arrivals.Intake(context, Product(recorded.SPEC, settings), recorded.SPEC.source("readings"), "c")
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
