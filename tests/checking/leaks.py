"""Ways in which features see what was not known when they were asked, each a product of its own.

The product without a leak: will a parcel be late? Asked four hours before the promised moment. A leak adds the field
`leak` to it, and where it needs that, columns or a source. `HONEST` adds a field that looks back as it should.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from driftline import MOMENT_FORMAT, DailyGrain, Field, History, LightGbm, Product, Source, Tables, Timeline, Window

GRAIN = DailyGrain(start="2026-01-01", end="2026-02-15", time_zone="UTC")
MOMENT, HOUR, MINUTE = pl.Datetime("us", "UTC"), timedelta(hours=1), timedelta(minutes=1)
LEAD = 4 * HOUR
DEPOTS = ("east", "north", "south")
PARCELS = 24

Rows: TypeAlias = Callable[[pl.DataFrame], pl.DataFrame]
"""`(the day's parcels with their outcomes) -> rows of a source`."""
Feature: TypeAlias = Callable[[pl.DataFrame, Tables, Window], pl.Series]
"""`(requests, tables, window) -> the field's values`, one per request."""


def day(key: str) -> pl.DataFrame:
    start = datetime.fromisoformat(key).replace(tzinfo=UTC)
    stream = np.random.default_rng(start.toordinal())
    pressure, depots = stream.normal(), stream.integers(0, 3, PARCELS)
    weights = stream.uniform(0.1, 20.0, PARCELS).round(2)
    delay = (14 + 8 * pressure + 5 * depots + 0.4 * weights + stream.normal(0, 12, PARCELS)).round().astype(int)
    return pl.DataFrame(
        {
            "parcel": [f"{key}-{number:02d}" for number in range(PARCELS)],
            "depot": [DEPOTS[number] for number in depots],
            "weight_kg": weights,
            "promised_at_utc": [start + 8 * HOUR + int(minute) * MINUTE for minute in stream.integers(0, 720, PARCELS)],
            "delay_min": delay,
            "luck": stream.random(PARCELS),
            "coin": stream.integers(0, 2, PARCELS),
        },
        schema_overrides={"promised_at_utc": MOMENT},
    ).with_columns(
        delivered_at_utc=pl.col("promised_at_utc") + pl.duration(minutes="delay_min"),
        is_late=(pl.col("delay_min") > 20).cast(pl.Int64),
    )


NOISY = pl.when(pl.col("luck") < 0.85).then("is_late").otherwise(1 - pl.col("is_late"))
"""The outcome, wrong for every seventh parcel."""
SEEN = pl.col("delivered_at_utc") + 10 * MINUTE
_EVENING = pl.col("promised_at_utc").dt.truncate("1d") - 6 * HOUR


def parcels(days: pl.DataFrame) -> pl.DataFrame:
    """Return the plan, known on the evening before."""
    return days.select("parcel", "depot", "weight_kg", "promised_at_utc", known_at_utc=_EVENING)


def with_columns(**columns: pl.Expr) -> dict[str, Rows]:
    return {"parcels": lambda days: pl.concat([parcels(days), days.select(**columns)], how="horizontal")}


def scans(days: pl.DataFrame) -> pl.DataFrame:
    """Return each depot's load, hour by hour; known two hours later."""
    start = days["promised_at_utc"].dt.truncate("1d")[0]
    stream = np.random.default_rng(start.toordinal())
    late = dict(days.group_by("depot").agg(pl.col("delay_min").mean()).iter_rows())
    rows = [
        (depot, start + hour * HOUR, int(60 + hour * late.get(depot, 0.0) / 4 + stream.integers(0, 30)))
        for hour in range(24)
        for depot in DEPOTS
    ]
    frame = pl.DataFrame(rows, schema={"depot": pl.String, "scanned_at_utc": MOMENT, "load": pl.Int64}, orient="row")
    return frame.with_columns(known_at_utc=pl.col("scanned_at_utc") + 2 * HOUR)


def arrivals(days: pl.DataFrame) -> pl.DataFrame:
    """Return the outcomes as an input for later parcels, each known ten minutes after it happened."""
    return days.select("parcel", "depot", "promised_at_utc", "is_late", known_at_utc=SEEN)


