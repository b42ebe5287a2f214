"""A delivered value is represented exactly by the schema's type; otherwise its row is quarantined with the reason."""

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from platform_assets.base.keys import DailyGrain
from platform_assets.data.delimited import read_csv
from platform_assets.data.validation import Split, key_column, rule, split, split_keys
from tests.volume import draws

KEY = "2013-03-01"
MOMENT = pl.Datetime("us", "UTC")
GRAIN = DailyGrain(start="2013-01-01", end="2013-12-31")


def split_column(column: pl.Series, dtype: Any) -> Split:
    schema = pa.DataFrameSchema({"value": pa.Column(dtype, nullable=True)}, strict=True)
    raw = column.alias("value").to_frame().with_columns(source_offset=pl.int_range(pl.len(), dtype=pl.Int64))
    return split(raw, schema, schema_version=1, key=KEY)


NAIVE = datetime(2013, 3, 1, 5, tzinfo=UTC).replace(tzinfo=None)
SIXTH = pl.Series([1372636800000000123]).cast(pl.Datetime("ns", "Europe/Berlin"))


@pytest.mark.parametrize(
    ("delivered", "dtype", "reason"),
    [
        (pl.Series([1.7]), pl.Int64, "1.7 (Float64), expected a whole number that Int64 holds"),
        (pl.Series([float("nan")]), pl.Int64, "NaN (Float64), expected "),
        (pl.Series([float("inf")]), pl.Int64, "inf (Float64), expected "),
        (pl.Series([300]), pl.Int8, "300 (Int64), expected a whole number that Int8 holds"),
        (pl.Series([2**64 - 1], dtype=pl.UInt64), pl.Int64, "18446744073709551615 (UInt64), expected "),
        (pl.Series([2**53 + 1]), pl.Float64, "9007199254740993 (Int64), expected a number that Float64 holds exactly"),
        (pl.Series([0.1]), pl.Float32, "0.1 (Float64), expected "),
        (pl.Series([Decimal("1.70")]), pl.Int64, "1.70 (Decimal(precision=38, scale=2)), expected "),
        (pl.Series([5]), pl.Boolean, "5 (Int64), expected true or false"),
        (pl.Series(["n/a"]), pl.Int64, "'n/a', which is not a whole number"),
        (pl.Series(["n/a"], dtype=pl.Categorical), pl.Int64, "'n/a', which is not a whole number"),
        (pl.Series([[1, 2]]), pl.Int64, "[1, 2] (List(Int64)), expected "),
        (pl.Series([{"a": 1}]), pl.Int64, '{"a": 1} (Struct({\'a\': Int64})), expected a whole'),
        (pl.Series([{1}], dtype=pl.Object), pl.Int64, '"{1}" (Object), expected a whole'),
        (pl.Series([[1, 300]]), pl.List(pl.Int8), "[1, 300] (List(Int64)), expected "),
        (pl.Series([7.0]), pl.String, "7.0 (Float64), expected text"),
        (pl.Series([b"\xff"]), pl.String, "/w== (Binary), expected "),
        (pl.Series([NAIVE]), MOMENT, "2013-03-01 05:00:00.000000 (Datetime(time_unit='us', time_zone=None)), "),
        (SIXTH, MOMENT, "2013-07-01 02:00:00.000000123+02:00 (Datetime(time_unit='ns', time_zone='Europe/Berlin'))"),
        (pl.Series([2**60]).cast(pl.Datetime("ms", "UTC")), MOMENT, "1152921504606846976 ms since 1970 (Datetime"),
        (pl.Series([date(2013, 3, 1)]), MOMENT, "2013-03-01 (Date), expected "),
        (pl.Series([NAIVE]), pl.Date, "2013-03-01 05:00:00.000000 (Datetime"),
        (pl.Series([1362114000]), MOMENT, "1362114000 (Int64), expected "),
        (pl.Series([timedelta(hours=1)]), pl.Int64, "PT1H (Duration(time_unit='us')), expected "),
    ],
)  # fmt: skip
def test_a_value_outside_the_type_is_quarantined_with_the_value(delivered: pl.Series, dtype: Any, reason: str) -> None:
    result = split_column(pl.concat([delivered, delivered.clear(1)]), dtype)
    assert result.good["value"].to_list() == [None]
    (text,) = result.quarantined["reason"]
    assert text.startswith(f"value is {reason}")
    assert isinstance(json.loads(result.quarantined["row"].item())["value"], str)


