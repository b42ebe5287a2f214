"""Define the record that accepts records of older code (`storage.adoption`)."""

from __future__ import annotations

from platform_assets.records.base import Record, RecordKind


class Adopted(Record, frozen=True, kw_only=True):
    """The code digest that a stage's older records count as: that of the first code that read them."""

    code: str
    why: str


ADOPTED = RecordKind("adopted", Adopted)
