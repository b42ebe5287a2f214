"""Rows are split by schema, rules, key and repetition, and none is lost."""

import json
from datetime import UTC, datetime
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.base.keys import DailyGrain
from platform_assets.data.delimited import BROKEN
from platform_assets.data.validation import Split, WrongColumns, key_column, null_together, rule, split, split_keys
from tests.volume import draws

SCHEMA = pa.DataFrameSchema(
    {
        "name": pa.Column(pl.String, pa.Check.str_length(1, 5)),
        "count": pa.Column(pl.Int64, pa.Check.in_range(0, 100)),
        "share": pa.Column(pl.Float64, nullable=True),
        "is_open": pa.Column(pl.Boolean, nullable=True),
        "seen_utc": pa.Column(pl.Datetime("us", "UTC")),
    },
    checks=[
        rule("an open shop has something", ~pl.col("is_open") | (pl.col("count") > 0)),
        rule("share and opening are null together", null_together("share", "is_open")),
    ],
    strict=True,
)
GOOD = {"name": "a", "count": "7", "share": "0.5", "is_open": "true", "seen_utc": "2013-03-01T05:00:00Z"}
NO_DAY = "2013-02-30T05:00:00Z"
NUMBER = "a finite number"
NEW_YORK = DailyGrain(start="2013-01-01", end="2013-12-31", time_zone="America/New_York")


def landed(*rows: dict[str, str | None]) -> pl.DataFrame:
    frame = pl.DataFrame(list(rows), schema=dict.fromkeys(GOOD, pl.String), orient="row")
    return frame.with_columns(
        source_offset=pl.int_range(pl.len(), dtype=pl.Int64),
        arrived_at_utc=pl.lit(datetime(2013, 3, 2, tzinfo=UTC)),
        key=pl.lit("2013-03-01"),
    )


def split_rows(*rows: dict[str, str | None], **options: Any) -> Split:
    return split(landed(*rows), SCHEMA, schema_version=3, key="2013-03-01", **options)


def test_a_record_that_is_not_a_row_has_its_own_reason_alone_and_repeats_nothing():
    note = {"reason": "line 3 has 1 field; the header has 5", "first_line": 3, "last_line": 3, "record": "a"}
    raw = landed(GOOD, dict.fromkeys(GOOD), dict.fromkeys(GOOD), {**GOOD, "count": "x"})
    noted = raw.with_columns(pl.Series(BROKEN, [None, json.dumps(note), json.dumps(note), None]))
    splits = split_keys({"2013-03-01": noted, "2013-03-02": raw[:1]}, SCHEMA, schema_version=3, unique=["name"])
    result = splits["2013-03-01"]
    assert result.good["source_offset"].to_list() == [0]
    assert splits["2013-03-02"].good.drop("source_offset").equals(result.good.drop("source_offset"))
    assert result.quarantined["source_offset"].to_list() == [1, 2, 3]
    assert result.quarantined["reason"].to_list() == [note["reason"]] * 2 + [
        "count is 'x', which is not a whole number"
    ]
    assert json.loads(result.quarantined["row"][0]) == {"first_line": 3, "last_line": 3, "record": "a"}
    assert json.loads(result.quarantined["row"][2]) == {**GOOD, "count": "x"}


def test_good_rows_are_typed_and_keep_their_offset_and_order():
    result = split_rows({**GOOD, "name": "b"}, {**GOOD, "count": "x"}, GOOD)
    assert result.good.schema == {
        "name": pl.String,
        "count": pl.Int64,
        "share": pl.Float64,
        "is_open": pl.Boolean,
        "seen_utc": pl.Datetime("us", "UTC"),
        "source_offset": pl.Int64,
    }
    assert result.good.row(1) == ("a", 7, 0.5, True, datetime(2013, 3, 1, 5, tzinfo=UTC), 2)
    assert result.good["source_offset"].to_list() == [0, 2]


