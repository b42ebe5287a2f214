from datetime import UTC, date, datetime

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from platform_assets.base import naming
from platform_assets.store import delta, upkeep
from platform_assets.store.objects import open_store
from platform_assets.store.reading import ROW
from platform_assets.store.tables import (
    DigestMismatch,
    MissingPartitions,
    PartitionRecord,
    TableProblem,
    TableStore,
    content_digest,
)

KEYS = ("0001", "0002", "0003")


def rows(first: int, count: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {"number": range(first, first + count), "text": [f"{first}", None, ""][:count]},
        schema={"number": pl.Int64, "text": pl.String},
    )


def write(store: TableStore, frames: dict[str, pl.DataFrame], stage: str = "features") -> dict[str, PartitionRecord]:
    return store.replace(stage, frames, inputs={key: {"raw": f"raw of {key}"} for key in frames}, code="code")


def digests(records: dict[str, PartitionRecord]) -> dict[str, str]:
    return {key: record.content_digest for key, record in records.items()}


def stored(root: str, below: str = "") -> list[str]:
    return sorted(naming.join(root, meta["path"]) for meta in open_store(root).list(below or None).collect())


def parquet_files(store: TableStore, stage: str = "features") -> list[str]:
    location = naming.table_location(store.root, store.product, stage)
    return [
        file for file in stored(store.root, f"tables/{store.product}/{stage}") if file.startswith(f"{location}/key=")
    ]


def test_keys_are_read_back_in_order_with_their_key(store: TableStore) -> None:
    write(store, {"0002": rows(20), "0001": rows(10)})
    write(store, {"0003": rows(30).reverse().with_columns(key=pl.lit("0003"))})
    read = store.read("features", ["0003", "0001", "0002"])
    assert read.columns == ["key", "number", "text"]
    assert read["key"].to_list() == [key for key in KEYS for _ in range(3)]
    assert read["number"].to_list() == [10, 11, 12, 20, 21, 22, 32, 31, 30]
    assert_frame_equal(store.read("features", ["0002"]).drop("key"), rows(20))
    assert_frame_equal(
        store.read("features", ["0002"], columns=["text"]), rows(20).select(key=pl.lit("0002"), text="text")
    )


def test_a_record_states_a_keys_content_and_inputs(store: TableStore) -> None:
    written = store.replace(
        "features",
        {"0001": rows(1), "0002": rows(2, 0)},
        inputs={"0001": {"raw": "a"}, "0002": {}},
        code="code",
        notes={"0001": {"uri": "x"}},
    )
    assert store.records("features") == written
    one, two = written["0001"], written["0002"]
    assert (one.rows, one.inputs, one.code_digest, one.notes) == (3, {"raw": "a"}, "code", {"uri": "x"})
    assert one.content_digest == content_digest(rows(1))
    assert (two.rows, two.inputs, two.notes, two.files) == (0, {}, {}, ())
    assert store.records("features", ["0002", "0009"]) == {"0002": two}
    assert store.records("nothing", ["0001"]) == {}


@pytest.mark.parametrize("count", [1, delta.FEW_ROWS, delta.FEW_ROWS + 1, 20_000])
@pytest.mark.parametrize("keys", [KEYS[:1], KEYS])
def test_rows_keep_the_order_of_writing(store: TableStore, count: int, keys: tuple[str, ...]) -> None:
    # In several pieces and out of order, so that only the written rows can give the order.
    pieces = [pl.DataFrame({"number": range(first, count, 3)}) for first in range(3)]
    frame = pl.concat(pieces, rechunk=False)
    write(store, dict.fromkeys(keys, frame))
    for columns in (None, ["number"]):
        read = store.read("features", keys, columns=columns)
        assert read["number"].to_list() == frame["number"].to_list() * len(keys)


@pytest.mark.parametrize("first", [1, delta.FEW_ROWS + 1])
def test_few_rows_and_many_share_a_table(store: TableStore, first: int) -> None:
    frames = {"0001": rows(1, 1), "0002": pl.DataFrame({"number": range(delta.FEW_ROWS, -1, -1)})}
    frames["0001"] = frames["0001"].select("number")
    order = ["0001", "0002"] if first == 1 else ["0002", "0001"]
    for key in order:
        write(store, {key: frames[key]})
    numbers = [ROW in pl.read_parquet_schema(file) for file in parquet_files(store)]
    assert store.read("features", order)["number"].to_list() == [1, *range(delta.FEW_ROWS, -1, -1)]
    write(store, {"0002": frames["0001"]})
    assert store.read("features", order)["number"].to_list() == [1, 1]
    assert numbers[1] is True


