"""Read a key's answers and select the ones that count, for every stage that measures answers.

The selection itself is `monitoring.answers`, the comparison of features is `monitoring.skew`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl
from msgspec.structs import replace

from platform_assets.data import answer_rows, stage_inputs
from platform_assets.data.rows import Rows, about
from platform_assets.monitoring import answers, skew

if TYPE_CHECKING:
    from platform_assets.product.fields import Field
    from platform_assets.product.tasks import Task
    from platform_assets.store.records.performance import Compared
    from platform_assets.store.tables import PartitionRecord, TableStore


def choose(
    tables: TableStore,
    answered: PartitionRecord,
    built: PartitionRecord | None,
    fields: Sequence[Field],
    task: Task,
    *,
    limit: float,
    slices: Sequence[str] = (),
    not_compared: str | None = None,
) -> tuple[Rows, Rows | None, pl.DataFrame, Compared]:
    """Select the answers of a key that count, and compare the served features with the platform's own.

    Args:
        answered: the key's record of stage `predictions`.
        built: its record of stage `features`; None if they have not been built yet.
        limit: below this share of equal entities the key is skewed (`Monitors.min_equal_share`).
        slices: fields that are needed of the answers that count.
        not_compared: the reason the features cannot be compared; None when they can.

    Returns:
        The on-time answers, our features, the rows that count (`answers.select`), and the comparison.
    """
    about_a_row = answer_rows.schema((), task)
    rows = stage_inputs.rows(tables, answered, answer_rows.schema(fields, task), kept=(*about_a_row, *slices))
    types = {name: answer_rows.ABOUT[name] for name in skew.WHO}
    types |= {item.name: answer_rows.FIELD_TYPES[item.dtype] for item in fields}
    served = answers.in_time(rows, task)
    ours = None if built is None else stage_inputs.rows(tables, built, types, skew.WHO)
    counting, comparison = about(served), skew.NOTHING
    if served.height:
        counting = answers.select(served, ours, fields, is_compared=not_compared is None)
        if ours is not None and not_compared is None:
            comparison = skew.compare(served, ours, fields)
    is_skewed = skew.judge(comparison, limit).is_skewed
    return served, ours, counting, replace(comparison, limit=limit, is_skewed=is_skewed, not_compared=not_compared)
