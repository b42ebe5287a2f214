"""Served features against our own: equal on real rows through a real log line, an error for each caller mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from platform_assets.data import answer_rows
from platform_assets.demo import replay
from platform_assets.engine import product_files
from platform_assets.monitoring import skew
from platform_assets.monitoring.performance import LEAST_EQUAL
from platform_assets.product.spec import Field, Monitors, Window
from platform_assets.store.records.decisions import Skew
from platform_assets.store.records.performance import Compared, Differing

KEY = "2013-03-05"
FIELDS = (
    Field(name="speed", dtype="float", description="Speed."),
    Field(name="is_new", dtype="bool", description="New.", is_nullable=True),
    Field(name="maker", dtype="category", description="Maker.", is_nullable=True),
)
NOON = datetime.fromisoformat("2020-01-05T12:00:00+00:00")


def frame(*rows: tuple[Any, ...]) -> pl.DataFrame:
    names = ("entity", "speed", "is_new", "maker")
    types = {"entity": pl.String, "speed": pl.Float64, "is_new": pl.Boolean, "maker": pl.String}
    result = pl.DataFrame(rows, schema={name: types[name] for name in names}, orient="row")
    return result.with_columns(pl.lit(NOON, dtype=pl.Datetime("us", "UTC")).alias("asked_at"))


OURS = frame(("a", 1.5, True, "x"), ("b", None, None, None), ("c", 0.1, False, "y"))


def test_equal_means_equal_to_the_model():
    served = frame(("a", 1.5, True, "x"), ("b", None, None, "z"), ("c", 0.1 + 1e-12, False, "y"))
    result = skew.compare(served, OURS, FIELDS)
    assert (result.rows, result.rows_equal, result.share) == (3, 2, pytest.approx(2 / 3))
    assert result.fields == [
        Differing(
            field="maker",
            rows=1,
            share=pytest.approx(1 / 3),
            entity="b",
            asked_at=NOON.isoformat(),
            served="z",
            ours=None,
        )
    ]


@pytest.mark.parametrize("served", [("b", 0.0, None, "x"), ("b", None, False, "x"), ("a", None, True, "x")])
def test_null_equals_only_null(served):
    result = skew.compare(frame(served), OURS, FIELDS)
    assert result.rows_equal == 0


def test_an_entity_or_a_moment_that_we_do_not_have_is_not_equal():
    later = frame(("a", 1.5, True, "x")).with_columns(pl.col("asked_at") + timedelta(hours=5))
    rows = frame(("d", 1.5, True, "x"), ("a", 1.5, True, "x"), ("b", None, None, None))
    result = skew.compare(pl.concat([later, rows]), OURS, FIELDS)
    assert (result.rows, result.rows_equal, result.rows_unknown, result.fields) == (2, 0, 2, [])
    assert skew.classify(rows, OURS, FIELDS).rows() == [(True, False, False), (True, True, True), (False, True, False)]


def test_an_entity_counts_once_however_often_it_is_requested():
    rows = frame(("a", 1.5, True, "x"), ("c", 0.1, False, "y"))
    often = pl.concat([rows, *[frame(("a", 9.0, True, "x"))] * 1_000])
    result = skew.compare(often, OURS, FIELDS)
    assert (result.rows, result.rows_equal, result.share) == (2, 1, 0.5)
    assert [(entry.field, entry.rows, entry.share) for entry in result.fields] == [("speed", 1, 0.5)]
    assert skew.judge(result, 0.5) == Skew(rows=2, share=0.5, limit=0.5, is_skewed=False)
    assert skew.judge(result, 0.51).is_skewed
    assert skew.judge(None, 0.99) == Skew(rows=0, share=None, limit=0.99, is_skewed=False)


def test_rows_logged_without_inputs_are_left_out_and_without_rows_there_is_no_share():
    result = skew.compare(frame(("a", None, None, None)), OURS, FIELDS)
    assert (result.rows, result.share) == (0, None)


def test_the_fields_that_differ_most_come_first():
    served = frame(("a", 2.5, True, "x"), ("c", 0.2, False, "q"))
    result = skew.compare(served, OURS, FIELDS)
    assert [(entry.field, entry.rows) for entry in result.fields] == [("speed", 2), ("maker", 1)]


def test_two_of_our_rows_for_one_moment_are_an_error():
    with pytest.raises(ValueError, match="hold one entity and moment twice"):
        skew.compare(OURS, pl.concat([OURS, OURS]), FIELDS)
    with pytest.raises(ValueError, match="the served rows lack maker"):
        skew.compare(OURS.drop("maker"), OURS, FIELDS)


# Real rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Day:
    """One key of the reference product: its past facts, and the platform's own features."""

    spec: product_files.Product
    tables: dict[str, pl.DataFrame]
    ours: pl.DataFrame

    def features(self, **tables: pl.DataFrame) -> pl.DataFrame:
        return self.spec.features({**self.tables, **tables}, Window(grain=self.spec.grain, keys=(KEY,)))

    def served(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows as read from the prediction log into which a service wrote them."""
        lines = [
            json.dumps(
                {
                    "prediction_id": row["entity"],
                    "digest": "d",
                    "release": 1,
                    "probability": 0.5,
                    "latency_us": 1,
                    **{name: row[name].isoformat() for name in ("service_time", "asked_at")},
                    "answered_at_utc": row["asked_at"].isoformat(),
                    "entity": row["entity"],
                    "features": {item.name: row[item.name] for item in self.spec.fields},
                }
            )
            for row in rows.iter_rows(named=True)
        ]
        parsed = answer_rows.parse(
            "\n".join([*lines, ""]).encode(), self.spec.fields, self.spec.task, file="f", offset=0
        )
        assert parsed.left_out == ()
        return parsed.rows

    def compare(self, rows: pl.DataFrame) -> Compared:
        return skew.compare(self.served(rows), self.ours, self.spec.fields)


@pytest.fixture(scope="module")
def day() -> Day:
    spec = product_files.load("flight_delays")
    tables = replay.known_tables(spec, KEY)
    return Day(spec=spec, tables=tables, ours=spec.features(tables, Window(grain=spec.grain, keys=(KEY,))))


def weather_moved(day: Day, shift: timedelta, *columns: str) -> pl.DataFrame:
    moved = day.tables["weather"].with_columns(pl.col(name) + shift for name in columns)
    return day.features(weather=moved.sort("observed_at_utc", "origin"))


def changed(day: Day, *columns: pl.Expr) -> pl.DataFrame:
    return day.ours.with_columns(columns)


def utc_minute(column: str) -> pl.Expr:
    return (pl.col(column).dt.hour().cast(pl.Int64) * 60 + pl.col(column).dt.minute()).alias("dep_minute")


MISTAKES: dict[str, tuple[Callable[[Day], pl.DataFrame], str]] = {
    "weather in local time taken for UTC": (
        lambda day: weather_moved(day, -timedelta(hours=5), "observed_at_utc", "known_at_utc"),
        "temperature_f",
    ),
    "the local departure minute told in UTC": (lambda day: changed(day, utc_minute("service_time")), "dep_minute"),
    "weather an hour older": (lambda day: weather_moved(day, timedelta(hours=1), "known_at_utc"), "weather_age_min"),
    "Celsius for Fahrenheit": (lambda day: changed(day, (pl.col("temperature_f") - 32) * 5 / 9), "temperature_f"),
    "hours for minutes": (lambda day: changed(day, pl.col("tail_arr_age_min") // 60), "tail_arr_age_min"),
}


def test_features_built_by_a_caller_in_time_equal_those_we_build_afterwards(day: Day):
    result = day.compare(day.ours)
    assert result.rows == day.ours.height > 800
    assert (result.share, result.fields) == (1.0, [])
    by_request = [request["features"] for request in replay.requests(day.spec, KEY)]
    in_order = day.ours.sort("asked_at", "entity").select(item.name for item in day.spec.fields)
    assert by_request == in_order.to_dicts()


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_of_a_caller_is_an_error_that_names_its_field(day: Day, name: str):
    make, field = MISTAKES[name]
    result = day.compare(make(day))
    assert result.share < Monitors().min_equal_share < LEAST_EQUAL
    (entry,) = (entry for entry in result.fields if entry.field == field)
    assert entry.rows > 400
    assert entry.served != entry.ours


def test_requests_in_local_time_match_none_of_our_moments(day: Day):
    result = day.compare(changed(day, pl.col("asked_at") - timedelta(hours=5)))
    assert (result.share, result.rows_unknown) == (0.0, day.ours.height)


def test_images_are_compared_by_their_grey_levels() -> None:
    fields = (Field(name="photo", dtype="image", description="", shape=(1, 2)),)
    rows = pl.DataFrame({"entity": ["a", "b"], "asked_at": [NOON, NOON], "photo": [b"\x00\x01", b"\x02\x03"]})
    result = skew.compare(rows.with_columns(photo=pl.Series([b"\x00\x01", b"\x02\xff"])), rows, fields)
    assert (result.rows, result.rows_equal) == (2, 1)
    (field,) = result.fields
    assert (field.field, field.entity) == ("photo", "b")
    assert field.served.startswith("2 bytes, sha256 ")
    assert field.served != field.ours
