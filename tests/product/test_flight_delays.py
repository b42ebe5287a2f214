"""The reference product: deliveries, quarantine, fields, labels."""

import json

import numpy as np
import polars as pl
import pytest

from platform_assets.data import validation
from platform_assets.engine.product_files import load
from platform_assets.training.matrix import numeric_columns
from tests.product.conftest import Year

pytestmark = pytest.mark.slow

SPEC = load("flight_delays")


def landed_csv(source: str, key: str) -> pl.DataFrame:
    data = SPEC.history.deliver(source, key)
    return pl.read_csv(data, infer_schema=False).with_columns(source_offset=pl.int_range(pl.len(), dtype=pl.Int64))


def validate_rows(source: str, key: str, raw: pl.DataFrame) -> validation.Split:
    source_spec = SPEC.source(source)
    key_of = validation.key_column(source_spec.partition_by, SPEC.grain.key_of) if source_spec.partition_by else None
    return validation.split(
        raw, source_spec.schema(), schema_version=1, unique=source_spec.unique, key=key, key_of=key_of
    )


def test_the_whole_year_is_delivered_exactly_once(year: Year):
    assert year.landed["schedules"] == year.landed["movements"] == year.landed["outcomes"] == 336_776
    assert year.landed["weather"] == 26_115
    assert year.landed["reference"] == 3_322 + 1_458 + 16
    assert year.tables["schedules"]["flight_id"].n_unique() == year.tables["schedules"].height


@pytest.mark.parametrize(
    ("flight_id", "scheduled"),
    [
        ("2013-07-01-HA-51-JFK-1000", ("2013-07-01T14:00:00Z", "2013-07-02T00:30:00Z")),
        ("2013-07-01-B6-745-JFK-2359", ("2013-07-02T03:59:00Z", "2013-07-02T07:50:00Z")),
        ("2013-11-03-B6-745-JFK-2359", ("2013-11-04T04:59:00Z", "2013-11-04T08:45:00Z")),
    ],
)
def test_arrivals_are_in_the_zone_of_the_destination(flight_id: str, scheduled: tuple[str, str]):
    flight = landed_csv("schedules", flight_id[:10]).filter(pl.col("flight_id") == flight_id)
    assert flight.select("sched_dep_utc", "sched_arr_utc").row(0) == scheduled


def test_arrival_less_departure_is_never_shorter_than_the_time_in_the_air(year: Year):
    flown = year.tables["movements"].filter(pl.col("arr_at_utc").is_not_null())
    ground = (flown["arr_at_utc"] - flown["dep_at_utc"]).dt.total_minutes() - flown["arr_air_time_min"]
    assert 0 < ground.min() <= ground.max() < 300


def test_an_outcome_is_known_one_key_later_and_after_its_flight(year: Year):
    labels, movements = year.tables["outcomes"], year.tables["movements"]
    keys = validation.key_column("known_at_utc", SPEC.grain.key_of)(labels)
    delay = [
        SPEC.grain.index(known_key) - SPEC.grain.index(key)
        for known_key, key in set(zip(keys, labels["key"], strict=True))
        if SPEC.grain.contains(known_key)
    ]
    assert set(delay) == {SPEC.label_delay}
    both = labels.join(movements.select("flight_id", "arr_known_at_utc"), on="flight_id")
    assert not (both["known_at_utc"] < both["arr_known_at_utc"]).any()


def test_the_year_quarantines_six_flights_and_one_observation(year: Year):
    result = year.quarantined.select("source", "key", "reason").rows()
    too_late = "dep_delay_min is {}, expected in_range(-120, 1000)"
    assert [(source, key, reason.split(";")[0]) for source, key, reason in result] == [
        ("schedules", "2013-07-27", "distance_miles is 17, expected in_range(50, 6000)"),
        ("movements", "2013-01-09", too_late.format(1301)),
        ("movements", "2013-01-10", too_late.format(1126)),
        ("movements", "2013-06-15", too_late.format(1137)),
        ("movements", "2013-07-22", too_late.format(1005)),
        ("movements", "2013-09-20", too_late.format(1014)),
        ("weather", "2013-02-12", "wind_speed_mph is 1048.36058, expected in_range(0, 150)"),
    ]
    good = {name: table.height for name, table in year.tables.items()}
    bad = dict(year.quarantined.group_by("source").len().rows())
    assert {name: good[name] + bad.get(name, 0) for name in good} == year.landed


MORNING = "2013-03-01T05:30:00Z"
DEP_NULLS = "rule broken: departure time, delay and known-at are null together"
ARR_NULLS = "rule broken: arrival time, delay, air time and known-at are null together"