def test_quarantined_rows_have_offset_reason_version_and_the_raw_row():
    result = split_rows(GOOD, {**GOOD, "count": "1e99x", "share": None})
    assert result.quarantined.schema == {
        "source_offset": pl.Int64,
        "reason": pl.String,
        "schema_version": pl.Int64,
        "row": pl.String,
    }
    offset, reason, version, row = result.quarantined.row(0)
    assert (offset, reason, version) == (1, "count is '1e99x', which is not a whole number", 3)
    assert json.loads(row) == {**GOOD, "count": "1e99x", "share": None}


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"count": "7.0"}, "count is '7.0', which is not a whole number"),
        ({"count": "99999999999999999999"}, "count is '99999999999999999999', which is not a whole number"),
        ({"share": "nan"}, "share is 'nan', which is not a finite number"),
        ({"share": "-inf"}, "share is '-inf', which is not a finite number"),
        ({"share": "half"}, "share is 'half', which is not a finite number"),
        ({"is_open": "yes"}, "is_open is 'yes', which is not true or false"),
        ({"seen_utc": "05:00"}, "seen_utc is '05:00', which is not a moment such as 2013-03-01T05:00:00Z"),
        ({"seen_utc": NO_DAY}, f"seen_utc is '{NO_DAY}', which is not a moment such as 2013-03-01T05:00:00Z"),
        ({"count": None}, "count is empty, and a value is required"),
        ({"count": "101"}, "count is 101, expected in_range(0, 100)"),
        ({"name": "toolong"}, "name is toolong, expected str_length(1, 5)"),
        ({"count": "0"}, "rule broken: an open shop has something"),
        ({"share": None}, "rule broken: share and opening are null together"),
        (
            {"count": "x", "share": "y"},
            "count is 'x', which is not a whole number; share is 'y', which is not " + NUMBER,
        ),
        ({"count": "101", "name": ""}, "name is , expected str_length(1, 5); count is 101, expected in_range(0, 100)"),
    ],
)  # fmt: skip
def test_a_reason_names_the_column_or_rule_and_the_value(cells: dict[str, str | None], reason: str):
    result = split_rows({**GOOD, **cells})
    assert (result.good.height, result.quarantined["reason"].item()) == (0, reason)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ({"count": "7.0"}, "count is not a whole number"),
        ({"count": "101"}, "count is not as expected: in_range(0, 100)"),
        ({"count": None}, "count is empty, and a value is required"),
        ({"count": "0"}, "rule broken: an open shop has something"),
        ({"count": "x", "share": "is 1, expected 2"}, "count is not a whole number; share is not a finite number"),
    ],
)
def test_rows_with_the_same_problem_are_of_one_kind_whatever_their_values(cells: dict[str, str | None], kind: str):
    assert split_rows({**GOOD, **cells}).kinds.to_list() == [kind]


def test_an_undecidable_rule_is_not_broken():
    assert split_rows({**GOOD, "share": None, "is_open": None, "count": "0"}).good.height == 1


def test_the_first_good_row_stays_and_the_others_name_it():
    rows = [{**GOOD, "count": "x"}, GOOD, {**GOOD, "name": "b"}, {**GOOD, "count": "8"}, GOOD]
    result = split_rows(*rows, unique=("name",))
    assert result.good["source_offset"].to_list() == [1, 2]
    assert result.quarantined.select("source_offset", "reason").rows()[1:] == [
        (3, "repeats row 1 of the file in name"),
        (4, "repeats row 1 of the file in name"),
    ]
    assert result.kinds.to_list()[1:] == ["repeats another row of the file"] * 2
    assert result.repeated == 2


def test_rows_of_another_key_are_quarantined_in_the_zone_of_the_grain():
    result = split_rows(
        GOOD, {**GOOD, "seen_utc": "2013-03-01T04:59:59Z"}, key_of=key_column("seen_utc", NEW_YORK.key_of)
    )
    assert result.good["source_offset"].to_list() == [0]
    assert result.quarantined["reason"].item() == "belongs to key 2013-02-28 and landed with 2013-03-01"


