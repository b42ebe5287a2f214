"""Read the answers of a key and choose those that count, for every stage that measures them.

Belongs here: reading them next to our own features, and the verdict on a key whose features were skewed. Does not
belong here: the choice itself (`compute.answers`), the comparison (`compute.skew`), or what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl
from msgspec.structs import replace

from platform_assets.compute import answers, ingest, skew
from platform_assets.makers import reading

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task
    from platform_assets.product.fields import Field
    from platform_assets.records.performance import Compared
    from platform_assets.storage.tables import PartitionRecord, TableStore


def read(
    tables: TableStore, answered: PartitionRecord, built: PartitionRecord | None, fields: Sequence[Field], task: Task
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Return a key's answers that were given in time, and our features of it.

    Args:
        tables: of the product.
        answered: the key's record of stage `predictions`.
        built: its record of stage `features`; None while they have not been built.
        fields, task: of the product.
    """
    given = _rows(tables, answered, ingest.schema(fields, task))
    types = {name: ingest.ABOUT[name] for name in skew.WHO}
    types |= {item.name: ingest.FIELD_TYPES[item.dtype] for item in fields}
    return answers.in_time(given, task), None if built is None else _rows(tables, built, types)


def choose(
    given: pl.DataFrame, ours: pl.DataFrame | None, fields: Sequence[Field], *, limit: float, why_not: str | None = None
) -> tuple[pl.DataFrame, Compared]:
    """Return the answers that count, and how the features that were served compare with ours.

    Args:
        given, ours: from `read`.
        fields: of the product.
        limit: the share of equal entities below which a key is skewed (`Monitors.min_equal_share`).
        why_not: why the features cannot be compared; None when they can.

    Returns:
        The rows (`answers.counted`), and the comparison.
    """
    is_asked = not given.is_empty()
    rows = answers.counted(given, ours, fields, is_compared=why_not is None) if is_asked else given
    is_compared = why_not is None and ours is not None and is_asked
    found = skew.compare(given, ours, fields) if is_compared and ours is not None else skew.total([])
    judged = skew.decided(found, limit)
    return rows, replace(found, limit=limit, is_skewed=judged.is_skewed, not_compared=why_not)


def _rows(tables: TableStore, record: PartitionRecord, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return reading.read(tables, record.stage, {record.key: record}, columns)[record.key]
