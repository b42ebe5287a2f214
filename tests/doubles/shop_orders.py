"""A small daily product whose orders come from an asset of the host, and the rows that such an asset writes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from driftline import DailyGrain, Field, Product, Source, Tables, Window

if TYPE_CHECKING:
    import pandera.polars as pa

GRAIN = DailyGrain(start="2026-01-01", end="2026-03-31")
KEYS = ("2026-01-01", "2026-01-02", "2026-01-03")
MOMENT = pl.Datetime("us", "UTC")


def orders_schema() -> pa.DataFrameSchema:
    import pandera.polars as pa

    columns = {"id": pa.Column(pl.String), "at": pa.Column(MOMENT), "amount": pa.Column(pl.Float64)}
    return pa.DataFrameSchema(columns)


def returns_schema() -> pa.DataFrameSchema:
    import pandera.polars as pa

    columns = {"id": pa.Column(pl.String), "is_back": pa.Column(pl.Boolean), "at": pa.Column(MOMENT)}
    return pa.DataFrameSchema(columns)


def features(tables: Tables, window: Window) -> pl.DataFrame:
    orders = tables["orders"].filter(pl.col("key").is_in(window.keys)).sort("key", "id")
    return orders.select("key", entity="id", service_time="at", asked_at="at", amount="amount")


def label(returns: pl.DataFrame) -> pl.DataFrame:
    return returns.select("key", entity="id", label=pl.col("is_back").cast(pl.Int8), known_at="at")


def model(learned: Any, training: Any) -> Any:
    raise NotImplementedError("no test trains it")


ORDERS = Source(
    name="orders",
    description="Orders of the shop.",
    schema=orders_schema,
    known_at="at",
    unique=("id",),
    deadline=timedelta(days=30),
    asset="orders",  # type: ignore[arg-type]  # what a person may write
)
SPEC = Product(
    name="shop_orders",
    title="Shop orders",
    description="Which orders come back?",
    grain=GRAIN,
    sources=(
        ORDERS,
        Source(name="returns", description="What came back.", schema=returns_schema, known_at="at", is_label=True),
    ),
    lookback=0,
    features=features,
    fields=(Field(name="amount", dtype="float", description="Paid."),),
    entity="order",
    label=label,
    label_delay=1,
    model=model,
    holdout=2,
    min_keys=4,
)


def spec(**changes: Any) -> Product:
    return replace(SPEC, sources=(replace(ORDERS, **changes), *SPEC.sources[1:]))


def rows(*keys: str, amount: float = 1.0) -> pl.DataFrame:
    hours = [(key, hour) for key in keys for hour in (1, 12, 23)]
    moments = [datetime.fromisoformat(key).replace(tzinfo=UTC) + timedelta(hours=hour) for key, hour in hours]
    return pl.DataFrame(
        {"id": [f"{key}-{hour}" for key, hour in hours], "at": moments, "amount": [amount * hour for _, hour in hours]},
        schema={"id": pl.String, "at": MOMENT, "amount": pl.Float64},
    )
