"""What lets records of older code stand (`storage.adoption`)."""

from __future__ import annotations

from platform_assets.records.base import Record, RecordKind


class Adopted(Record, frozen=True, kw_only=True):
    """As whose work the older records of a stage count: the code digest of the first code that met them."""

    code: str
    why: str


ADOPTED = RecordKind("adopted", Adopted)
