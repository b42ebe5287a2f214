"""Measure the newest window of labelled answers by the product's slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.status.state import Slice
from platform_assets.store.history.performance import measured

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.store.product_store import ProductStore
    from platform_assets.store.tables import PartitionRecord


def labelled_rows(product: ProductStore, newest: PartitionRecord, slices: tuple[str, ...] = ()) -> pl.DataFrame | None:
    """Return label, answer and slices of the window that ends at a key; None where no key has these columns.

    Costs one read of the window's rows.

    Args:
        newest: the key's record of `performance`, which has a window.
        slices: columns of slices; a slice that the newest key was stored without is left out.
    """
    window = measured(newest).window
    assert window  # the caller chose a record that has one
    answer = ["label", *product.spec.task.answer_types()]
    records = product.tables.records("performance", window.key_names)
    columns = [*answer, *(name for name in slices if name in newest.columns)]
    names = [key for key in window.key_names if key in records and not set(columns) - set(records[key].columns)]
    return product.tables.read("performance", names, columns=columns).drop_nulls(answer) if names else None


def by_group(product: ProductStore, newest: PartitionRecord) -> list[Slice] | None:
    """Return the measures of each group of each slice, over the window that ends at a key; empty without slices.

    None where the rows cannot be read: a status must also work on a damaged store. `driftline doctor` names the damage.
    """
    from platform_assets.monitoring import measured as performance
    from platform_assets.store.problems import TableProblem

    spec = product.spec
    try:
        rows = labelled_rows(product, newest, spec.slices) if spec.slices else None
    except TableProblem:
        return None
    if rows is None:
        return []
    columns = [name for name in spec.slices if name in rows.columns]
    names = [measure.name for measure in measures_of(spec.task).of_answers]
    return [
        Slice(
            slice=str(row["slice"]),
            value=str(row["value"]),
            rows=int(row["rows"] or 0),
            quality={name: _number(row.get(name)) for name in names},
            note=None if row["note"] is None else str(row["note"]),
        )
        for row in performance.by_slice(rows, columns, measures_of(spec.task))
    ]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
