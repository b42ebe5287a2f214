"""Logged answers become predictions exactly once, despite kills, repetitions, rotation and concurrent writers."""

import json
import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.prediction_log import parsing, prediction_log, predictions, predictions_maker
from platform_assets.prediction_log.predictions_maker import Ingesting
from platform_assets.store import delta
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import TableStore
from tests.doubles import numbered_batches as batches
from tests.doubles import recorded
from tests.doubles.advancing import advancing, metadata_of
from tests.doubles.runs import die_at_write

pytestmark = pytest.mark.slow

SPEC = recorded.SPEC
STAGE = predictions.STAGE
MIDNIGHT = datetime(2020, 1, 5, tzinfo=UTC)
Ingest = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def tables(settings: Settings) -> TableStore:
    return TableStore(settings.root, SPEC.name)


@pytest.fixture
def log(settings: Settings) -> Path:
    folder = settings.prediction_log / SPEC.name
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def ingest(settings: Settings, instance: dg.DagsterInstance) -> Ingest:
    return advancing(settings, instance, SPEC, STAGE)


def line(number: int, *, day: int = 0, **changes: Any) -> bytes:
    """Return a record as `serving.answer.predict` writes it, for the service hour `number` modulo 24."""
    service_time = MIDNIGHT + timedelta(days=day, hours=number % 24)
    record = {
        "prediction_id": f"p{day}-{number:04d}",
        "digest": "a" * 64,
        "release": 1,
        "entity": f"job-{day}-{number}",
        "service_time": text(service_time),
        "asked_at": text(service_time - timedelta(hours=1)),
        "idempotency_key": None,
        "probability": (number % 99 + 0.5) / 100,
        "answered_at_utc": text(service_time),
        "latency_us": 900,
        "features": {"site": "north", "size": 3, "value": None if number % 5 == 0 else number},
        **changes,
    }
    return json.dumps({name: value for name, value in record.items() if value is not ...}).encode() + b"\n"


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def ids(tables: TableStore, *keys: str) -> list[str]:
    return tables.read(STAGE, keys or list(tables.records(STAGE)), columns=["prediction_id"])["prediction_id"].to_list()


def offsets(settings: Settings) -> dict[str, int]:
    latest = Ledgers(settings.root, SPEC.name).latest(naming.INGESTED)
    return latest[1]["offsets"] if latest else {}


def files(settings: Settings) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(settings.root).rglob("*") if path.is_file()}


def test_a_prediction_becomes_a_row_of_its_key(settings: Settings, tables: TableStore, log: Path, ingest: Ingest):
    (log / "1-1.jsonl").write_bytes(line(3) + line(5) + line(30, features=...) + line(2, day=1))
    result = ingest("2020-01-05", "2020-01-06")
    rows = tables.read(STAGE, ["2020-01-05"])
    assert rows.columns == ["key", *predictions.ABOUT_A_ROW, "probability", "site", "size", "value"]
    assert rows["prediction_id"].to_list() == ["p0-0003", "p0-0005", "p0-0030"], "in the order of requests"
    assert rows["value"].to_list() == [3, None, None]
    assert rows["site"].to_list() == ["north", "north", None], "inputs that were not logged are null"
    assert rows["asked_at"][0] == MIDNIGHT + timedelta(hours=2)
    assert rows["probability"][0] == 0.035
    assert ids(tables, "2020-01-06") == ["p1-0002"]
    assert offsets(settings) == {"1-1.jsonl": (log / "1-1.jsonl").stat().st_size}
    metadata = metadata_of(result, STAGE, "2020-01-05")
    assert (metadata["dagster/row_count"], metadata["run_new_predictions"], metadata["models"]) == (3, 4, {"a" * 64: 3})


def test_a_key_without_requests_has_an_empty_record(tables: TableStore, ingest: Ingest):
    ingest("2020-01-05", "2020-01-06")
    assert {key: record.rows for key, record in tables.records(STAGE).items()} == {"2020-01-05": 0, "2020-01-06": 0}
    assert tables.read(STAGE, ["2020-01-05"]).columns == [
        "key",
        *predictions.ABOUT_A_ROW,
        "probability",
        "site",
        "size",
        "value",
    ]


def test_a_log_without_new_lines_writes_nothing(settings: Settings, log: Path, ingest: Ingest):
    (log / "1-1.jsonl").write_bytes(line(3))
    ingest("2020-01-05", "2020-01-06")
    before = files(settings)
    again = ingest("2020-01-05", "2020-01-06")
    assert files(settings) == before
    assert (
        metadata_of(again, STAGE, "2020-01-05")["is_memoised"]
        is metadata_of(again, STAGE, "2020-01-06")["is_memoised"]
        is True
    )


