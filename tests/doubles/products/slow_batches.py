"""A tiny live product whose training can be slowed down from outside: numbered batches of measured parts.

If `SLOW_WHILE` names an existing file, a step of the training takes a tenth of a second longer. The trained
model is the same.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from driftline import BatchGrain, Field, Product, Source, Tables, Training, Window

if TYPE_CHECKING:
    import pandera.polars as pa

SLOW_WHILE = "SLOW_WHILE"
SLOW_S = 0.1
PARTS, BATCHES = 40, 8
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
    entity, moment = pl.col("part").alias("entity"), pl.col("known_at_utc")
    return (
        tables["parts"]
        .filter(pl.col("key").is_in(window.keys))
        .sort("key", "part")
        .select("key", entity, moment.alias("service_time"), moment.alias("asked_at"), "width", "weight")
    )


def label(tests: pl.DataFrame) -> pl.DataFrame:
    return tests.select("key", entity="part", label=pl.col("is_broken").cast(pl.Int8), known_at=pl.col("known_at_utc"))


def model(learned: Any, training: Training) -> Any:
    from driftline import TabularNet

    class Net(TabularNet):
        def decide(self, *encoded: Any) -> Any:
            if self.training and Path(os.environ.get(SLOW_WHILE, "-")).exists():
                time.sleep(SLOW_S)
            return super().decide(*encoded)

    return Net(learned, **training.settings)


SPEC = Product(
    name="slow_batches",
    title="Slow batches",
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
        profile="cpu_spot",
        epochs=150,
        batch_size=64,
        learning_rate=1e-2,
        settings={"widths": (32,), "dropout": 0.0},
    ),
    holdout=3,
    min_keys=BATCHES,
    is_live=True,
)
"""Its first decision is to train, as soon as all of its batches have landed."""


def files() -> dict[str, str]:
    """Return the upstream's deliveries by location: a part breaks when both of its numbers have the same sign."""
    result = {}
    for index in range(BATCHES):
        key, rows = SPEC.grain.key_at(index), range(index * PARTS, (index + 1) * PARTS)
        # Steps of two irrational numbers fill the square evenly.
        numbers = {row: (row * 2**0.5 % 2 - 1, row * 3**0.5 % 2 - 1) for row in rows}
        at = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=index)).strftime("%Y-%m-%dT%H:%M:%SZ")
        parts = [f"p{row:04d},{width:.6f},{weight:.6f},{at}" for row, (width, weight) in numbers.items()]
        tests = [f"p{row:04d},{str(width * weight > 0).lower()},{at}" for row, (width, weight) in numbers.items()]
        result[f"parts/{key}.csv"] = "\n".join(["part,width,weight,known_at_utc", *parts, ""])
        result[f"tests/{key}.csv"] = "\n".join(["part,is_broken,known_at_utc", *tests, ""])
    return {f"{SPEC.name}/{index}": text for index, text in result.items()}
