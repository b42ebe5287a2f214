"""A tiny product whose keys are numbered batches: readings of sensors, a slow catalogue, verdicts two batches later.

Its numbers are closed forms: sensor `s` of batch `b` reads `10 * b + s`, so a feature can be computed by hand.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from driftline import BatchGrain, Field, Product, Source, Tables, Training, Window
from platform_assets.base import naming

if TYPE_CHECKING:
    import pandera.polars as pa

SENSORS = 6
GRAIN = BatchGrain(count=40)
MOMENT = pl.Datetime("us", "UTC")
COLOURS = ("red", "green", "blue")


def readings_schema() -> pa.DataFrameSchema:
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "sensor": pa.Column(pl.String, pa.Check.str_matches(r"^s\d+$")),
            "reading": pa.Column(pl.Float64, pa.Check.in_range(0, 1_000)),
            "colour": pa.Column(pl.String, nullable=True),
            "known_at_utc": pa.Column(MOMENT),
        },
        strict=True,
    )


def catalogue_schema() -> pa.DataFrameSchema:
    import pandera.polars as pa

    return pa.DataFrameSchema({"sensor": pa.Column(pl.String), "weight": pa.Column(pl.Int64)}, strict=True)


def verdicts_schema() -> pa.DataFrameSchema:
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "sensor": pa.Column(pl.String),
            "is_broken": pa.Column(pl.Boolean),
            "known_at_utc": pa.Column(MOMENT),
        },
        strict=True,
    )


def features(tables: Tables, window: Window) -> pl.DataFrame:
    """Return for each sensor its reading, its mean over up to three batches, its colour and weight."""
    readings = tables["readings"].with_columns(place=pl.col("key").cast(pl.Int64))
    mean = (
        readings.join(readings, on="sensor", suffix="_then")
        .filter((pl.col("place") - pl.col("place_then")).is_between(0, 2))
        .group_by("key", "sensor")
        .agg(pl.col("reading_then").mean().alias("recent_mean"))
    )
    return (
        readings.filter(pl.col("key").is_in(window.keys))
        .join(mean, on=["key", "sensor"])
        .join(tables["catalogue"].select("sensor", "weight"), on="sensor", how="left")
        .sort("key", "sensor")
        .select(
            "key",
            pl.col("sensor").alias("entity"),
            pl.col("known_at_utc").alias("service_time"),
            pl.col("known_at_utc").alias("asked_at"),
            "reading",
            "recent_mean",
            "colour",
            "weight",
        )
    )


def label(verdicts: pl.DataFrame) -> pl.DataFrame:
    return verdicts.select(
        "key",
        pl.col("sensor").alias("entity"),
        pl.col("is_broken").cast(pl.Int8).alias("label"),
        pl.col("known_at_utc").alias("known_at"),
    )


def model(learned: Any, training: Training) -> Any:
    from driftline import TabularNet

    return TabularNet(learned, **training.settings)


SPEC = Product(
    name="numbered_batches",
    title="Numbered batches",
    description="Sensors that break.",
    grain=GRAIN,
    sources=(
        Source(
            name="readings",
            description="Readings, a file a batch.",
            schema=readings_schema,
            known_at="known_at_utc",
            unique=("sensor",),
        ),
        Source(name="catalogue", description="Sensors and their weights.", schema=catalogue_schema, is_slow=True),
        Source(
            name="verdicts",
            description="What broke, two batches later.",
            schema=verdicts_schema,
            known_at="known_at_utc",
            unique=("sensor",),
            is_label=True,
        ),
    ),
    lookback=2,
    features=features,
    fields=(
        Field(name="reading", dtype="float", description="Now."),
        Field(name="recent_mean", dtype="float", description="Over this batch and two before."),
        Field(name="colour", dtype="category", description="Painted.", is_nullable=True),
        Field(name="weight", dtype="int", description="Of the sensor.", is_nullable=True),
    ),
    entity="sensor",
    label=label,
    label_delay=2,
    model=model,
    training=Training(threads=1, epochs=1, batch_size=16, settings={"widths": (8,), "embedding": 2, "dropout": 0.0}),
    holdout=2,
    min_keys=4,
)


def moment(key: str) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=int(key))


def readings(key: str) -> str:
    number = int(key)
    colours = [COLOURS[(number + sensor) % 3] if sensor else "" for sensor in range(SENSORS)]
    lines = [f"s{s},{10 * number + s}.0,{colour},{_text(moment(key))}" for s, colour in enumerate(colours)]
    return "\n".join(["sensor,reading,colour,known_at_utc", *lines, ""])


def verdicts(key: str) -> str:
    """Return the file of a batch's verdicts: every second sensor broke."""
    known_at = _text(moment(key) + timedelta(hours=2))
    lines = [f"s{sensor},{'true' if sensor % 2 else 'false'},{known_at}" for sensor in range(SENSORS)]
    return "\n".join(["sensor,is_broken,known_at_utc", *lines, ""])


def catalogue() -> str:
    """Return the slow table: all sensors except the last."""
    return "\n".join(["sensor,weight", *(f"s{sensor},{100 + sensor}" for sensor in range(SENSORS - 1)), ""])


def land(root: str | Path, source: str, key: str, text: str) -> Path:
    """Deliver one file as an upstream does: written next to its place, then renamed."""
    path = Path(naming.landing_location(str(root), f"{SPEC.name}/{source}", key, ".csv"))
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_suffix(".waiting")
    waiting.write_text(text, encoding="utf-8")
    return waiting.rename(path)


def land_all(root: str | Path, first: str, last: str, *, labels_until: str | None = None) -> None:
    """Deliver the catalogue, readings from `first` to `last`, and the verdicts known by then."""
    land(root, "catalogue", naming.UNPARTITIONED, catalogue())
    for key in GRAIN.span(first, last):
        land(root, "readings", key, readings(key))
    labelled = GRAIN.span(first, last)[: -SPEC.label_delay] if labels_until is None else GRAIN.span(first, labels_until)
    for key in labelled:
        land(root, "verdicts", key, verdicts(key))


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
