"""A small live product for a whole loop: batches of measured parts, of which other ones break from some batch on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from driftline import BatchGrain, Field, Product, Retraining, Service, Source, Tables, Training, Window

if TYPE_CHECKING:
    import pandera.polars as pa

PARTS, LEARNED = 200, 8
"""Rows of a batch, and batches before the first model."""
MOMENT = pl.Datetime("us", "UTC")


def parts_schema() -> pa.DataFrameSchema:
    import pandera.polars as pa

    number = pa.Column(pl.Float64, pa.Check.in_range(-10, 10))
    columns = {"part": pa.Column(pl.String), "width": number, "weight": number, "known_at_utc": pa.Column(MOMENT)}
    return pa.DataFrameSchema(columns, strict=True)


def tests_schema() -> pa.DataFrameSchema:
    import pandera.polars as pa

    columns = {"part": pa.Column(pl.String), "is_broken": pa.Column(pl.Boolean), "known_at_utc": pa.Column(MOMENT)}
    return pa.DataFrameSchema(columns, strict=True)


def features(tables: Tables, window: Window) -> pl.DataFrame:
    moment = pl.col("known_at_utc")
    return (
        tables["parts"]
        .filter(pl.col("key").is_in(window.keys))
        .sort("key", "part")
        .select(
            "key",
            pl.col("part").alias("entity"),
            moment.alias("service_time"),
            moment.alias("asked_at"),
            "width",
            "weight",
        )
    )


def label(tests: pl.DataFrame) -> pl.DataFrame:
    return tests.select("key", entity="part", label=pl.col("is_broken").cast(pl.Int8), known_at=pl.col("known_at_utc"))


def model(learned: Any, training: Training) -> Any:
    from driftline import TabularNet

    return TabularNet(learned, **training.settings)


SPEC = Product(
    name="live_parts",
    title="Live parts",
    description="Which parts break?",
    grain=BatchGrain(count=40),
    sources=(
        Source(
            name="parts",
            description="Parts.",
            schema=parts_schema,
            known_at="known_at_utc",
            unique=("part",),
            arrives="rename",
        ),
        Source(
            name="tests",
            description="What broke.",
            schema=tests_schema,
            known_at="known_at_utc",
            unique=("part",),
            is_label=True,
            arrives="rename",
        ),
    ),
    lookback=0,
    features=features,
    fields=(
        Field(name="width", dtype="float", description="Measured."),
        Field(name="weight", dtype="float", description="Measured."),
    ),
    entity="part",
    label=label,
    label_delay=0,
    model=model,
    training=Training(
        profile="cpu_small",
        epochs=150,
        batch_size=128,
        learning_rate=1e-2,
        settings={"widths": (32,), "dropout": 0.0},
    ),
    holdout=2,
    min_keys=LEARNED,
    retraining=Retraining(decide_every=1, cooldown=4, performance_window=3),
    # A replica that was killed with its volume says no goodbye.
    service=Service(answers_patience=timedelta(seconds=45)),
    is_live=True,
)


def rows(index: int, *, is_changed: bool = False) -> list[dict[str, Any]]:
    """Return a batch's parts, of which one breaks when both of its numbers have the same sign.

    After the change parts are wider by 2, and what counts is by how much they are.
    """
    result = []
    for row in range(index * PARTS, (index + 1) * PARTS):
        # Steps of two irrational numbers fill the square evenly.
        width, weight = round(row * 2**0.5 % 2 - 1, 6), round(row * 3**0.5 % 2 - 1, 6)
        part = {"part": f"p{row:05d}", "width": width + 2 * is_changed, "weight": weight}
        result.append({**part, "is_broken": width * weight > 0})
    return result


def files(index: int, at: datetime, *, is_changed: bool = False) -> dict[str, str]:
    """Return the deliveries of a batch by location, all of them known at one moment."""
    known_at, key = at.strftime("%Y-%m-%dT%H:%M:%SZ"), SPEC.grain.key_at(index)
    batch = rows(index, is_changed=is_changed)
    parts = [f"{row['part']},{row['width']:.6f},{row['weight']:.6f},{known_at}" for row in batch]
    tests = [f"{row['part']},{str(row['is_broken']).lower()},{known_at}" for row in batch]
    return {
        f"{SPEC.name}/parts/{key}.csv": "\n".join(["part,width,weight,known_at_utc", *parts, ""]),
        f"{SPEC.name}/tests/{key}.csv": "\n".join(["part,is_broken,known_at_utc", *tests, ""]),
    }


def question(row: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """Return the request for one part at a moment."""
    return {
        "entity": row["part"],
        "service_time": at.isoformat(),
        "asked_at": at.isoformat(),
        "features": {"width": row["width"], "weight": row["weight"]},
        "idempotency_key": row["part"],
    }


def first_moments(now: datetime) -> list[datetime]:
    """Return when each of the batches before the first model was known: one a day, the last of them yesterday."""
    return [now - timedelta(days=LEARNED - index) for index in range(LEARNED)]