def test_several_keys_are_split_together_as_they_are_alone():
    raws = {
        "2013-03-01": landed(GOOD, GOOD),
        "2013-03-02": landed(GOOD, {**GOOD, "count": "x"}),
        "2013-03-03": landed(),
    }
    options: dict[str, Any] = {"unique": ("name",), "key_of": key_column("seen_utc", NEW_YORK.key_of)}
    result = split_keys(raws, SCHEMA, schema_version=1, **options)
    for key, raw in raws.items():
        alone = split(raw, SCHEMA, schema_version=1, key=key, **options)
        assert alone.good.equals(result[key].good)
        assert alone.quarantined.equals(result[key].quarantined)
    assert [(part.good.height, part.quarantined.height) for part in result.values()] == [(1, 1), (0, 2), (0, 0)]
    assert split_keys({}, SCHEMA, schema_version=1) == {}


def test_other_columns_are_an_error_that_names_both_sides():
    with pytest.raises(WrongColumns, match=r"Missing: share; not expected: shares\."):
        split(landed(GOOD).rename({"share": "shares"}), SCHEMA, schema_version=1, key="2013-03-01")


def test_the_order_of_columns_does_not_matter():
    swapped = landed(GOOD).select("seen_utc", "source_offset", "is_open", "share", "count", "name")
    assert split(swapped, SCHEMA, schema_version=1, key="2013-03-01").good.columns[:2] == ["name", "count"]


def test_values_from_a_sources_own_reader_are_used_as_they_are():
    schema = pa.DataFrameSchema({"pixels": pa.Column(pl.Binary), "level": pa.Column(pl.Float64, pa.Check.lt(1))})
    raw = pl.DataFrame(
        {"pixels": [b"\x00\x01", b"\x02"], "level": [0.5, 2.0], "source_offset": [0, 1]},
        schema_overrides={"source_offset": pl.Int64},
    )
    result = split(raw, schema, schema_version=1, key="0001")
    assert result.good.rows() == [(b"\x00\x01", 0.5, 0)]
    assert json.loads(result.quarantined["row"].item()) == {"pixels": "Ag==", "level": 2.0}


CELL = st.one_of(
    st.none(),
    st.text(max_size=6),
    st.sampled_from(list(GOOD.values())),
    st.integers(-5, 105).map(str),
    st.floats(width=16).map(str),
    st.sampled_from(["true", "false", "2013-03-01T23:59:59Z", "2013-03-02T23:00:00Z", "NaN", " 7", "0x1F", "1_0"]),
)
ROW = st.one_of(
    st.just(GOOD), st.fixed_dictionaries({name: st.one_of(st.just(value), CELL) for name, value in GOOD.items()})
)


@given(rows=st.lists(ROW, max_size=12), is_keyed=st.booleans())
@settings(max_examples=draws(60))
def test_good_and_quarantined_are_the_input_and_good_passes_again(rows: list[dict[str, str | None]], is_keyed: bool):
    raw = landed(*rows)
    key_of = key_column("seen_utc", NEW_YORK.key_of) if is_keyed else None
    result = split(raw, SCHEMA, schema_version=1, key="2013-03-01", unique=("name", "count"), key_of=key_of)
    offsets = [*result.good["source_offset"], *result.quarantined["source_offset"]]
    assert sorted(offsets) == list(range(len(rows)))
    assert all(result.quarantined["reason"].str.len_chars() > 0)
    for offset, row in result.quarantined.select("source_offset", "row").iter_rows():
        assert json.loads(row) == rows[offset]
    SCHEMA.validate(result.good.drop("source_offset"), lazy=True)
    assert not result.good.select("name", "count").is_duplicated().any()
    again = result.good.with_columns(pl.col("source_offset"))
    assert split(again, SCHEMA, schema_version=1, key="2013-03-01", unique=("name", "count")).good.equals(result.good)
