"""A tiny product to break: readings name the entities, air may be left out, verdicts arrive two batches later."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from driftline import BatchGrain, CrossRule, Field, Monitors, Product, Source, Tables, Training, Window
from platform_assets.base import naming

if TYPE_CHECKING:
    import pandera.polars as pa

SENSORS, HOURS = 30, 12
GRAIN = BatchGrain(count=60)
MOMENT = pl.Datetime("us", "UTC")
NUMBERS = ("temperature", "pressure", "humidity")


def _schema(**columns: Any) -> Any:
    def schema() -> pa.DataFrameSchema:
        import pandera.polars as pa

        checked_columns = {name: pa.Column(dtype, nullable=name in NUMBERS) for name, dtype in columns.items()}
        return pa.DataFrameSchema({**checked_columns, "known_at": pa.Column(MOMENT)}, strict=True)

    return schema


def features(tables: Tables, window: Window) -> pl.DataFrame:
    air = tables["air"].group_by("key").agg(pl.col("temperature").mean())
    return (
        tables["readings"]
        .filter(pl.col("key").is_in(window.keys))
        .join(air, on="key", how="left", maintain_order="left")
        .select(
            "key",
            pl.col("sensor").alias("entity"),
            pl.col("known_at").alias("service_time"),
            pl.col("known_at").alias("asked_at"),
            "reading",
            "temperature",
            "colour",
        )
    )


def label(verdicts: pl.DataFrame) -> pl.DataFrame:
    return verdicts.select(
        "key", pl.col("sensor").alias("entity"), pl.col("is_broken").cast(pl.Int8).alias("label"), "known_at"
    )


def model(learned: Any, training: Training) -> Any:
    from driftline import TabularNet

    return TabularNet(learned, **training.settings)


def _without_reading(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return tables["verdicts"].join(tables["readings"], on="sensor", how="anti")


SPEC = Product(
    name="watched_batches",
    title="Watched batches",
    description="Sensors that break.",
    grain=GRAIN,
    sources=(
        Source(
            name="readings",
            description="Readings, a file a batch.",
            schema=_schema(sensor=pl.String, reading=pl.Float64, colour=pl.String),
            known_at="known_at",
            unique=("sensor",),
        ),
        Source(
            name="air",
            description="The air around them.",
            schema=_schema(**dict.fromkeys(NUMBERS, pl.Float64)),
            known_at="known_at",
            unique=("known_at",),
        ),
        Source(
            name="verdicts",
            description="What broke.",
            schema=_schema(sensor=pl.String, is_broken=pl.Boolean),
            known_at="known_at",
            unique=("sensor",),
            is_label=True,
        ),
    ),
    lookback=1,
    features=features,
    fields=(
        Field(name="reading", dtype="float", description="Now."),
        Field(name="temperature", dtype="float", description="Mean of the batch.", is_nullable=True),
        Field(name="colour", dtype="category", description="Painted."),
    ),
    entity="sensor",
    label=label,
    label_delay=2,
    model=model,
    training=Training(threads=1, epochs=1, batch_size=64, settings={"widths": (4,), "embedding": 2, "dropout": 0.0}),
    holdout=2,
    min_keys=4,
    monitors=Monitors(
        rules=(
            CrossRule(
                name="every verdict is of a sensor that was read",
                sources=("verdicts", "readings"),
                broken=_without_reading,
            ),
        ),
        record_keys=8,
        min_record_keys=3,
        season=1,
        drift_window=2,
        repair_within=2,
    ),
)


def moment(key: str) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=int(key))


def frame(source: str, key: str) -> pl.DataFrame:
    """Return the rows of a source as a sound upstream delivers them: independent draws per key."""
    stream = np.random.default_rng([int(key), len(source)])
    at = moment(key)
    if source == "air":
        return pl.DataFrame(
            {
                **{name: stream.normal(size=HOURS).round(3) for name in NUMBERS},
                "known_at": [at + timedelta(hours=hour) for hour in range(HOURS)],
            }
        )
    sensors = {"sensor": [f"s{index}" for index in range(SENSORS)]}
    if source == "verdicts":
        broken = stream.random(SENSORS) < 0.4
        return pl.DataFrame({**sensors, "is_broken": broken, "known_at": [at + timedelta(days=2)] * SENSORS})
    colours = [("red", "green", "blue")[index % 3] for index in range(SENSORS)]
    values = {"reading": stream.normal(size=SENSORS).round(3), "colour": colours}
    return pl.DataFrame({**sensors, **values, "known_at": [at] * SENSORS})


def land(root: str | Path, source: str, key: str, rows: pl.DataFrame | None = None) -> None:
    path = Path(naming.landing_location(str(root), f"{SPEC.name}/{source}", key, ".csv"))
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_suffix(".waiting")
    (frame(source, key) if rows is None else rows).write_csv(waiting, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    waiting.rename(path)


def land_all(root: str | Path, first: str, last: str) -> None:
    """Deliver readings and air of a range, and the verdicts known by then."""
    keys = GRAIN.span(first, last)
    for key in keys:
        land(root, "readings", key)
        land(root, "air", key)
    for key in keys[: -SPEC.label_delay]:
        land(root, "verdicts", key)


def frozen_air(key: str) -> pl.DataFrame:
    """Return the air of a batch with its first values in every row."""
    return frame("air", key).with_columns(pl.col(NUMBERS).first())