@pytest.mark.parametrize(
    ("delivered", "dtype", "expected"),
    [
        (pl.Series([2.0, None]), pl.Int64, [2, None]),
        (pl.Series([7], dtype=pl.UInt8), pl.Int64, [7]),
        (pl.Series([Decimal("1.50"), Decimal("0.10")]), pl.Float64, [1.5, 0.1]),
        (pl.Series([0, 1]), pl.Boolean, [False, True]),
        (pl.Series([7]), pl.String, ["7"]),
        (pl.Series([b"ab", None]), pl.String, ["ab", None]),
        (pl.Series(["7"]), pl.Int64, [7]),
        (pl.Series(["a"], dtype=pl.Categorical), pl.String, ["a"]),
        (pl.Series([None]), MOMENT, [None]),
        (pl.Series([NAIVE]).dt.replace_time_zone("America/New_York"), MOMENT, [datetime(2013, 3, 1, 10, tzinfo=UTC)]),
        (pl.Series([NAIVE.replace(hour=0)]), pl.Date, [date(2013, 3, 1)]),
        (pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)), pl.List(pl.Float32), [[1.0, 2.0]]),
        (pl.Series([1, 2.0, "3", True, None], dtype=pl.Object), pl.Int64, [1, 2, 3, 1, None]),
    ],
)  # fmt: skip
def test_a_value_within_the_type_is_a_good_row(delivered: pl.Series, dtype: Any, expected: list[Any]) -> None:
    result = split_column(delivered, dtype)
    assert result.quarantined.is_empty(), result.quarantined["reason"].to_list()
    assert result.good.schema["value"] == dtype
    assert result.good["value"].to_list() == expected


FIVE = datetime(2013, 3, 1, 5, tzinfo=UTC)
QUARTER = FIVE.replace(microsecond=250_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2013-03-01T05:00:00+00:00", FIVE),
        ("2013-03-01 05:00:00+00:00", FIVE),
        ("2013-03-01 05:00:00Z", FIVE),
        ("2013-03-01 05:00:00 UTC", FIVE),
        ("2013-03-01 06:30:00+0130", FIVE),
        ("2013-02-28T23:00:00.000000000-06", FIVE),
        ("2013-03-01T05:00:00.25Z", QUARTER),
        ("2013-03-01 05:00:00.250000+00", QUARTER),
    ],
)
def test_a_text_with_an_offset_is_the_instant_it_says(text: str, expected: datetime) -> None:
    delivered = pl.Series([text, "2013-03-01T05:00:00Z", None])
    for dtype in (MOMENT, pl.Datetime("ms", "UTC"), pl.Datetime("us", "America/New_York"), pl.Datetime("us")):
        result = split_column(delivered, dtype)
        assert result.quarantined.is_empty(), result.quarantined["reason"].to_list()
        assert result.good.schema["value"] == dtype
        zone = None if dtype.time_zone is None else UTC
        assert result.good["value"].to_list() == [expected.replace(tzinfo=zone), FIVE.replace(tzinfo=zone), None]


@given(st.lists(st.tuples(st.datetimes(datetime(1800, 1, 1), datetime(2199, 1, 1)), st.integers(-840, 840))))  # noqa: DTZ001  # each gets its offset
@settings(max_examples=draws(100))
def test_any_moment_that_python_writes_with_an_offset_is_read_as_python_reads_it(
    moments: list[tuple[datetime, int]],
) -> None:
    written = [at.replace(tzinfo=timezone(timedelta(minutes=offset))) for at, offset in moments]
    texts = pl.Series([str(at) if at.minute % 2 else at.isoformat() for at in written], dtype=pl.String)
    assert split_column(texts, MOMENT).good["value"].to_list() == written


