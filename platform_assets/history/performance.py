"""Read how a key was measured, from its record of `performance`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.records.performance import MEASURED, Measured

if TYPE_CHECKING:
    from platform_assets.storage.records import PartitionRecord

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
"""What the records of older code may lack."""


def measured(record: PartitionRecord) -> Measured:
    """Return the numbers of a key."""
    return MEASURED.read({**UNKNOWN, **record.notes}, f"the performance of {record.key}")
