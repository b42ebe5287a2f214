"""Feature rows that a service would refuse are set aside; every other row stays unchanged."""

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.data import declared
from platform_assets.product.fields import Field

FIELDS = (
    Field(name="speed", dtype="float", description="", low=0.0, high=10.0),
    Field(name="depth", dtype="float", description="", is_nullable=True, low=-5.0),
    Field(name="count", dtype="int", description="", high=3),
    Field(name="kind", dtype="category", description=""),
    Field(name="is_new", dtype="bool", description="", is_nullable=True),
    Field(name="front", dtype="image", description="", shape=(1, 2)),
)
SOUND: dict[str, Any] = {"speed": 1.0, "depth": None, "count": 3, "kind": "a", "is_new": None, "front": b"ab"}
TYPES = {
    "speed": pl.Float64(),
    "depth": pl.Float32(),
    "count": pl.Int64(),
    "kind": pl.String(),
    "is_new": pl.Boolean(),
    "front": pl.Binary(),
}
BROKEN = [
    ({"speed": None}, "speed is null and not nullable"),
    ({"speed": -0.1}, "speed is outside its declared range, 0.0 to 10.0"),
    ({"speed": 10.1}, "speed is outside its declared range, 0.0 to 10.0"),
    ({"speed": math.nan}, "speed is not a finite number"),
    ({"depth": math.inf}, "depth is not a finite number"),
    ({"depth": -5.5}, "depth is outside its declared range, -5.0 to None"),
    ({"count": 4}, "count is outside its declared range, None to 3"),
    ({"kind": None}, "kind is null and not nullable"),
    ({"front": b"abc"}, "front is not an image of 1 x 2 bytes"),
    ({"front": None}, "front is null and not nullable"),
]


def rows_of(*changes: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**SOUND, **item} for item in changes], schema=TYPES)


@pytest.mark.parametrize(("change", "reason"), BROKEN)
def test_each_broken_rule_has_its_reason(change: dict[str, Any], reason: str) -> None:
    remaining, reasons = declared.split(rows_of({}, change, {}), FIELDS)
    assert reasons.to_list() == [reason]
    assert remaining.equals(rows_of({}, {}))


@given(st.lists(st.sampled_from([({}, None), *BROKEN]), max_size=30))
def test_good_rows_and_rows_set_aside_are_all_rows(drawn: list[tuple[dict[str, Any], str | None]]) -> None:
    rows = rows_of(*(change for change, _ in drawn)) if drawn else pl.DataFrame(schema=TYPES)
    remaining, reasons = declared.split(rows, FIELDS)
    assert reasons.to_list() == [reason for _, reason in drawn if reason is not None]
    assert remaining.equals(
        rows_of(*({} for _, reason in drawn if reason is None)) if remaining.height else rows.clear()
    )
    again, more = declared.split(remaining, FIELDS)
    assert (again.height, more.len()) == (remaining.height, 0)
    notes = declared.notes(reasons)
    assert notes == {} or notes[declared.PUT_ASIDE] == reasons.len() == sum(notes[declared.BY_REASON].values())


def test_columns_of_only_nulls_or_of_text_raise_no_error() -> None:
    rows = rows_of({}).with_columns(pl.lit(None).alias("speed"), pl.lit("x").alias("count"))
    assert declared.split(rows, FIELDS)[1].to_list() == ["speed is null and not nullable"]