EXAMPLE = "which is not a moment such as 2013-03-01T05:00:00Z"


def test_each_row_of_a_column_with_several_formats_says_what_it_has_and_what_is_expected() -> None:
    reasons = {
        "2013-03-01 05:00:00": f"{EXAMPLE}: it names no time zone, as Z or +01:00 do",
        "2013-03-01T05:00:00.5": f"{EXAMPLE}: it names no time zone, as Z or +01:00 do",
        "2013-03-01T05:00:00.0000001Z": f"{EXAMPLE}: its second has more than 6 digits",
        "03/01/2013 05:00": EXAMPLE,
        "2013-03-01T05:00:00+99:00": EXAMPLE,
        "2013-02-30T05:00:00+01:00": EXAMPLE,
        "2013-03-01": EXAMPLE,
    }
    data = "\n".join(["at,day", "2013-03-01 05:00:00+00,2013-03-01", *(f"{text},01.03.2013" for text in reasons), ""])
    raw = read_csv(data.encode()).with_row_index("source_offset")
    schema = pa.DataFrameSchema({"at": pa.Column(MOMENT), "day": pa.Column(pl.Date)})
    result = split(raw, schema, schema_version=1, key=KEY)
    assert result.good["source_offset"].to_list() == [0]
    of_day = "day is '01.03.2013', which is not a date such as 2013-03-01"
    assert result.quarantined["reason"].to_list() == [
        f"at is '{text}', {reason}; {of_day}" for text, reason in reasons.items()
    ]
    assert set(result.kinds) == {
        f"at {reason.removeprefix('which ')}; day is not a date such as 2013-03-01" for reason in reasons.values()
    }


def test_a_refused_row_keeps_all_its_values_and_no_other_row_is_refused() -> None:
    schema = pa.DataFrameSchema({"count": pa.Column(pl.Int64), "at": pa.Column(MOMENT), "name": pa.Column(pl.String)})
    raw = pl.DataFrame({"count": [1.0, 1.7], "at": [NAIVE, None], "name": ["a", "b"], "source_offset": [0, 1]})
    result = split(raw, schema, schema_version=1, key=KEY)
    assert [json.loads(row) for row in result.quarantined["row"]] == [
        {"count": 1, "at": "2013-03-01 05:00:00.000000", "name": "a"},
        {"count": "1.7", "at": None, "name": "b"},
    ]
    assert "expected a moment with its time zone" in result.quarantined["reason"][0]


def test_keys_with_files_of_different_types_are_split_together_as_they_are_alone() -> None:
    schema = pa.DataFrameSchema({"value": pa.Column(pl.Int64)})
    columns = {KEY: [1, 2], "2013-03-02": [1.0, 2.5], "2013-03-03": ["1", "x"], "2013-03-04": [[1], [2]]}
    raws = {key: pl.DataFrame({"value": delivered, "source_offset": [0, 1]}) for key, delivered in columns.items()}
    results = split_keys(raws, schema, schema_version=1)
    assert {key: part.quarantined["source_offset"].to_list() for key, part in results.items()} == {
        KEY: [],
        "2013-03-02": [1],
        "2013-03-03": [1],
        "2013-03-04": [0, 1],
    }
    for key, raw in raws.items():
        alone = split(raw, schema, schema_version=1, key=key)
        assert alone.good.equals(results[key].good) and alone.quarantined.equals(results[key].quarantined)


