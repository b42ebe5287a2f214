"""Read how a key was measured, from its record of `performance`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.records.performance import MEASURED, Measured

if TYPE_CHECKING:
    from platform_assets.storage.records import PartitionRecord


def measured(record: PartitionRecord) -> Measured:
    """Return the numbers of a key."""
    return MEASURED.read(record.notes, f"the performance of {record.key}")
