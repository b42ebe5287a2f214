"""Join answers with what came true, and say whose rows count.

Belongs here: the joined rows of a key and choosing among them, with polars alone. Does not belong here: any number
that they give (`compute.performance`).

One answer counts per entity and moment, so whoever asks again shifts nothing (`counted`). A key's *main* rows are
those of the bundle that gave most of its answers; on the key of a release other bundles answered too, and their rows
are counted separately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import ingest, skew

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task
    from platform_assets.specs.base import Field

FIRST = ("answered_at_utc", "prediction_id")
"""Which of several answers was given first."""
_PLACE = "_place"
"""A name that no field can have: those begin with a letter."""


def columns(task: Task) -> dict[str, pl.DataType]:
    """Return what every joined row of a task has; the product's slices follow."""
    text = pl.String()
    about = {"prediction_id": text, "entity": text, "digest": text}
    return {**about, **task.said_types(), "label": task.label_type()}


def in_time(predictions: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Return the answers of the task's kind that were given before their key was closed."""
    rows = predictions.drop_nulls(list(task.said_types()))
    return rows.filter(~pl.col(ingest.LATE).fill_null(value=False))


def counted(
    given: pl.DataFrame, ours: pl.DataFrame | None, fields: Sequence[Field], *, is_compared: bool = True
) -> pl.DataFrame:
    """Return the answers of a key that count, in their order: at most one for each entity and moment of ours.

    It is the first whose features equal ours. Where features cannot be compared (no input was logged on the whole
    key, or ours have changed since) it is the first at all. What was asked about an entity or a moment that is not
    ours never counts. Without features of ours it is the first answer for each entity.

    Args:
        given: from `in_time`.
        ours: the platform's features of the key; None while there are none.
        fields: of the product.
        is_compared: whether ours are the features that could be served.
    """
    rows = given.with_row_index(_PLACE)
    if ours is not None:
        classes = skew.classify(given, ours, fields)
        is_checked = is_compared and classes["is_logged"].any()
        rows = rows.filter(classes["is_equal" if is_checked else "is_known"])
    who = ["entity"] if ours is None else list(skew.WHO)
    return rows.sort(FIRST).unique(who, keep="first", maintain_order=True).sort(_PLACE).drop(_PLACE)


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


def digests(rows: pl.DataFrame) -> list[str]:
    """Return the bundles that gave a key's answers, the main one last."""
    counts = rows.with_row_index(_PLACE).group_by("digest").agg(pl.len().alias("rows"), pl.col(_PLACE).max())
    return [str(digest) for digest in counts.sort("rows", _PLACE)["digest"]]


def main_digest(rows: pl.DataFrame) -> str | None:
    """Return the bundle that gave most of a key's answers, of equals the one that gave the last; None without any."""
    return next(reversed(digests(rows)), None)


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