def test_a_log_that_grew_and_rotated_adds_only_new_rows(tables: TableStore, log: Path, ingest: Ingest):
    first, second = log / "1-1.jsonl", log / "2-1.jsonl"
    first.write_bytes(line(1) + line(2))
    ingest("2020-01-05")
    first.write_bytes(first.read_bytes() + line(3))
    second.write_bytes(line(4))
    (log / "2-2.jsonl").write_bytes(line(5))
    ingest("2020-01-05")
    assert ids(tables) == [f"p0-{number:04d}" for number in range(1, 6)]


def test_a_torn_last_line_is_ingested_when_it_is_complete(
    settings: Settings, tables: TableStore, log: Path, ingest: Ingest
):
    path, complete = log / "1-1.jsonl", line(1) + line(2)
    path.write_bytes(complete[:-20])
    result = ingest("2020-01-05")
    assert ids(tables) == ["p0-0001"]
    assert offsets(settings) == {"1-1.jsonl": len(line(1))}
    assert metadata_of(result, STAGE, "2020-01-05")["run_lines_left_out"] == 0
    path.write_bytes(complete)
    ingest("2020-01-05")
    assert ids(tables) == ["p0-0001", "p0-0002"]


def test_an_invalid_line_is_reported_and_the_others_are_ingested(
    settings: Settings, tables: TableStore, log: Path, ingest: Ingest
):
    bad = [b"\n", b'{"prediction_id": "p"}\n', b"\xff\xfe\n", line(7, probability=1.5), line(8, service_time="noon")]
    (log / "1-1.jsonl").write_bytes(line(1) + b"".join(bad) + line(2) + line(3, features={"site": 4, "size": 1}))
    metadata = metadata_of(ingest("2020-01-05"), STAGE, "2020-01-05")
    assert ids(tables) == ["p0-0001", "p0-0002", "p0-0003"]
    assert tables.read(STAGE, ["2020-01-05"])["size"].to_list() == [3, 3, None]
    assert metadata["run_lines_left_out"] == 6
    record = Ledgers(settings.root, SPEC.name).latest(naming.INGESTED)[1]
    assert record["left_out"] == 6
    assert [entry["offset"] for entry in record["left_out_named"][:2]] == [len(line(1)), len(line(1)) + 1]
    assert "the inputs of p0-0003 do not fit the product's fields" in record["left_out_named"][5]["reason"]
    assert "1-1.jsonl" in metadata["left_out"]
    assert metadata_of(ingest("2020-01-05"), STAGE, "2020-01-05")["run_lines_left_out"] == 0, "named once"


def test_predictions_of_other_keys_are_ingested_and_those_of_no_key_are_reported(
    tables: TableStore, log: Path, ingest: Ingest
):
    (log / "1-1.jsonl").write_bytes(line(1) + line(1, day=2) + line(1, day=90))
    metadata = metadata_of(ingest("2020-01-05"), STAGE, "2020-01-05")
    assert ids(tables, "2020-01-07") == ["p2-0001"]
    assert metadata["run_keys_elsewhere"] == ["2020-01-07"]
    assert "outside of daily keys from 2020-01-01 to 2020-01-31" in metadata["left_out"]
    ingest("2020-01-06", "2020-01-07")
    assert {key: record.rows for key, record in tables.records(STAGE).items()} == {
        "2020-01-05": 1,
        "2020-01-06": 0,
        "2020-01-07": 1,
    }


def test_a_file_cut_shorter_by_a_full_disk_is_read_again(tables: TableStore, log: Path, ingest: Ingest):
    path = log / "1-1.jsonl"
    path.write_bytes(line(1) + line(2) + line(3))
    ingest("2020-01-05")
    path.write_bytes(line(1) + line(44, entity="a longer one") + line(5))
    ingest("2020-01-05")
    assert set(ids(tables)) == {"p0-0001", "p0-0002", "p0-0003", "p0-0005", "p0-0044"}
    path.write_bytes(line(1) + line(6))
    ingest("2020-01-05")
    assert "p0-0006" in ids(tables)


def test_a_long_log_is_ingested_in_batches(
    settings: Settings, tables: TableStore, log: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parsing, "BATCH_BYTES", 1_000)
    for number in range(6):
        (log / f"{number}-1.jsonl").write_bytes(b"".join(line(10 * number + offset) for offset in range(2)))
    ingest("2020-01-05")
    assert len(ids(tables)) == 12
    assert Ledgers(settings.root, SPEC.name).newest_number(naming.INGESTED) > 1


