"""A product small enough to train in a second, with numbered batches as keys and rows with every kind of field."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from driftline import BatchGrain, Field, Product, Settings, Source, Training, Window
from platform_assets.store.tables import TableStore

KEYS = tuple(f"{number:04d}" for number in range(1, 9))
TRAINING_KEYS, HOLDOUT_KEYS, CUTOFF = KEYS[:6], KEYS[6:], "0009"
ROWS_A_KEY = 150
KNOWN_AT = datetime(2020, 1, 1, tzinfo=UTC)


def schema() -> Any:
    import pandera.polars as pa

    return pa.DataFrameSchema({})


def features(tables: Any, window: Window) -> pl.DataFrame:
    return pl.concat([feature_rows(key) for key in window.keys])


def label(validated: pl.DataFrame) -> pl.DataFrame:
    return validated


def model(learned: Any, training: Training) -> Any:
    from driftline import TabularNet

    return TabularNet(learned, **training.settings)


SPEC = Product(
    name="tiny",
    title="Tiny",
    description="A synthetic product.",
    grain=BatchGrain(count=20),
    sources=(
        Source(name="facts", description="Facts.", schema=schema, known_at="known_at"),
        Source(name="outcomes", description="Labels.", schema=schema, known_at="known_at", is_label=True),
    ),
    lookback=0,
    features=features,
    fields=(
        Field(name="plain", dtype="float", description="A number."),
        Field(name="holey", dtype="float", description="A number, sometimes null.", is_nullable=True),
        Field(name="colour", dtype="category", description="A category.", is_nullable=True),
        Field(name="count", dtype="int", description="A small number."),
        Field(name="flag", dtype="bool", description="Yes or no."),
        Field(name="maker", dtype="category", description="Another category with the same words."),
    ),
    entity="thing",
    label=label,
    label_delay=0,
    model=model,
    training=Training(
        threads=1, epochs=5, batch_size=64, settings={"widths": (16, 16), "embedding": 3, "dropout": 0.1}
    ),
    holdout=2,
    min_keys=4,
)


def feature_rows(key: str) -> pl.DataFrame:
    """Return the features of one key; the last row's entity never gets a label."""
    stream = np.random.default_rng(int(key))
    colours = np.array(["red", "green", "blue", None], dtype=object)
    return pl.DataFrame(
        {
            "key": [key] * ROWS_A_KEY,
            "entity": [f"{key}-{row}" for row in range(ROWS_A_KEY)],
            "service_time": [KNOWN_AT] * ROWS_A_KEY,
            "asked_at": [KNOWN_AT] * ROWS_A_KEY,
            "plain": stream.normal(size=ROWS_A_KEY),
            "holey": [None if stream.random() < 0.1 else stream.normal() for _ in range(ROWS_A_KEY)],
            "colour": colours[stream.integers(0, 4, ROWS_A_KEY)].tolist(),
            "count": stream.integers(0, 4, ROWS_A_KEY),
            "flag": stream.random(ROWS_A_KEY) < 0.5,
            "maker": [["red", "acme", "rare"][min(2, int(stream.exponential(0.5)))] for _ in range(ROWS_A_KEY)],
        },
        schema_overrides={
            "colour": pl.String,
            "service_time": pl.Datetime("us", "UTC"),
            "asked_at": pl.Datetime("us", "UTC"),
        },
    )


def outcome_rows(key: str) -> pl.DataFrame:
    """Return the labels of one key: likelier when `plain` is high or the colour is red."""
    rows = feature_rows(key)
    stream = np.random.default_rng(1000 + int(key))
    is_red = (rows["colour"] == "red").fill_null(False).to_numpy()
    chance = 1 / (1 + np.exp(-2 * rows["plain"].to_numpy() - 2 * is_red + 1))
    labels = pl.Series("label", (stream.random(ROWS_A_KEY) < chance).astype(np.int8))
    known_at = pl.lit(KNOWN_AT, dtype=pl.Datetime("us", "UTC")).alias("known_at")
    return rows.select("key", "entity").with_columns(labels, known_at).head(ROWS_A_KEY - 1)


def store(settings: Settings, keys: Sequence[str] = KEYS, spec: Product = SPEC) -> dict[str, Any]:
    """Write the tables and return the extras of a training step."""
    from tests.doubles import present  # steps import this file without its package

    tables = TableStore(settings.root, SPEC.name)
    inputs: dict[str, dict[str, str]] = {key: {} for key in keys}
    digests = {
        stage: {
            key: record.content_digest
            for key, record in tables.replace(
                stage,
                {key: make(key) for key in keys},
                inputs=inputs,
                code="0",
                versions=dict.fromkeys(keys, present.of(spec, stage)),
            ).items()
        }
        for stage, make in (("features", feature_rows), ("outcomes", outcome_rows))
    }
    return {
        "product": SPEC.name,
        "module": SPEC.module,
        "cutoff": CUTOFF,
        "fingerprint": "f" * 64,
        "device": "cpu",
        "precision": "float32",
        "training_keys": list(TRAINING_KEYS),
        "holdout_keys": list(HOLDOUT_KEYS),
        **digests,
    }
