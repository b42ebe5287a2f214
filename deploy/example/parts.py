"""A small live product to try a deployment with: batches of measured parts, and which of them break in a test.

`deliveries.py` writes its files. Copy this file into platform_assets/products.
"""

import polars as pl

from driftline import BatchGrain, Field, Product, Retraining, Source, Training

MOMENT = pl.Datetime("us", "UTC")


def parts_schema():
    """Check a delivery of measured parts."""
    import pandera.polars as pa

    number = pa.Column(pl.Float64, pa.Check.in_range(-10, 10))
    columns = {"part": pa.Column(pl.String), "width": number, "weight": number, "known_at_utc": pa.Column(MOMENT)}
    return pa.DataFrameSchema(columns, strict=True)


def tests_schema():
    """Check a delivery of test results."""
    import pandera.polars as pa

    columns = {"part": pa.Column(pl.String), "is_broken": pa.Column(pl.Boolean), "known_at_utc": pa.Column(MOMENT)}
    return pa.DataFrameSchema(columns, strict=True)


def features(tables, window):
    """Return the measurements of the window's parts."""
    moment = pl.col("known_at_utc")
    rows = tables["parts"].filter(pl.col("key").is_in(window.keys)).sort("key", "part")
    times = (moment.alias("service_time"), moment.alias("asked_at"))
    return rows.select("key", pl.col("part").alias("entity"), *times, "width", "weight")


def label(tests):
    """Return which parts broke."""
    return tests.select("key", entity="part", label=pl.col("is_broken").cast(pl.Int8), known_at=pl.col("known_at_utc"))


def model(learned, training):
    """Build a small network."""
    from driftline import TabularNet

    return TabularNet(learned, **training.settings)


def source(name, schema, **more):
    """Declare a source whose rows are parts."""
    return Source(name=name, schema=schema, known_at="known_at_utc", unique=("part",), **more)


SPEC = Product(
    name="parts",
    title="Parts",
    description="Will a measured part break in its test?",
    grain=BatchGrain(count=100),
    sources=(
        source("parts", parts_schema, description="Width and weight of parts."),
        source("tests", tests_schema, description="Which parts broke.", is_label=True),
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
    training=Training(epochs=150, batch_size=128, learning_rate=1e-2, settings={"widths": (32,), "dropout": 0.0}),
    holdout=2,
    min_keys=8,
    retraining=Retraining(decide_every=1, cooldown=4, performance_window=3),
    is_live=True,
)
