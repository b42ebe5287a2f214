"""Join answers with outcomes, and select the rows that count.

One answer counts per entity and moment, so asking again changes nothing (`select`). A key's *main* rows are those of
the bundle that gave most of its answers. On the key of a release other bundles answered too; their rows are counted
separately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.data import answer_rows
from platform_assets.data.rows import Rows, about
from platform_assets.monitoring import skew

if TYPE_CHECKING:
    from platform_assets.product.spec import Field
    from platform_assets.product.tasks import Task

FIRST = ("answered_at_utc", "prediction_id")
"""Sort order that puts the earliest of several answers first."""
_POSITION = "_position"
"""Cannot be a field's name: those begin with a letter."""


def columns(task: Task) -> dict[str, pl.DataType]:
    """Return the columns of joined rows; the product's slices follow them."""
    text = pl.String()
    about = {"prediction_id": text, "entity": text, "digest": text}
    return {**about, **task.answer_types(), "label": task.label_type()}


def in_time(predictions: Rows, task: Task) -> Rows:
    """Select the answers of the task's kind that were given before their key was closed."""
    names = list(task.answer_types())
    decisive = predictions.select([*names, answer_rows.LATE])
    is_late = pl.col(answer_rows.LATE).fill_null(value=False)
    return predictions.filter(decisive.select(pl.all_horizontal(pl.col(names).is_not_null()) & ~is_late).to_series())


def select(served: Rows, ours: Rows | None, fields: Sequence[Field], *, is_compared: bool = True) -> pl.DataFrame:
    """Select the answers of a key that count, in their order: at most one per entity and moment of ours.

    It is the first whose features equal ours. Where features cannot be compared (no inputs were logged on the whole
    key, or ours have changed since) it is simply the first. Answers about entities or moments that are not ours never
    count. Without features of ours it is the first answer per entity.

    Args:
        served: from `in_time`.
        ours: the platform's features of the key; None if there are none.
        is_compared: whether ours are the features that were available at serving time.
    """
    rows = about(served).with_row_index(_POSITION)
    if ours is not None:
        classes = skew.classify(served, ours, fields)
        is_checked = is_compared and classes["is_logged"].any()
        rows = rows.filter(classes["is_equal" if is_checked else "is_known"])
    identity = ["entity"] if ours is None else list(skew.WHO)
    # Otherwise whoever asks a thousand times about one entity shifts what is measured.
    return rows.sort(FIRST).unique(identity, keep="first", maintain_order=True).sort(_POSITION).drop(_POSITION)


def join(
    predictions: pl.DataFrame, outcomes: pl.DataFrame | None, ours: Rows | None, sliced: Sequence[str], task: Task
) -> pl.DataFrame:
    """Return one row per prediction with its label, in the order of predictions.

    Answers of another kind are left out (the product's task may have changed).

    Args:
        predictions: of one key.
        outcomes: of the same key, `entity` and `label`; None when none have landed.
        ours: the platform's features; they supply the slices of predictions logged without inputs.
        sliced: the product's slices.

    Raises:
        ValueError: an entity has two outcomes.
    """
    rows = predictions.drop_nulls(list(task.answer_types())).select(
        "prediction_id", "entity", "asked_at", "digest", *task.answer_types(), *sliced
    )
    if outcomes is None:
        rows = rows.with_columns(pl.lit(None, dtype=task.label_type()).alias("label"))
    else:
        labels = outcomes.select("entity", pl.col("label").cast(task.label_type()))
        if labels["entity"].is_duplicated().any():
            twice = labels.filter(pl.col("entity").is_duplicated())["entity"][0]
            raise ValueError(f"entity {twice!r} has two outcomes in one key; expected one. Fix the product's `label`.")
        rows = rows.join(labels, on="entity", how="left", maintain_order="left")
    if ours is not None and sliced:
        our_slices = ours.select(["entity", "asked_at", *sliced]).rename({name: f"{name}_ours" for name in sliced})
        rows = rows.join(our_slices, on=["entity", "asked_at"], how="left", maintain_order="left").with_columns(
            pl.coalesce(pl.col(name), pl.col(f"{name}_ours").cast(rows.schema[name])).alias(name) for name in sliced
        )
    return rows.select(*columns(task), *sliced)


def digests(rows: pl.DataFrame) -> list[str]:
    """Return the bundles that gave a key's answers, the main one last."""
    counts = rows.with_row_index(_POSITION).group_by("digest").agg(pl.len().alias("rows"), pl.col(_POSITION).max())
    return [str(digest) for digest in counts.sort("rows", _POSITION)["digest"]]


def main_digest(rows: pl.DataFrame) -> str | None:
    """Return the bundle with most of a key's answers, on a tie the one that answered last; None without answers."""
    return next(reversed(digests(rows)), None)


def main_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the labelled rows of a key's main bundle."""
    digest = main_digest(rows)
    return rows.clear() if digest is None else labelled(rows.filter(pl.col("digest") == digest))


def labelled(rows: pl.DataFrame) -> pl.DataFrame:
    """Select the rows with a known, non-null label."""
    return rows.filter(pl.col("label").is_not_null())


def stacked(by_key: Mapping[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.Series]:
    """Concatenate the rows of all keys, and return each row's key."""
    keys = [key for key, rows in by_key.items() for _ in range(rows.height)]
    return pl.concat(by_key.values()), pl.Series("key", keys, dtype=pl.String)
