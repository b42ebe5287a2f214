"""A tiny product that is a recording: deliveries planned the day before, readings while they are under way.

A row is requested one hour before its start and has the last reading known by then. One reading of every day is not a
number, so it is quarantined. `LEAKY` is the same product with a feature that also reads later values.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from driftline import UNPARTITIONED, DailyGrain, Field, History, Product, Source, Tables, Window

if TYPE_CHECKING:
    import pandera.polars as pa

GRAIN = DailyGrain(start="2020-01-01", end="2020-01-31")
MOMENT = pl.Datetime("us", "UTC")
HOUR = timedelta(hours=1)
STARTS_H = (3, 9, 15, 21)
READINGS_H = range(0, 24, 2)


def deliver(source: str, key: str) -> bytes | None:
    if source == "sites":
        return b"site,size\nnorth,3\nsouth,5\n" if key == UNPARTITIONED else None
    midnight = datetime.fromisoformat(key).replace(tzinfo=UTC)
    day = midnight.day
    starts = [(f"{key}-{hour:02d}", midnight + timedelta(hours=hour)) for hour in STARTS_H]
    if source == "plans":
        known_at = instant_text(midnight - 12 * HOUR)
        rows = [
            f"{name},{('north', 'south')[path % 2]},{instant_text(at)},{known_at}"
            for path, (name, at) in enumerate(starts)
        ]
        return _csv("job_id,site,starts_utc,known_at_utc", rows)
    if source == "results":
        known_at = instant_text(midnight + 47 * HOUR)
        return _csv(
            "job_id,starts_utc,is_good,known_at_utc", [f"{n},{instant_text(at)},true,{known_at}" for n, at in starts]
        )
    moments = [midnight + timedelta(hours=hour) for hour in READINGS_H]
    rows = [f"{instant_text(at)},{day * 100 + at.hour},{instant_text(at + HOUR / 2)}" for at in moments]
    return _csv("read_at_utc,value,known_at_utc", [*rows, f"{instant_text(midnight)},broken,{instant_text(midnight)}"])


def instant_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _csv(header: str, rows: list[str]) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def _schema(**columns: Any) -> Any:
    def schema() -> pa.DataFrameSchema:
        import pandera.polars as pa

        return pa.DataFrameSchema({name: pa.Column(dtype) for name, dtype in columns.items()}, strict=True)

    return schema


def _keyed(name: str, at: str, **columns: Any) -> Source:
    return Source(
        name=name,
        description=f"{name.capitalize()}.",
        schema=_schema(**columns, known_at_utc=MOMENT),
        known_at="known_at_utc",
        partition_by=at,
        is_label=name == "results",
    )


def features(tables: Tables, window: Window) -> pl.DataFrame:
    return _features(tables, window, is_leaky=False)


def _leaky_features(tables: Tables, window: Window) -> pl.DataFrame:
    return _features(tables, window, is_leaky=True)


def _features(tables: Tables, window: Window, *, is_leaky: bool) -> pl.DataFrame:
    jobs = (
        tables["plans"]
        .filter(pl.col("key").is_in(window.keys))
        .select("key", pl.col("job_id").alias("entity"), pl.col("starts_utc").alias("service_time"), "site")
        .with_columns((pl.col("service_time") - HOUR).alias("asked_at"))
    )
    seen_at = "read_at_utc" if is_leaky else "known_at_utc"
    readings = tables["readings"].select(pl.col(seen_at).alias("at"), "value").sort("at")
    reach = "service_time" if is_leaky else "asked_at"
    return (
        jobs.sort(reach)
        .join_asof(readings, left_on=reach, right_on="at", check_sortedness=False)
        .join(tables["sites"].select("site", "size"), on="site", how="left", maintain_order="left")
        .sort("key", "service_time")
        .select("key", "entity", "service_time", "asked_at", "site", "size", "value")
    )


def label(results: pl.DataFrame) -> pl.DataFrame:
    return results.select(
        "key",
        pl.col("job_id").alias("entity"),
        pl.col("is_good").cast(pl.Int8).alias("label"),
        pl.col("known_at_utc").alias("known_at"),
    )


SPEC = Product(
    name="recorded",
    title="Recorded",
    description="A synthetic recording.",
    grain=GRAIN,
    sources=(
        _keyed("plans", "starts_utc", job_id=pl.String, site=pl.String, starts_utc=MOMENT),
        _keyed("readings", "read_at_utc", read_at_utc=MOMENT, value=pl.Int64),
        _keyed("results", "starts_utc", job_id=pl.String, starts_utc=MOMENT, is_good=pl.Boolean),
        Source(name="sites", description="Sites.", schema=_schema(site=pl.String, size=pl.Int64), is_slow=True),
    ),
    lookback=1,
    features=features,
    fields=(
        Field(name="site", dtype="category", description="Where."),
        Field(name="size", dtype="int", description="How large the site is."),
        Field(name="value", dtype="int", description="The last reading.", is_nullable=True),
    ),
    entity="job",
    label=label,
    label_delay=1,
    model=lambda learned, training: None,
    holdout=2,
    min_keys=4,
    history=History(deliver=deliver, demo_first="2020-01-01", demo_last="2020-01-10"),
)

LEAKY = replace(SPEC, features=_leaky_features)
