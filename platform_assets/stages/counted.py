"""Read the answers of a key and choose those that count, for every stage that measures them.

Belongs here: reading them next to our own features, and the verdict on a key whose features were skewed. Does not
belong here: the choice itself (`compute.answers`), the comparison (`compute.skew`), or what is measured.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from platform_assets.compute import answers, ingest, skew
from platform_assets.specs.base import ProductSpec
from platform_assets.stages import predictions
from platform_assets.storage.tables import PartitionRecord, TableStore


def read(
    spec: ProductSpec, tables: TableStore, answered: PartitionRecord, built: PartitionRecord | None
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Return a key's answers that were given in time, and our features of it.

    Args:
        spec: the product.
        tables: its tables.
        answered: the key's record of stage `predictions`.
        built: its record of stage `features`; None while they have not been built.
    """
    given = _rows(tables, answered, ingest.schema(spec.fields, spec.task))
    types = {name: ingest.ABOUT[name] for name in skew.WHO}
    types |= {item.name: ingest.FIELD_TYPES[item.dtype] for item in spec.fields}
    return answers.in_time(given, spec.task), None if built is None else _rows(tables, built, types)


def choose(
    spec: ProductSpec, given: pl.DataFrame, ours: pl.DataFrame | None, why_not: str | None = None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return the answers that count, and how the features that were served compare with ours.

    Args:
        spec: the product.
        given, ours: from `read`.
        why_not: why the features cannot be compared; None when they can.

    Returns:
        The rows (`answers.counted`); and `skew.compare` with `limit`, `is_skewed` and `not_compared`.
    """
    limit = spec.monitors.min_equal_share
    is_asked = not given.is_empty()
    rows = answers.counted(given, ours, spec.fields, is_compared=why_not is None) if is_asked else given
    if why_not is not None or ours is None or not is_asked:
        nothing: dict[str, Any] = {"rows": 0, "rows_equal": 0, "rows_unknown": 0, "share": None, "fields": []}
        return rows, {**nothing, **skew.decided(None, limit), "not_compared": why_not}
    found = skew.compare(given, ours, spec.fields)
    return rows, {**found, **skew.decided(found, limit), "not_compared": None}


def _rows(tables: TableStore, record: PartitionRecord, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return predictions.read(tables, record.stage, {record.key: record}, columns)[record.key]