def depots(_: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({"depot": DEPOTS, "docks": [8, 12, 20]})


def results(days: pl.DataFrame) -> pl.DataFrame:
    """Return the labels, known on the next morning."""
    morning = pl.col("promised_at_utc").dt.truncate("1d") + 30 * HOUR
    return days.select("parcel", "promised_at_utc", "is_late", known_at_utc=morning)


SOURCES: dict[str, Rows] = {
    "parcels": parcels,
    "scans": scans,
    "arrivals": arrivals,
    "depots": depots,
    "results": results,
}


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One leak.

    Attributes:
        name: of the leak.
        sentence: what the field sees.
        feature: the values of the field `leak`.
        second: the values of a second field, `leak_too`.
        rows: sources that differ from the honest product's, or come in addition.
        known_at_of: per source what its declaration would be.
    """

    name: str
    sentence: str
    feature: Feature
    second: Feature | None = None
    rows: Mapping[str, Rows] = field(default_factory=dict)
    known_at_of: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)


def _own(*columns: str) -> Callable[[pl.DataFrame, Tables, Window], pl.DataFrame]:
    """Return the columns of each request's own parcel."""

    def look_up(asks: pl.DataFrame, tables: Tables, _: Window) -> pl.DataFrame:
        rows = tables["parcels"].select("parcel", *columns)
        return asks.select("parcel").join(rows, on="parcel", how="left", maintain_order="left").select(columns)

    return look_up


def _column(name: str) -> Feature:
    return lambda asks, tables, window: _own(name)(asks, tables, window)[name]


def _minutes_after_promise(name: str) -> Feature:
    def feature(asks: pl.DataFrame, tables: Tables, window: Window) -> pl.Series:
        return (_own(name)(asks, tables, window)[name] - asks["service_time"]).dt.total_minutes()

    return feature


def _last_of(source: str, column: str) -> Feature:
    """Return a column of each parcel's last row in a source, whenever that came."""

    def feature(asks: pl.DataFrame, tables: Tables, _: Window) -> pl.Series:
        last = tables[source].sort("known_at_utc", maintain_order=True).unique("parcel", keep="last")
        return asks.join(last.select("parcel", leak=column), on="parcel", how="left", maintain_order="left")["leak"]

    return feature


def _mean_of_all(asks: pl.DataFrame, tables: Tables, _: Window) -> pl.Series:
    means = tables["scans"].group_by("depot").agg(leak=pl.col("load").mean())
    return asks.join(means, on="depot", how="left", maintain_order="left")["leak"]


def _near(strategy: str, by: str = "known_at_utc", offset: timedelta = timedelta(0)) -> Feature:
    """Join the scan that is near to the ask, by one of its moments."""

    def feature(asks: pl.DataFrame, tables: Tables, _: Window) -> pl.Series:
        facts = tables["scans"].sort(by, "depot").select("depot", at=by, leak="load")
        moments = asks.with_row_index().with_columns(at=pl.col("asked_at") + offset).sort("at")
        near = moments.join_asof(facts, on="at", by="depot", strategy=strategy, check_sortedness=False)  # type: ignore[arg-type]
        return near.sort("index")["leak"]

    return feature


def _position(asks: pl.DataFrame, tables: Tables, _: Window) -> pl.Series:
    order = tables["parcels"].select("parcel", leak=pl.int_range(pl.len()).over("key"))
    return asks.join(order, on="parcel", how="left", maintain_order="left")["leak"]


def _newest_crew(asks: pl.DataFrame, tables: Tables, _: Window) -> pl.Series:
    crews = tables["depots"].sort("crew_since_utc").unique("depot", keep="last").select("depot", leak="crew")
    return asks.join(crews, on="depot", how="left", maintain_order="left")["leak"]


def _crews(_: pl.DataFrame) -> pl.DataFrame:
    first = GRAIN.instant(GRAIN.first)
    rows = [
        (depot, 4 + (5 * week + 3 * place) % 7, first + 7 * week * timedelta(days=1))
        for place, depot in enumerate(DEPOTS)
        for week in range(7)
    ]
    return pl.DataFrame(rows, schema={"depot": pl.String, "crew": pl.Int64, "crew_since_utc": MOMENT}, orient="row")


def _corrections(days: pl.DataFrame) -> pl.DataFrame:
    """Return each parcel's weight twice: as announced, and weighed again after delivery (late ones were heavier)."""
    columns = ("parcel", "promised_at_utc")
    first = days.select(*columns, "weight_kg", known_at_utc=pl.col("promised_at_utc") - 12 * HOUR)
    return pl.concat([first, days.select(*columns, pl.col("weight_kg") + NOISY, known_at_utc=SEEN)])


_SEEN: dict[str, float] = {}


def _remembered(asks: pl.DataFrame, tables: Tables, _: Window) -> pl.Series:
    """Keep the first average seen of each depot and day, and return it in every later call."""
    for depot, key, mean in tables["scans"].group_by("depot", "key").agg(pl.col("load").mean()).iter_rows():
        _SEEN.setdefault(f"{depot} {key}", mean)
    return pl.Series(
        [_SEEN.get(f"{depot} {key}") for depot, key in asks.select("depot", "key").iter_rows()], dtype=pl.Float64
    )


LEAKS = (
    Leak(
        name="status",
        sentence="A column of the own row, `status`, whose moment is in `status_known_at_utc`.",
        rows=with_columns(status=NOISY, status_known_at_utc=SEEN),
        known_at_of={"parcels": {"status": "status_known_at_utc"}},
        feature=_column("status"),
    ),
    Leak(
        name="other_name",
        sentence="A column of the own row whose moment has another name (`remark`, `seen_on`).",
        rows=with_columns(remark=NOISY, seen_on=SEEN),
        known_at_of={"parcels": {"remark": "seen_on"}},
        feature=_column("remark"),
    ),
    Leak(
        name="shared_moment",
        sentence="Two columns that share one moment, `closing_utc`, and are named like neither it nor each other.",
        rows=with_columns(fee=NOISY * 3, code=pl.col("coin") + 2 * NOISY, closing_utc=SEEN),
        known_at_of={"parcels": {"fee": "closing_utc", "code": "closing_utc"}},
        feature=_column("code"),
    ),
    Leak(
        name="own_outcome",
        sentence="The outcome itself, written into the planned row afterwards, without a moment (`delay_min`).",
        rows=with_columns(delay_min=pl.col("delay_min")),
        feature=_column("delay_min"),
    ),
    Leak(
        name="clock_value",
        sentence="The actual time of an event in the planned row: its value is the outcome (`delivered_at_utc`).",
        rows=with_columns(delivered_at_utc=pl.col("delivered_at_utc")),
        known_at_of={"parcels": {"delivered_at_utc": "delivered_at_utc"}},
        feature=_minutes_after_promise("delivered_at_utc"),
    ),
    Leak(
        name="null_pattern",
        sentence="A column that is null where the parcel was late: whether it is null gives the label away.",
        rows=with_columns(signed_by=pl.when(pl.col("is_late") == 0).then(pl.lit("neighbour"))),
        feature=lambda asks, tables, window: _column("signed_by")(asks, tables, window).is_null(),
    ),
    Leak(
        name="presence",
        sentence="Whether the own parcel has a row in a source whose rows come after the event.",
        feature=lambda asks, tables, _: asks["parcel"].is_in(tables["arrivals"]["parcel"].to_list()),
    ),
    Leak(name="whole_window", sentence="A mean over all rows of the tables that are passed in.", feature=_mean_of_all),
    Leak(
        name="event_time",
        sentence="Filtered by when something happened, which was known two hours later.",
        feature=_near("backward", by="scanned_at_utc"),
    ),
    Leak(
        name="either_or",
        sentence="Two columns of the own row that tell the outcome only together.",
        rows=with_columns(lane=pl.col("coin"), shift=(pl.col("coin") + pl.col("is_late")) % 2),
        feature=_column("lane"),
        second=_column("shift"),
    ),
    Leak(
        name="row_order",
        sentence="The position in a file that was written in the order of delivery.",
        rows={"parcels": lambda days: parcels(days.sort("delay_min"))},
        feature=_position,
    ),
    Leak(
        name="slow_history",
        sentence="The newest row of a slow table that holds a history with moments (`crew_since_utc`).",
        rows={"depots": _crews},
        feature=_newest_crew,
    ),
    Leak(
        name="correction",
        sentence="The last version of a row that is corrected after the event.",
        rows={"weights": _corrections},
        feature=_last_of("weights", "weight_kg"),
    ),
    Leak(
        name="cumulative",
        sentence="A count of the whole day that the upstream wrote into each row, without a moment.",
        rows=with_columns(late_today=pl.col("is_late").sum().over("depot")),
        feature=_column("late_today"),
    ),
    Leak(
        name="number_of_keys",
        sentence="The number of keys in the window.",
        feature=lambda asks, _, window: pl.repeat(len(window.keys), asks.height, eager=True),
    ),
    Leak(name="remembered", sentence="An average of the day kept in a global between calls.", feature=_remembered),
    Leak(
        name="label_copy",
        sentence="The labels in a second source whose moments are wrong: known on the evening before.",
        rows={"arrivals": lambda days: arrivals(days).with_columns(known_at_utc=_EVENING)},
        feature=_last_of("arrivals", "is_late"),
    ),
)

HONEST = Leak(
    name="honest",
    sentence="The newest known load.",
    feature=lambda asks, tables, _: Timeline(asks, tables["scans"].sort("known_at_utc", "depot"), by=("depot",)).latest(
        ["load"], 6 * HOUR
    )["load"],
)


def product(leak: Leak, **declared: Any) -> Product:
    """Return the product with a leak.

    Args:
        leak: the leak.
        declared: per source, fields of `Source` that differ.
    """
    makers = {**SOURCES, **leak.rows}
    made = {"leak": leak.feature} | ({} if leak.second is None else {"leak_too": leak.second})

    def features(tables: Tables, window: Window) -> pl.DataFrame:
        moment = pl.col("promised_at_utc")
        asks = (
            tables["parcels"]
            .filter(pl.col("key").is_in(list(window.keys)))
            .sort("key", "parcel")
            .select("key", "parcel", "depot", "weight_kg", service_time=moment, asked_at=moment - LEAD)
        )
        values = [feature(asks, tables, window).cast(pl.Float64).alias(name) for name, feature in made.items()]
        return asks.select(
            *("key", pl.col("parcel").alias("entity"), "service_time", "asked_at", "depot", "weight_kg"), *values
        )

    def deliver(source: str, key: str) -> bytes:
        rows = makers[source](day(GRAIN.first if source == "depots" else key))
        return rows.write_csv(datetime_format=MOMENT_FORMAT).encode()

    return Product(
        name=f"parcels_{leak.name}",
        title="Parcels",
        description="Will a parcel be more than 20 minutes late, asked four hours before?",
        grain=GRAIN,
        sources=tuple(_source(name, rows, **declared.get(name, {})) for name, rows in makers.items()),
        lookback=1,
        features=features,
        fields=(
            Field(name="depot", dtype="category", description="The depot."),
            Field(name="weight_kg", dtype="float", description="The weight."),
            *(Field(name=name, dtype="float", is_nullable=True, description=leak.sentence) for name in made),
        ),
        entity="parcel",
        label=lambda rows: rows.select(
            "key", entity="parcel", label=pl.col("is_late").cast(pl.Int8), known_at="known_at_utc"
        ),
        label_delay=1,
        model=LightGbm(rounds=10),
        holdout=4,
        min_keys=10,
        history=History(deliver=deliver, demo_first="2026-01-01", demo_last="2026-01-20"),
    )


def _source(name: str, rows: Rows, **declared: Any) -> Source:
    sample = rows(day(GRAIN.first))
    is_slow = name == "depots"

    def schema() -> Any:
        import pandera.polars as pa

        return pa.DataFrameSchema({item: pa.Column(kind, nullable=True) for item, kind in sample.schema.items()})

    timed = (
        {}
        if is_slow
        else {"known_at": "known_at_utc", "partition_by": "scanned_at_utc" if name == "scans" else "promised_at_utc"}
    )
    return Source(
        name=name,
        description=f"The source {name}.",
        schema=schema,
        is_slow=is_slow,
        is_label=name == "results",
        **{**timed, **declared},
    )