def test_every_type_round_trips(store: TableStore) -> None:
    frame = pl.DataFrame(
        {
            "b": [True, None],
            "i8": pl.Series([-1, None], dtype=pl.Int8),
            "i16": pl.Series([-1, None], dtype=pl.Int16),
            "i32": pl.Series([-1, None], dtype=pl.Int32),
            "i64": [2**62, None],
            "f32": pl.Series([float("nan"), None], dtype=pl.Float32),
            "f64": [-0.0, float("inf")],
            "s": ["", None],
            "bin": [b"\x00", None],
            "d": [date(2013, 3, 1), None],
            "naive": pl.Series([datetime(2013, 3, 1), None], dtype=pl.Datetime("us")),  # noqa: DTZ001 - a naive time is a type of its own
            "utc": pl.Series([datetime(2013, 3, 1, tzinfo=UTC), None], dtype=pl.Datetime("us", "UTC")),
            "l": pl.Series([[1.5, None], []], dtype=pl.List(pl.Float32)),
        }
    )
    write(store, {"0001": frame, "0002": frame.clear()})
    assert_frame_equal(store.read("features", ["0001", "0002"]).drop("key"), frame)


def test_replacing_a_key_keeps_the_others_and_no_old_rows(store: TableStore) -> None:
    write(store, {key: rows(10 * int(key)) for key in KEYS})
    write(store, {"0002": rows(90, 1)})
    assert store.read("features", KEYS)["number"].to_list() == [10, 11, 12, 90, 30, 31, 32]


def test_an_empty_key_exists_and_a_key_may_become_empty_and_full_again(store: TableStore) -> None:
    first = write(store, {"0001": rows(1, 0)})
    assert store.read("features", ["0001"]).schema == {"key": pl.String, "number": pl.Int64, "text": pl.String}
    for count in (2, 0, 0, 1):
        second = write(store, {"0001": rows(1, count)})
        assert second["0001"].sequence > first["0001"].sequence
        assert store.read("features", ["0001"]).height == count
        first = second


def test_missing_keys_are_named_with_their_stage(store: TableStore) -> None:
    write(store, {"0002": rows(1)})
    with pytest.raises(
        MissingPartitions, match=r"tiny/features has no keys 0001, 0003; materialise features"
    ) as problem:
        store.read("features", KEYS)
    assert (problem.value.stage, problem.value.keys) == ("features", ("0001", "0003"))
    with pytest.raises(TableProblem, match="without any key"):
        store.read("features", [])


def test_old_content_is_readable_after_rewriting_every_key_and_tidying(store: TableStore) -> None:
    old = write(store, {key: rows(int(key)) for key in KEYS})
    before = store.read("features", KEYS)
    for key in KEYS:
        write(store, {key: rows(200 + int(key), 1).with_columns(added=pl.lit(1.5))})
    upkeep.tidy(store.root, "tiny", dry_run=False, retention_hours=0)
    assert len(parquet_files(store)) == 6
    assert_frame_equal(store.read_exact("features", digests(old)), before)
    assert store.read("features", KEYS)["number"].to_list() == [201, 202, 203]
    open_store(store.root).delete(f"tables/tiny/features/{old['0001'].files[0]}")
    with pytest.raises(TableProblem, match="a file of the requested content is gone"):
        store.read_exact("features", digests(old))


def test_keys_whose_files_differ_from_their_records_are_found(store: TableStore) -> None:
    records = write(store, {key: rows(int(key)) for key in KEYS})
    assert store.damaged("features", records) == set()
    assert store.damaged("features", {}) == set()
    emptied, changed, _ = parquet_files(store)
    open_store(store.root).put(emptied.removeprefix(store.root).lstrip("/"), b"")
    pl.read_parquet(changed, hive_partitioning=False).with_columns(text=pl.lit("x")).write_parquet(changed)
    assert store.damaged("features", records) == {"0001", "0002"}
    write(store, {key: rows(int(key)) for key in ("0001", "0002")})
    assert store.damaged("features", store.records("features")) == set()


