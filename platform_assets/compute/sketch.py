"""Sketch rows as counts: what a reference looked like, field by field, small enough to seal in a bundle.

Belongs here: one pass over rows into JSON values. Does not belong here: comparing two sketches (`compute.drift`).

The bins are those of the training rows' quantiles, so that sketches of other rows with the same `learned` compare
bin by bin. Bin 0 holds values up to the first edge, bin i those above edge i-1 up to edge i, the last those above
the last edge: a training set has none of these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from platform_assets.compute.learn import Learned

FORMAT = 1
PREDICTION_BINS = 20


def sketch(frame: pl.DataFrame, learned: Learned, *, probability: np.ndarray, label: str = "label") -> dict[str, Any]:
    """Sketch rows in one polars pass.

    Args:
        frame: the fields' columns as in the features table, and the label column.
        learned: the columns and the edges of their bins.
        probability: float32 [N], what the model says about the same rows.
        label: the name of a column of zeros, ones and nulls.

    Returns:
        JSON values: `rows`; for each numeric field `edges`, `counts`, `nulls`, `low`, `high`, `mean`; for each
        category `counts` by known value, `other` and `nulls`; `label` and `prediction` as histograms.

    Raises:
        ValueError: no rows, or not one probability a row.
    """
    if frame.height == 0 or len(probability) != frame.height:
        raise ValueError(
            f"got {frame.height} rows and {len(probability)} probabilities; expected equally many, at least one."
        )
    wanted: list[pl.Expr] = [
        pl.col(label).is_null().sum().alias("label.nulls"),
        (pl.col(label) == 1).sum().alias("label.ones"),
    ]
    for item in learned.numeric:
        value = pl.col(item.name).cast(pl.Float32).fill_nan(None)
        wanted += [(value <= edge).sum().alias(f"{item.name}.{place}") for place, edge in enumerate(item.edges)]
        wanted += [
            value.null_count().alias(f"{item.name}.nulls"),
            value.cast(pl.Float64).mean().alias(f"{item.name}.mean"),
        ]
        wanted += [value.min().alias(f"{item.name}.low"), value.max().alias(f"{item.name}.high")]
    for column in learned.categorical:
        text = pl.col(column.name).cast(pl.String)
        wanted += [text.null_count().alias(f"{column.name}.nulls")]
        wanted += [text.drop_nulls().value_counts(name="count").implode().alias(f"{column.name}.counts")]
    found = frame.rechunk().select(wanted).row(0, named=True)
    counts, _ = np.histogram(np.asarray(probability, dtype=np.float64), bins=PREDICTION_BINS, range=(0.0, 1.0))
    return {
        "format": FORMAT,
        "rows": frame.height,
        "numeric": {item.name: _numeric(found, item.name, item.edges, frame.height) for item in learned.numeric},
        "categorical": {item.name: _categorical(found, item.name, item.vocabulary) for item in learned.categorical},
        "label": {
            "nulls": found["label.nulls"],
            "zeros": frame.height - found["label.nulls"] - found["label.ones"],
            "ones": found["label.ones"],
        },
        "prediction": {"low": 0.0, "high": 1.0, "counts": counts.tolist()},
    }


def _numeric(found: dict[str, Any], name: str, edges: tuple[float, ...], rows: int) -> dict[str, Any]:
    nulls = found[f"{name}.nulls"]
    upto = [found[f"{name}.{place}"] for place in range(len(edges))]
    return {
        "edges": list(edges),
        "counts": np.diff([0, *upto, rows - nulls]).tolist(),
        "nulls": nulls,
        "low": found[f"{name}.low"],
        "high": found[f"{name}.high"],
        "mean": None if nulls == rows else float(np.float32(found[f"{name}.mean"])),
    }


def _categorical(found: dict[str, Any], name: str, vocabulary: tuple[str, ...]) -> dict[str, Any]:
    seen = {item[name]: item["count"] for item in found[f"{name}.counts"]}
    return {
        "counts": {value: seen.get(value, 0) for value in vocabulary if value},
        "other": sum(count for value, count in seen.items() if value not in vocabulary),
        "nulls": found[f"{name}.nulls"],
    }
