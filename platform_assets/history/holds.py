"""Say what the newest record of a key's fault ledger means. Opens no ledger: makers go by it."""

from __future__ import annotations

from dataclasses import dataclass

from platform_assets.records.faults import Dropped, Fault, FaultRecord, Nulled, Repair, Suspect

REQUEST_INPUT = "asked"
"""The input of a judgement that names the record which asked for it."""


@dataclass(frozen=True, kw_only=True)
class Hold:
    """What the newest record of a key's fault ledger says.

    Attributes:
        number: of that record.
        record: the record itself.
    """

    number: int
    record: FaultRecord

    @property
    def kind(self) -> str:
        """What the record says, in one word."""
        return self.record.kind

    @property
    def is_held(self) -> bool:
        """Whether the key waits: a fault, a suspicion, or a new delivery that nobody has judged yet."""
        return isinstance(self.record, Fault | Suspect | Repair)

    @property
    def is_excluded(self) -> bool:
        """Whether the key must stay out of reference and training: held, or dropped for good."""
        return self.is_held or isinstance(self.record, Dropped)

    @property
    def nulled_source(self) -> str | None:
        """The source whose rows of this key are left out when features are built."""
        return self.record.source if isinstance(self.record, Nulled) else None
