"""How a record becomes JSON and comes back: its format, its members, its kind.

A member with a default is not written when it has it. A member that is written as null when nothing is known has no
default, or `msgspec.UNSET` where older code did not write it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from platform_assets.problems import NewerRecord, UnfitRecord

Document = dict[str, Any]
"""A JSON object whose members this code does not name."""

Number = int | float
"""A number as it was written: an integer stays one."""

Row = dict[str, Number | str | bool | None]
"""A row of a table whose columns follow from the task's measures, or from the product."""

Decided = dict[str, Number | list[str | Row | list[int]] | None]
"""What is done with answers, in the task's words (`Task.decided`): numbers and counts by name, tables, and notes."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a record."""

    def document(self) -> Document:
        """Return it as JSON values."""
        return {name: _listed(value) for name, value in msgspec.to_builtins(self).items()}

    def present(self, names: Iterable[str]) -> Document:
        """Return those of the named members that it has, as JSON values."""
        document = self.document()
        return {name: document[name] for name in names if name in document}

    def members(self, names: Iterable[str]) -> Document:
        """Return the named members, None for those that are not known."""
        return {name: getattr(self, name) for name in names}


def _listed(value: Any) -> Any:
    """Return JSON values with lists for tuples, as whoever parses them gets them."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


class Record(Part, frozen=True, kw_only=True):
    """A record. Its `format` is not written while it is 1."""

    format: Annotated[int, msgspec.Meta(ge=1)] = 1


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class RecordKind(Generic[R]):
    """A kind of record.

    Attributes:
        ledger: where it lies, below the product's ledgers.
        type: its struct, or the union of those that lie in one ledger.
        newest: the newest format that this code reads.
    """

    ledger: str
    type: type[R] | UnionType
    newest: int = 1

    def of(self, part: str) -> RecordKind[R]:
        """Return the kind in a ledger of its own: `faults/2013-03-01`."""
        return replace(self, ledger=f"{self.ledger}/{part}")

    def read(self, document: object, place: str) -> R:
        """Return the record that JSON values are.

        Args:
            document: what was stored.
            place: where, for messages.

        Raises:
            NewerRecord: its format is newer than this code.
            UnfitRecord: a member is missing, unknown or of another type.
        """
        came = document.get("format") if isinstance(document, dict) else None
        if isinstance(came, int) and came > self.newest:
            raise NewerRecord(
                f"{place} has format {came}; this code reads formats up to {self.newest}. Upgrade Driftline."
            )
        try:
            record: R = msgspec.convert(document, self.type)
        except msgspec.ValidationError as problem:
            name = self.ledger.partition("/")[0]
            raise UnfitRecord(
                f"{place} is no record of {name} that this code reads: {problem}. It was changed or written by other "
                "code."
            ) from None
        return record