@pytest.mark.parametrize("dtype", [MOMENT, pl.Datetime("us"), pl.Date], ids=str)
def test_a_time_beyond_pythons_range_is_refused_before_rules_run(dtype: Any) -> None:
    wild = pl.Series([2**30, 1] if dtype == pl.Date else [2**62, 1]).cast(pl.Int32 if dtype == pl.Date else pl.Int64)
    schema = pa.DataFrameSchema(
        {"value": pa.Column(dtype, pa.Check.ge(pl.Series([2]).cast(dtype)[0])), "n": pa.Column(pl.Int64)},
        checks=[rule("few", pl.col("n") < 1)],
    )
    raw = pl.DataFrame({"value": wild.cast(dtype), "n": [5, 5], "source_offset": [0, 1]})
    first, second = split(raw, schema, schema_version=1, key=KEY).quarantined["reason"]
    assert "since 1970" in first
    assert second.endswith("; rule broken: few")


OLD = pl.Series([datetime(1799, 12, 31, tzinfo=UTC)], dtype=MOMENT)


@pytest.mark.parametrize("delivered", [pl.Series([None], dtype=MOMENT), OLD, pl.Series(["9999-12-31T00:00:00Z"])])
def test_only_the_row_whose_moment_has_no_key_is_quarantined(delivered: pl.Series) -> None:
    sound = pl.Series([datetime(2013, 3, 1, 5, tzinfo=UTC)], dtype=MOMENT)
    moments = pl.concat([delivered, sound if delivered.dtype == MOMENT else pl.Series(["2013-03-01T05:00:00Z"])])
    schema = pa.DataFrameSchema({"at": pa.Column(MOMENT, nullable=True)})
    raw = pl.DataFrame({"at": moments, "source_offset": [0, 1]})
    result = split(raw, schema, schema_version=1, key=KEY, key_of=key_column("at", GRAIN.key_of))
    assert result.good["source_offset"].to_list() == [1]
    assert result.quarantined["reason"].item() == "belongs to no key: its moment is empty or not from 1800 to 2199"


LONG = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1])
UNITS = {"ms": 10**6, "us": 10**3, "ns": 1}


