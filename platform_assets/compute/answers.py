"""Join answers with what came true, and say whose rows count.

Belongs here: the joined rows of a key and choosing among them, with polars alone. Does not belong here: any number
that they give (`compute.performance`).

A key's *main* rows are those of the bundle that gave most of its answers; on the key of a release the others are
listed beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task


def columns(task: Task) -> dict[str, pl.DataType]:
    """Return what every joined row of a task has; the product's slices follow."""
    text = pl.String()
    about = {"prediction_id": text, "entity": text, "digest": text}
    return {**about, **task.said_types(), "label": task.label_type()}


def join(
    predictions: pl.DataFrame,
    outcomes: pl.DataFrame | None,
    ours: pl.DataFrame | None,
    sliced: Sequence[str],
    task: Task,
) -> pl.DataFrame:
    """Return one row a prediction with its label, in the order of predictions.

    Answers of another kind, which the product's task was once, are left out.

    Args:
        predictions: of one key.
        outcomes: of the same key, `entity` and `label`; None when none have landed.
        ours: the platform's features, which give the slices of predictions that were logged without inputs.
        sliced: the product's slices.
        task: the product's.

    Raises:
        ValueError: an entity with two outcomes.
    """
    rows = predictions.drop_nulls(list(task.said_types())).select(
        "prediction_id", "entity", "asked_at", "digest", *task.said_types(), *sliced
    )
    if outcomes is None:
        rows = rows.with_columns(pl.lit(None, dtype=task.label_type()).alias("label"))
    else:
        labels = outcomes.select("entity", pl.col("label").cast(task.label_type()))
        if labels["entity"].is_duplicated().any():
            twice = labels.filter(pl.col("entity").is_duplicated())["entity"][0]
            raise ValueError(f"entity {twice!r} has two outcomes in one key; expected one. Mend the product's `label`.")
        rows = rows.join(labels, on="entity", how="left", maintain_order="left")
    if ours is not None and sliced:
        own = ours.select("entity", "asked_at", *(pl.col(name).alias(f"{name}_ours") for name in sliced))
        rows = rows.join(own, on=["entity", "asked_at"], how="left", maintain_order="left").with_columns(
            pl.coalesce(pl.col(name), pl.col(f"{name}_ours").cast(rows.schema[name])).alias(name) for name in sliced
        )
    return rows.select(*columns(task), *sliced)


def main_digest(rows: pl.DataFrame) -> str | None:
    """Return the bundle that gave most of a key's answers, of equals the one that gave the last; None without any."""
    if rows.is_empty():
        return None
    counts = rows.with_row_index("place").group_by("digest").agg(pl.len().alias("rows"), pl.col("place").max())
    return str(counts.sort("rows", "place")["digest"][-1])


def main_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a key's labelled rows of its main bundle."""
    digest = main_digest(rows)
    return rows.clear() if digest is None else labelled(rows.filter(pl.col("digest") == digest))


def labelled(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose outcome is known and is one."""
    return rows.filter(pl.col("label").is_not_null())


def stacked(by_key: Mapping[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.Series]:
    """Return the rows of all keys and each row's key."""
    keys = [key for key, rows in by_key.items() for _ in range(rows.height)]
    return pl.concat(by_key.values()), pl.Series("key", keys, dtype=pl.String)