@pytest.mark.costly
def test_a_prediction_belongs_to_the_batch_that_was_current(settings: Settings, run: Ingest):
    batches.land_all(settings.root, "0001", "0004")
    folder = settings.prediction_log / batches.SPEC.name
    folder.mkdir(parents=True)
    inputs = {"reading": 1.0, "recent_mean": 1.0, "colour": None, "weight": None}
    served = [batches.moment("0002"), batches.moment("0003") + timedelta(minutes=1), batches.moment("0009")]
    lines = [line(number, service_time=text(moment), features=inputs) for number, moment in enumerate(served)]
    (folder / "1-1.jsonl").write_bytes(b"".join(lines))
    run("0001", "0004")
    rows = TableStore(settings.root, batches.SPEC.name).read(STAGE, ["0002", "0004", "0005"], columns=["prediction_id"])
    assert rows.rows() == [("0002", "p0-0000"), ("0004", "p0-0001"), ("0005", "p0-0002")]


WRITES = ("rows", "records", "offsets", "rows of a key without predictions", "their records")


def take_in(
    variables: Mapping[str, str], keys: Sequence[str], die_before: int | None, turns: tuple[Any, Any] | None
) -> None:
    """Take the log in, as the asset does, and die before a chosen write.

    Args:
        turns: events: that existing records were read, and that the process may go on after it.
    """
    settings = Settings.from_environment(variables)
    tables = TableStore(settings.root, SPEC.name)
    maker = Ingesting.for_product(SPEC)
    if die_before is not None:
        die_at_write(die_before, (delta, "commit"), (Ledgers, "create_number"))
    merged = predictions_maker.merged

    def slowly(*arguments: Any) -> Any:
        result = merged(*arguments)
        if turns is not None:
            turns[0].set()
            assert turns[1].wait(120)
        return result

    predictions_maker.merged = slowly
    with prediction_log.exclusive(settings.prediction_log / SPEC.name) as folder:
        prediction_log.ingest_log(ProductStore(SPEC, Settings.from_environment(variables)), folder, "code")
        records = tables.records(STAGE, keys)
        prediction_log.replace(maker, tables, "code", {key: maker.empty() for key in keys if key not in records})


def start(settings: Settings, keys: Sequence[str], **options: Any) -> Any:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, "platform_assets.prediction_log.predictions", "deltalake"])
    process = server.Process(
        target=take_in, args=(settings.to_environment(), keys, options.get("die_before"), options.get("turns"))
    )
    process.start()
    return process


@pytest.mark.parametrize("number", range(len(WRITES) + 1))
def test_a_run_killed_at_any_write_neither_loses_nor_duplicates_rows(
    settings: Settings, tables: TableStore, log: Path, ingest: Ingest, number: int
):
    (log / "1-1.jsonl").write_bytes(line(1) + line(1, day=1))
    ingest("2020-01-05")
    (log / "1-1.jsonl").write_bytes(line(1) + line(1, day=1) + line(2) + line(3, day=1))
    process = start(settings, ["2020-01-05", "2020-01-07"], die_before=number)
    process.join(120)
    assert process.exitcode == (0 if number == len(WRITES) else -signal.SIGKILL), "there are no further writes"
    before = ["p0-0001", "p1-0001"]
    after = ["p0-0001", "p0-0002", "p1-0001", "p1-0003"]
    assert ids(tables, "2020-01-05", "2020-01-06") == (before if number < 2 else after)
    (log / "2-1.jsonl").write_bytes(line(2) + line(4))
    ingest("2020-01-05", "2020-01-07")
    assert ids(tables) == [*after[:2], "p0-0004", *after[2:]]


def test_concurrent_runs_lose_no_row(settings: Settings, tables: TableStore, log: Path):
    (log / "1-1.jsonl").write_bytes(b"".join(line(number) for number in range(20)))
    keys = ["2020-01-05"]
    server = multiprocessing.get_context("forkserver")
    has_read, goes_on = server.Event(), server.Event()
    first = start(settings, keys, turns=(has_read, goes_on))
    assert has_read.wait(120)
    (log / "2-1.jsonl").write_bytes(b"".join(line(number) for number in range(15, 40)))
    others = [start(settings, keys) for _ in range(3)]
    goes_on.set()
    for process in (first, *others):
        process.join(120)
        assert process.exitcode == 0
    assert sorted(ids(tables)) == [f"p0-{number:04d}" for number in range(40)]
