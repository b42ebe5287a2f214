"""Say what a key's fault records mean: held, out for good, or usable without one source.

Belongs here: reading the kinds of a fault ledger, purely. Does not belong here: finding faults (`compute.faults`),
reading or writing the ledger (`makers.holds`, `stages.drift`, `stages.intervention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FAULT, SUSPECT, ACCEPT, REPAIR, REPAIRED, NULL, DROP = (
    "fault",
    "suspect",
    "accept",
    "repair",
    "repaired",
    "null",
    "drop",
)
"""What a record of `faults/{key}` may say, in `kind`: the newest one counts."""

_HELD = (FAULT, SUSPECT, REPAIR)
_SETTLED = (ACCEPT, REPAIRED, NULL, DROP)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """What the newest record of a key's fault ledger says.

    Attributes:
        number: of that record.
        record: the record itself.
    """

    number: int
    record: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in (*_HELD, *_SETTLED):
            raise ValueError(f"a fault record has kind {self.kind!r}; expected one of {(*_HELD, *_SETTLED)}.")

    @property
    def kind(self) -> str:
        """One of the kinds above."""
        return str(self.record["kind"])

    @property
    def is_held(self) -> bool:
        """Whether the key waits: a fault, a suspicion, or a new delivery that nobody has judged yet."""
        return self.kind in _HELD

    @property
    def is_out(self) -> bool:
        """Whether the key must stay out of reference and training: held, or dropped for good."""
        return self.is_held or self.kind == DROP

    @property
    def nulled_source(self) -> str | None:
        """The source whose rows of this key are left out when features are built."""
        return str(self.record["source"]) if self.kind == NULL else None
