"""Interpret the newest record of a key's fault ledger. Opens no ledger, because makers use it."""

from __future__ import annotations

from dataclasses import dataclass

from platform_assets.store.records.faults import Dropped, Fault, FaultRecord, Nulled, Repair

REQUEST_INPUT = "asked"
"""The input of a judgement that names the fault record that requested it."""


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The newest record of a key's fault ledger.

    Attributes:
        number: of the record.
    """

    number: int
    record: FaultRecord

    @property
    def kind(self) -> str:
        """The record's kind, in one word."""
        return self.record.kind

    @property
    def is_held(self) -> bool:
        """Whether the key is on hold: a fault, or a new delivery that is not judged yet."""
        return isinstance(self.record, Fault | Repair)

    @property
    def is_excluded(self) -> bool:
        """Whether the key is excluded from reference and training: held, or dropped permanently."""
        return self.is_held or isinstance(self.record, Dropped)

    @property
    def nulled_source(self) -> str | None:
        """The source whose rows of this key are left out of features."""
        return self.record.source if isinstance(self.record, Nulled) else None
