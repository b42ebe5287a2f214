import hashlib
import io
import math
import struct
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.store import content
from platform_assets.store.content import columns_of, type_of
from platform_assets.store.tables import TableProblem, content_digest

CELLS: dict[pl.DataType, st.SearchStrategy[Any]] = {
    pl.Boolean(): st.booleans(),
    pl.Int8(): st.integers(-128, 127),
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.Float32(): st.floats(width=32),
    pl.Float64(): st.floats(),
    pl.String(): st.text(max_size=5),
    pl.Binary(): st.binary(max_size=5),
    pl.Date(): st.dates(),
    pl.Datetime("us", "UTC"): st.datetimes(timezones=st.just(UTC)),
    pl.List(pl.Int16()): st.lists(st.none() | st.integers(-9, 9), max_size=3),
    pl.List(pl.String()): st.lists(st.none() | st.text(max_size=2), max_size=3),
}


@st.composite
def frames(draw: st.DrawFn, min_rows: int = 0) -> pl.DataFrame:
    height = draw(st.integers(min_rows, 12))
    dtypes = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=4))
    return pl.DataFrame(
        [
            pl.Series(f"c{number}", draw(st.lists(st.none() | CELLS[t], min_size=height, max_size=height)), dtype=t)
            for number, t in enumerate(dtypes)
        ]
    )


@settings(max_examples=25)
@given(frame=frames(), data=st.data())
def test_digest_depends_on_neither_chunks_nor_column_order_nor_file_bytes(frame: pl.DataFrame, data: st.DataObject):
    digest = content_digest(frame)
    cut = data.draw(st.integers(0, frame.height))
    assert content_digest(pl.concat([frame.head(cut), frame.tail(frame.height - cut)], rechunk=False)) == digest
    assert content_digest(frame.select(data.draw(st.permutations(frame.columns)))) == digest
    for compression in ("uncompressed", "zstd"):
        file = io.BytesIO()
        frame.write_parquet(file, compression=compression, row_group_size=3)
        file.seek(0)
        assert content_digest(pl.read_parquet(file)) == digest


@settings(max_examples=25)
@given(one=frames(), other=frames())
def test_digests_are_equal_exactly_when_frames_are(one: pl.DataFrame, other: pl.DataFrame) -> None:
    same = one.schema == other.schema and [*map(repr, one.rows())] == [*map(repr, other.rows())]
    assert (content_digest(one) == content_digest(other)) == same


@settings(max_examples=25)
@given(frame=frames(min_rows=2), data=st.data())
def test_digest_depends_on_the_order_of_rows(frame: pl.DataFrame, data: st.DataObject) -> None:
    moved = frame[list(data.draw(st.permutations(range(frame.height))))]
    same = [*map(repr, moved.rows())] == [*map(repr, frame.rows())]
    assert (content_digest(moved) == content_digest(frame)) == same


def test_null_zero_empty_and_nan_differ() -> None:
    columns = [
        pl.Series("c", values, dtype=dtype)
        for values, dtype in [
            ([None], pl.Float64),
            ([0.0], pl.Float64),
            ([-0.0], pl.Float64),
            ([math.nan], pl.Float64),
            ([None], pl.Float32),
            ([0.0], pl.Float32),
            ([None], pl.Int64),
            ([0], pl.Int64),
            ([0], pl.Int32),
            ([False], pl.Boolean),
            ([None], pl.Boolean),
            ([None], pl.String),
            ([""], pl.String),
            (["0"], pl.String),
            ([b""], pl.Binary),
            ([None], pl.List(pl.Int64)),
            ([[]], pl.List(pl.Int64)),
            ([[None]], pl.List(pl.Int64)),
            ([[0]], pl.List(pl.Int64)),
            ([date(1970, 1, 1)], pl.Date),
            ([datetime(1970, 1, 1)], pl.Datetime("us")),  # noqa: DTZ001 - a naive time is a type of its own
            ([datetime(1970, 1, 1, tzinfo=UTC)], pl.Datetime("us", "UTC")),
        ]
    ]
    digests = {content_digest(column.to_frame()) for column in columns}
    assert len(digests) == len(columns)


def test_all_nans_are_equal() -> None:
    odd = pl.Series("c", [0x7FF8000000000001], dtype=pl.Int64).reinterpret(signed=False).to_numpy().view("f8")
    assert content_digest(pl.DataFrame({"c": odd})) == content_digest(pl.DataFrame({"c": [math.nan]}))


def test_digest_follows_the_documented_rule() -> None:
    parts = [
        b"a",
        b"Int16",
        b"\x40",
        struct.pack("<3h", 1, 0, -2),
        b"t",
        b"String",
        b"",
        struct.pack("<3q", 1, 0, 2),
        b"xyz",
    ]
    message = (
        b"driftline content 1\n"
        + struct.pack("<q", 3)
        + b"".join(struct.pack("<q", len(part)) + part for part in parts)
    )
    frame = pl.DataFrame({"t": ["x", "", "yz"], "a": pl.Series([1, None, -2], dtype=pl.Int16)})
    assert content_digest(frame) == hashlib.sha256(message).hexdigest()


def test_digest_is_frozen() -> None:
    frame = pl.DataFrame(
        {
            "number": [1, None, -3],
            "share": [0.5, math.nan, None],
            "text": ["ä", "", None],
            "is_late": [True, None, False],
            "at_utc": [datetime(2013, 3, 1, 5, tzinfo=UTC), None, datetime(1969, 1, 1, tzinfo=UTC)],
            "day": [date(2013, 3, 1), None, date(1969, 1, 1)],
            "values": [[1.0, None], [], None],
        },
        schema_overrides={"values": pl.List(pl.Float32), "at_utc": pl.Datetime("us", "UTC")},
    )
    assert content_digest(frame) == "6343a6c2e58e242b3ebff12b3fa30222a4ffc60b5585b71ce19bcb1f4ae06c4e"


@pytest.mark.parametrize(
    "dtype", [pl.UInt32, pl.Categorical, pl.Datetime("ms"), pl.Duration, pl.Time, pl.Null, pl.Struct({"a": pl.Int8})]
)
def test_a_type_that_delta_changes_is_refused_by_name(dtype: pl.DataType) -> None:
    frame = pl.DataFrame({"odd": pl.Series([None], dtype=dtype)})
    with pytest.raises(TableProblem, match=r"column 'odd' has type .*cast it to one of Boolean, Int8"):
        content_digest(frame)


def test_type_names_round_trip() -> None:
    frame = pl.DataFrame(schema={**{f"c{n}": t for n, t in enumerate(CELLS)}, "n": pl.List(pl.List(pl.Datetime("us")))})
    assert {name: type_of(kind) for name, kind in columns_of(frame).items()} == dict(frame.schema)


def test_types_are_read_from_deltas_schema() -> None:
    names = [*content._KINDS, "List Float32", "List List Datetime UTC"]
    fields = [{"name": name, "type": content.delta_type(name)} for name in names]
    assert content.types_of_delta(fields) == {name: content.type_of(name) for name in names}
    assert content.types_of_delta([{"name": "price", "type": "decimal(10,2)"}]) == {}