def test_content_that_never_belonged_to_a_key_is_refused(store: TableStore) -> None:
    write(store, {"0001": rows(1)})
    with pytest.raises(TableProblem, match="no record of the requested content of key 0002"):
        store.read_exact("features", {"0001": content_digest(rows(1)), "0002": "0" * 64})


def test_changed_files_are_refused(store: TableStore) -> None:
    write(store, {"0001": rows(1), "0002": rows(2)})
    file = parquet_files(store)[1]
    pl.read_parquet(file, hive_partitioning=False).with_columns(number=pl.col("number") + 1).write_parquet(file)
    with pytest.raises(DigestMismatch, match="features, key 0002: rows read: 3; recorded: 3 with digest"):
        store.read("features", ["0001", "0002"])
    assert store.read("features", ["0001"]).height == 3
    records = store.records("features")
    store.verify(records["0001"])
    with pytest.raises(DigestMismatch, match="features, key 0002: rows read: 3; recorded: 3 with digest"):
        store.verify(records["0002"])
    open_store(store.root).put(file.removeprefix(store.root).lstrip("/"), b"PAR1")
    with pytest.raises(TableProblem, match="tiny/features cannot be read"):
        store.read("features", ["0001", "0002"])


def test_a_schema_gains_and_loses_columns(store: TableStore) -> None:
    write(store, {"0001": rows(1), "0002": rows(2)})
    write(store, {"0002": rows(2).with_columns(share=pl.lit(0.5))})
    with pytest.raises(TableProblem, match="keys 0001 and 0002 differ: share is nothing and Float64; materialise"):
        store.read("features", ["0001", "0002"])
    assert store.read("features", ["0001", "0002"], columns=["number"]).height == 6
    assert store.read("features", ["0001"]).columns == ["key", "number", "text"]
    write(store, {"0001": rows(3).select("number")})
    assert store.read("features", ["0001"]).columns == ["key", "number"]
    with pytest.raises(TableProblem, match="has no column share; it has number"):
        store.read("features", ["0001"], columns=["share"])


def test_a_column_changes_its_type_only_with_every_key(store: TableStore) -> None:
    old = write(store, {key: rows(int(key)) for key in KEYS})
    changed = {key: rows(int(key)).cast({"number": pl.Float32}) for key in KEYS}
    with pytest.raises(TableProblem, match=r"types changed \(number from long to Float32\) while key 0003 would keep"):
        write(store, {key: changed[key] for key in KEYS[:2]})
    assert store.records("features") == old
    write(store, changed)
    assert store.read("features", KEYS).schema["number"] == pl.Float32
    assert store.read_exact("features", digests(old)).schema["number"] == pl.Int64


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({"0001": rows(1), "0002": rows(1).select("text")}, "0001 and 0002 differ: number is Int64 and nothing"),
        ({"0001": rows(1).cast({"number": pl.UInt32})}, "column 'number' has type UInt32"),
        ({"0001": rows(1).with_columns(key=pl.lit("0002"))}, "frame of key 0001 has rows of key 0002"),
        ({"0001": rows(1).with_columns(_row=pl.lit(1))}, "a column '_row', which is reserved"),
        ({"0001' OR '1": rows(1)}, "cannot name a partition"),
    ],
)
def test_frames_that_a_table_cannot_store_are_refused_before_writing(
    store: TableStore, frames: dict[str, pl.DataFrame], message: str
) -> None:
    with pytest.raises(TableProblem, match=message):
        write(store, frames)
    assert stored(store.root) == []


def test_a_frame_without_inputs_is_refused(store: TableStore) -> None:
    with pytest.raises(ValueError, match="inputs has nothing for key 0002 of features"):
        store.replace("features", {"0002": rows(1)}, inputs={"0001": {}}, code="code")
    assert store.replace("features", {}, inputs={}, code="code") == {}


def test_an_artifact_stage_is_recorded_without_a_table(store: TableStore) -> None:
    for turn, digest in enumerate(["a", "b", "a"], start=1):
        written = store.record("checkpoint", "0009", content_digest=digest, inputs={"x": "y"}, code="code", rows=turn)
        assert written.sequence == turn
        assert store.records("checkpoint", ["0009"]) == {"0009": written}
    assert stored(store.root, "tables") == []
