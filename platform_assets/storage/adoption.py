"""Accept records that were made under the older kind of code digest, so that an upgrade recomputes nothing.

Older code digests are 64 hexadecimal digits and cover every module near a stage; newer ones begin with the engine's
number and a dot. The first time a stage reads an older record it adopts all of them: one record in the ledger `adopted`
names the code digest that they count as. When that digest changes, they are made again.
"""

from __future__ import annotations

from collections.abc import Mapping

from platform_assets.records.adopted import ADOPTED, Adopted
from platform_assets.storage.ledgers import Ledgers, RecordExists
from platform_assets.storage.records import PartitionRecord, Versions
from platform_assets.storage.tables import TableStore

WHY = "their digests covered whole modules; they count as made by this code, and nothing is made again on an upgrade."

_DIGITS = 64


def is_legacy_digest(code: str) -> bool:
    """Tell whether a code digest is of the older kind, which covers whole modules."""
    return len(code) == _DIGITS and "." not in code


def is_current(
    tables: TableStore,
    record: PartitionRecord,
    inputs: Mapping[str, str],
    code: str,
    versions: Versions | None = None,
) -> bool:
    """Tell whether a record is up to date: same inputs and versions, and made by this code or adopted by it."""
    is_same = versions is None or dict(record.versions) == dict(versions)
    return is_same and dict(record.inputs) == dict(inputs) and has_current_code(tables, record, code)


def has_current_code(tables: TableStore, record: PartitionRecord, code: str) -> bool:
    """Tell whether this code made or adopted a record. Costs one read for a record of older code."""
    if record.code_digest == code:
        return True
    return (
        is_legacy_digest(record.code_digest)
        and not is_legacy_digest(code)
        and _adopted(tables, record.stage, code) == code
    )


def _adopted(tables: TableStore, stage: str, code: str) -> str:
    """Return the code digest that a stage's older records count as: this one, unless another was recorded first."""
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