@pytest.mark.parametrize(
    ("source", "column", "value", "reason"),
    [
        ("movements", "dep_at_utc", None, DEP_NULLS),
        ("movements", "dep_delay_min", None, DEP_NULLS),
        ("movements", "dep_delay_min", "500", "rule broken: departure is the schedule plus the delay"),
        ("movements", "dep_known_at_utc", MORNING, "rule broken: no departure is known before it happens"),
        ("movements", "arr_known_at_utc", MORNING, "rule broken: no arrival is known before it happens"),
        ("movements", "arr_at_utc", MORNING, "rule broken: arrival is after departure"),
        ("movements", "arr_air_time_min", None, ARR_NULLS),
        ("schedules", "carrier", "united", "carrier is united, expected"),
        ("schedules", "origin", "BOS", "origin is BOS, expected isin"),
        ("schedules", "sched_arr_utc", MORNING, "rule broken: a flight is scheduled to last"),
        ("schedules", "known_at_utc", "2013-03-01T12:00:00Z", "rule broken: the schedule is known when"),
        (
            "schedules",
            "sched_dep_utc",
            "01.03.2013 05:00",
            "sched_dep_utc is '01.03.2013 05:00', which is not a moment",
        ),
        ("outcomes", "is_cancelled", "true", "rule broken: the delay is null exactly when"),
        ("outcomes", "known_at_utc", MORNING, "rule broken: an outcome is known after its flight"),
        ("weather", "known_at_utc", "2013-03-01T04:00:00Z", "rule broken: no observation is known before it is made"),
        ("weather", "temperature_f", "cold", "temperature_f is 'cold', which is not a finite number"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_quarantined_with_its_reason(source: str, column: str, value: str | None, reason: str):
    raw = landed_csv(source, "2013-03-01")
    broken = raw.with_columns(pl.when(pl.col("source_offset") == 3).then(pl.lit(value)).otherwise(column).alias(column))
    result = validate_rows(source, "2013-03-01", broken)
    assert result.quarantined["source_offset"].to_list() == [3]
    assert reason in result.quarantined["reason"].item()
    assert json.loads(result.quarantined["row"].item())[column] == value


@pytest.mark.parametrize(
    ("kind", "column", "reason"),
    [
        ("plane", "seats", "every plane has manufacturer and seats"),
        ("airport", "latitude_deg", "every airport has name and latitude_deg and longitude_deg"),
        ("airline", "name", "every airline has name"),
    ],
)
def test_reference_rows_are_validated_by_their_kind(kind: str, column: str, reason: str):
    raw = landed_csv("reference", "all").filter(pl.col("kind") == kind).head(3).with_columns(pl.lit(None).alias(column))
    assert validate_rows("reference", "all", raw.cast({column: pl.String})).quarantined[
        "reason"
    ].unique().to_list() == [f"rule broken: {reason}"]


def test_a_day_landed_under_another_key_is_quarantined_completely():
    result = validate_rows("movements", "2013-03-02", landed_csv("movements", "2013-03-01"))
    assert result.good.height == 0
    assert result.quarantined["reason"].unique().to_list() == ["belongs to key 2013-03-01 and landed with 2013-03-02"]


def test_every_value_of_the_year_is_in_its_declared_range_and_nullability(year: Year):
    for item in SPEC.fields:
        values = year.built[item.name]
        assert item.is_nullable == (values.null_count() > 0), f"{item.name}: fix is_nullable in the product's file"
        assert values.null_count() < values.len() * 0.99, f"{item.name} is nearly always null"
        if item.low is not None:
            assert item.low <= values.min() <= values.max() <= item.high, f"{item.name}: fix its range"
        if item.dtype == "float":
            assert values.is_finite().all(), f"{item.name} is not finite somewhere"


def test_labels_are_late_arrivals_and_null_without_one(year: Year):
    labels = SPEC.label(year.tables["outcomes"])
    assert labels.schema == {
        "key": pl.String,
        "entity": pl.String,
        "label": pl.Int8,
        "known_at": pl.Datetime("us", "UTC"),
    }
    assert labels["label"].null_count() == 9_430
    assert labels["label"].mean() == pytest.approx(0.245, abs=0.001)
    delays = pl.DataFrame({"arr_delay_min": [14, 15, None, -3]}).with_columns(
        key=pl.lit("k"), flight_id=pl.lit("f"), known_at_utc=pl.lit(None)
    )
    assert SPEC.label(delays)["label"].to_list() == [0, 1, None, 0]


def test_no_single_field_predicts_the_outcome(year: Year):
    """A leak shows up as a single field that ranks late flights far too well: the full model reaches .795 in June."""
    june = year.built.filter(pl.col("key").str.starts_with("2013-06")).join(
        SPEC.label(year.tables["outcomes"]).select("entity", "label"), on="entity"
    )
    for name in numeric_columns(SPEC.fields):
        rows = june.select(pl.col(name).cast(pl.Float64), "label").drop_nulls()
        late = rows["label"].to_numpy() == 1
        ranks = rows[name].rank("average").to_numpy()
        area = (ranks[late].mean() - (late.sum() + 1) / 2) / np.maximum((~late).sum(), 1)
        assert 0.22 < area < 0.78, f"{name} alone has AUC {area:.3f}: a leak?"


def test_no_field_reveals_a_missing_tail_number(year: Year):
    """Null tail numbers occur only on cancelled flights, so nothing may be null for them alone."""
    unassigned = year.tables["schedules"].filter(pl.col("tail_number").is_null())["flight_id"]
    is_unassigned = year.built["entity"].is_in(unassigned.implode())
    assert is_unassigned.sum() == 2_511
    for item in SPEC.fields:
        is_null = year.built[item.name].is_null()
        share = (is_null & is_unassigned).sum() / max(1, is_null.sum())
        assert share < 0.2, f"{item.name}: {share:.0%} of its nulls are flights without a tail number"
    assert "tail_number" not in year.built.columns
