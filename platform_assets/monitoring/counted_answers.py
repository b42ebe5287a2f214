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


def read(
    tables: TableStore,
    answered: PartitionRecord,
    built: PartitionRecord | None,
    fields: Sequence[Field],
    task: Task,
    slices: Sequence[str] = (),
) -> tuple[Rows, Rows | None]:
    """Read a key's on-time answers, and the platform's own features of that key.

    Args:
        answered: the key's record of stage `predictions`.
        built: its record of stage `features`; None if they have not been built yet.
        slices: fields that are needed of the answers that count.
    """
    rows = stage_inputs.rows(
        tables, answered, answer_rows.schema(fields, task), kept=(*answer_rows.schema((), task), *slices)
    )
    types = {name: answer_rows.ABOUT[name] for name in skew.WHO}
    types |= {item.name: answer_rows.FIELD_TYPES[item.dtype] for item in fields}
    ours = None if built is None else stage_inputs.rows(tables, built, types, skew.WHO)
    return answers.in_time(rows, task), ours


def choose(
    served: Rows,
    ours: Rows | None,
    fields: Sequence[Field],
    *,
    limit: float,
    not_compared: str | None = None,
) -> tuple[pl.DataFrame, Compared]:
    """Select the answers that count, and compare the served features with ours.

    Args:
        served, ours: from `read`.
        limit: below this share of equal entities the key is skewed (`Monitors.min_equal_share`).
        not_compared: the reason the features cannot be compared; None when they can.

    Returns:
        The rows (`answers.select`), and the comparison.
    """
    has_answers = served.height > 0
    rows = answers.select(served, ours, fields, is_compared=not_compared is None) if has_answers else about(served)
    is_compared = not_compared is None and ours is not None and has_answers
    comparison = skew.compare(served, ours, fields) if is_compared and ours is not None else skew.NOTHING
    judgement = skew.judge(comparison, limit)
    return rows, replace(comparison, limit=limit, is_skewed=judgement.is_skewed, not_compared=not_compared)
