"""Keys of the recorded product with features, answers in a prediction log, and labels, each written directly."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from platform_assets.base.settings import Settings
from platform_assets.product.spec import Monitors, Retraining
from platform_assets.store.tables import TableStore
from tests.doubles import recorded

SPEC = replace(
    recorded.SPEC,
    slices=("site",),
    retraining=Retraining(performance_window=3),
    monitors=Monitors(min_equal_share=0.95),
)
KEYS = SPEC.grain.span("2020-01-01", "2020-01-12")
OLD, NEW = "a" * 64, "b" * 64
ROWS = 40
FIELDS = ("site", "size", "value")
Features = dict[str, Any]


def rows_of(key: str) -> pl.DataFrame:
    """Return the features of a key together with the answers and outcomes."""
    stream = np.random.default_rng(int(key.replace("-", "")))
    midnight = datetime.fromisoformat(key).replace(tzinfo=UTC)
    chance = stream.uniform(0.05, 0.95, ROWS)
    moments = [midnight + timedelta(minutes=30 * row) for row in range(ROWS)]
    return pl.DataFrame(
        {
            "entity": [f"{key}-{row:02d}" for row in range(ROWS)],
            "service_time": moments,
            "asked_at": [moment - timedelta(hours=1) for moment in moments],
            "site": ["north", "south"] * (ROWS // 2),
            "size": [3, 5] * (ROWS // 2),
            "value": [None if row % 9 == 0 else row for row in range(ROWS)],
            "probability": chance,
            "label": (stream.random(ROWS) < chance).astype(np.int8),
        },
        schema_overrides={"service_time": pl.Datetime("us", "UTC"), "asked_at": pl.Datetime("us", "UTC")},
    )


def store(tables: TableStore, stage: str, key: str, frame: pl.DataFrame) -> None:
    tables.replace(stage, {key: frame}, inputs={key: {}}, code="0")


def build(tables: TableStore, *keys: str) -> None:
    for key in keys:
        store(tables, "features", key, rows_of(key).drop("probability", "label"))


def label(tables: TableStore, *keys: str, first: int = ROWS) -> None:
    for key in keys:
        known_at = pl.lit(datetime(2020, 2, 1, tzinfo=UTC), dtype=pl.Datetime("us", "UTC")).alias("known_at")
        store(tables, "outcomes", key, rows_of(key).select("entity", "label", known_at).head(first))


def record(row: Mapping[str, Any], features: Features | None, **changes: Any) -> dict[str, Any]:
    """Return a line of the prediction log about a row of `rows_of`, answered as soon as it was requested."""
    return {
        "prediction_id": f"{row['entity']}-a",
        "digest": OLD,
        "release": 1,
        "entity": row["entity"],
        "service_time": row["service_time"].isoformat(),
        "asked_at": row["asked_at"].isoformat(),
        "idempotency_key": None,
        "probability": row["probability"],
        "answered_at_utc": row["asked_at"].isoformat(),
        "latency_us": 700,
        "features": features,
        **changes,
    }


def log(settings: Settings, records: Sequence[Mapping[str, Any]]) -> None:
    folder = settings.prediction_log / SPEC.name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(item) for item in records]
    (folder / f"{len(list(folder.iterdir()))}-1.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")


def answer(
    settings: Settings,
    *keys: str,
    digest: Callable[[int], str] = lambda row: OLD,
    change: Callable[[Features], Features | None] = lambda features: features,
    shift: timedelta = timedelta(0),
) -> None:
    """Log an answer for each row of some keys, the inputs changed as a caller's mistake would."""
    log(
        settings,
        [
            record(
                row,
                change({name: row[name] for name in FIELDS}),
                prediction_id=f"{row['entity']}-{digest(number)[:1]}",
                digest=digest(number),
                asked_at=(row["asked_at"] + shift).isoformat(),
            )
            for key in keys
            for number, row in enumerate(rows_of(key).iter_rows(named=True))
        ],
    )


def notes(tables: TableStore, key: str) -> dict[str, Any]:
    return dict(tables.records("performance", [key])[key].notes)
