"""Let the records of older code stand: what was made under digests of whole modules is not made again on an upgrade.

Until digests of makers, a code digest covered every module near a stage and was 64 letters; now it begins with the
engine's number and a dot. The first time that a stage meets an older record it adopts all of them: a record of the
ledger `adopted` names the digest as whose work they count from then on. When that changes, they are made anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from platform_assets.records.adopted import ADOPTED, Adopted
from platform_assets.storage.ledgers import Ledgers, RecordExists
from platform_assets.storage.records import PartitionRecord
from platform_assets.storage.tables import TableStore

WHY = "their digests covered whole modules; they count as made by this code, and nothing is made again on an upgrade."

_DIGITS = 64


def is_legacy_digest(code: str) -> bool:
    """Tell whether a code digest is of the kind before digests of makers."""
    return len(code) == _DIGITS and "." not in code


def is_current(tables: TableStore, record: PartitionRecord, inputs: Mapping[str, str], code: str) -> bool:
    """Tell whether a record stands: made from the same inputs, and by this code or by older code that it adopted."""
    return dict(record.inputs) == dict(inputs) and has_current_code(tables, record, code)


def has_current_code(tables: TableStore, record: PartitionRecord, code: str) -> bool:
    """Tell whether this code made a record, or adopted it. Costs one read for a record of older code."""
    if record.code_digest == code:
        return True
    return (
        is_legacy_digest(record.code_digest)
        and not is_legacy_digest(code)
        and _adopted(tables, record.stage, code) == code
    )


def _adopted(tables: TableStore, stage: str, code: str) -> str:
    """Return as whose work a stage's older records count: this code's, when nobody has said so before."""
    marks = Ledgers(tables.root, tables.product).of(ADOPTED)
    mark = marks.read(stage)
    if mark is None:
        try:
            marks.create(stage, Adopted(code=code, why=WHY))
            return code
        except RecordExists:
            mark = marks.read(stage)
            assert mark is not None  # records are never removed
    return mark.code