def column(dtype: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[pl.Series]:
    return st.lists(st.none() | values, min_size=1, max_size=4).map(lambda values: pl.Series(values, dtype=dtype))


def integers(dtype: Any) -> st.SearchStrategy[pl.Series]:
    low, high = (pl.select(edge).item() for edge in (dtype.min(), dtype.max()))
    return column(dtype, st.integers(low, high) | st.sampled_from([low, high, 0, 1, min(high, 2**53 + 1)]))


def moments(unit: Any, zone: str | None) -> st.SearchStrategy[pl.Series]:
    ticks = LONG | st.integers(0, 2_000_000_000).map(lambda second: second * (10**9 // UNITS[unit]))
    return column(pl.Int64, ticks).map(lambda values: values.cast(pl.Datetime(unit, zone)))


FLOATS = st.sampled_from([0.0, -0.0, 1.0, 1.7, 2.0**53, 2.0**63, -(2.0**63), 1e300, float("nan"), float("inf")])
DELIVERED = st.one_of(
    *(integers(dtype) for dtype in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt32, pl.UInt64)),
    column(pl.Float64, st.floats() | FLOATS),
    column(pl.Float32, st.floats(width=32)),
    column(pl.Decimal(12, 2), st.decimals(-(10**9), 10**9, places=2)),
    column(pl.Boolean, st.booleans()),
    column(pl.String, st.sampled_from(["1", "1.5", "1e400", "true", "2013-03-01", "2013-03-01T05:00:00Z", "", "ä"])),
    column(pl.Categorical, st.sampled_from(["1", "x"])),
    column(pl.Binary, st.binary(max_size=3)),
    column(pl.Date, st.dates()),
    column(pl.Int32, st.integers(-(2**31), 2**31 - 1)).map(lambda values: values.cast(pl.Date)),
    *(moments(unit, zone) for unit in UNITS for zone in (None, "UTC", "Europe/Berlin")),
    column(pl.Int64, LONG).map(lambda values: values.cast(pl.Duration("us"))),
    column(pl.Time, st.times()),
    column(pl.List(pl.Int64), st.lists(LONG, max_size=2)),
    column(pl.List(pl.Datetime("ms")), st.lists(st.datetimes(), max_size=2)),
    column(pl.Array(pl.Float64, 2), st.lists(st.floats(), min_size=2, max_size=2)),
    column(pl.Struct({"a": pl.Int64, "b": pl.Binary}), st.fixed_dictionaries({"a": LONG, "b": st.binary(max_size=2)})),
    column(pl.Null, st.none()),
    column(pl.Object, st.one_of(LONG, st.integers(2**63, 2**200), st.floats(), st.text(max_size=2), st.booleans(),
                                st.datetimes(), st.just({1}), st.decimals(), st.complex_numbers())),
)  # fmt: skip
DTYPES = st.sampled_from(
    [
        *(pl.Int8, pl.Int32, pl.Int64, pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Binary, pl.Date, MOMENT),
        *(pl.Datetime("us"), pl.List(pl.Int8), pl.List(pl.Float64), pl.List(pl.Binary)),
    ]
)


def is_exactly(delivered: pl.Series, index: int, stored: pl.Series, row: int) -> bool:
    """Return whether a value equals the delivered one in Python's own numbers; text of a cell is tested elsewhere."""
    one, other = (item.dtype for item in (delivered, stored))
    if one in (pl.Object, pl.String, pl.Categorical):
        return True
    if isinstance(one, pl.Datetime):
        ticks = delivered.to_physical()[index] * UNITS[one.time_unit]
        return ticks == stored.to_physical()[row] * (86_400 * 10**9 if other == pl.Date else UNITS[other.time_unit])
    if one == other == pl.Date:
        return delivered.to_physical()[index] == stored.to_physical()[row]
    return is_same(delivered[index], stored[row])


def is_same(delivered: Any, stored: Any) -> bool:
    if isinstance(delivered, pl.Series):
        return len(delivered) == len(stored) and all(map(is_same, delivered, stored))
    if isinstance(stored, str | bytes) or delivered is None or stored is None:
        text = f"{delivered}" if isinstance(delivered, int) else delivered
        return text == stored or (isinstance(text, bytes) and text.decode() == stored)
    if isinstance(delivered, Decimal):
        return delivered == (round(Decimal(stored), 2) if isinstance(stored, float) else stored)
    return (
        delivered == stored or (delivered != delivered and stored != stored)
        if isinstance(delivered, float)
        else Fraction(delivered) == stored
    )


@given(delivered=DELIVERED, dtype=DTYPES)
@example(delivered=pl.Series([math.inf], dtype=pl.Float32), dtype=pl.Float32)
@settings(max_examples=draws(150), deadline=None)
def test_every_value_of_every_type_is_kept_exactly_or_quarantined(delivered: pl.Series, dtype: Any) -> None:
    result = split_column(delivered, dtype)
    good, refused = result.good, result.quarantined
    assert sorted([*good["source_offset"], *refused["source_offset"]]) == list(range(len(delivered)))
    assert all(reason.startswith("value is ") for reason in refused["reason"])
    for index, row in zip(refused["source_offset"], refused["row"], strict=True):
        is_for_json = not delivered.dtype.is_float() or math.isfinite(delivered[index])  # the reason names the others
        assert json.loads(row)["value"] is not None or not is_for_json
    for position, index in enumerate(good["source_offset"]):
        is_empty = delivered.is_null()[index]
        assert good["value"].is_null()[position] == is_empty
        assert is_empty or is_exactly(delivered, index, good["value"], position)


@given(delivered=st.one_of(*(integers(dtype) for dtype in (pl.Int8, pl.Int64, pl.UInt64))) | column(pl.Float64, FLOATS))
@settings(max_examples=30, deadline=None)
def test_a_whole_number_within_range_is_never_refused(delivered: pl.Series) -> None:
    result = split_column(delivered, pl.Int64)
    fits = [item is None or (item == item and abs(item) < 2.0**63 and item == int(item)) for item in delivered]
    assert set(result.good["source_offset"]) >= {index for index, does in enumerate(fits) if does}
