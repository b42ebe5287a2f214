"""Read a key's measurements from its record of `performance`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.store.records.performance import MEASURED, Measured

if TYPE_CHECKING:
    from platform_assets.store.partition_records import PartitionRecord

UNKNOWN = Measured(
    decided=None,
    digest=None,
    excess_log_loss=None,
    expected_log_loss=None,
    labelled=0,
    labels={},
    models=[],
    quality=None,
    rows=0,
).document()
"""Defaults for members that a record rebuilt from its rows lacks."""


def measured(record: PartitionRecord) -> Measured:
    """Parse the measurements of a key."""
    return MEASURED.read({**UNKNOWN, **record.notes}, f"the performance of {record.key}")
