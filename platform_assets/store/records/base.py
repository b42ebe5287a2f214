"""Convert records to JSON and back: format, members, kind.

A member with its default value is not written. A member that is written as null when unknown has no default, or
`msgspec.UNSET` where it is absent in some records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from platform_assets.base.problems import NewerRecord, UnfitRecord

Document = dict[str, Any]
"""A JSON object whose members this code does not name."""

# As floats, an epoch's 1 came back from a save as 1.0, and a training that was killed ended with other bytes.
Number = int | float
"""A number as it was written: an integer stays an integer."""

Row = dict[str, Number | str | bool | None]
"""A row of a table whose columns depend on the task's measures or on the product."""

Decided = dict[str, Number | list[str | Row | list[int]] | None]
"""How answers would be used, as its measures say (`Measures.decided`): numbers and counts by name, tables, notes."""


# By itself msgspec drops members that it does not know.
class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a record."""

    def document(self) -> Document:
        """Return it as JSON values."""
        return {name: _listed(value) for name, value in msgspec.to_builtins(self).items()}

    def present(self, names: Iterable[str]) -> Document:
        """Return those named members that are set, as JSON values."""
        document = self.document()
        return {name: document[name] for name in names if name in document}

    def members(self, names: Iterable[str]) -> Document:
        """Return the named members, None for unknown ones."""
        return {name: getattr(self, name) for name in names}


def _listed(value: Any) -> Any:
    """Replace tuples by lists, as a JSON parser would return them."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


class Record(Part, frozen=True, kw_only=True):
    """A record. `format` is not written while it is 1."""

    format: Annotated[int, msgspec.Meta(ge=1)] = 1


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class RecordKind(Generic[R]):
    """A kind of record.

    Attributes:
        ledger: its name below the product's ledgers.
        type: its struct, or the union of the structs in this ledger.
        newest: the newest format that this code reads.
    """

    ledger: str
    type: type[R] | UnionType
    newest: int = 1

    def of(self, part: str) -> RecordKind[R]:
        """Return this kind in a ledger of its own: `faults/2013-03-01`."""
        return replace(self, ledger=f"{self.ledger}/{part}")

    def read(self, document: object, location: str) -> R:
        """Parse a record from JSON values.

        Args:
            location: for messages.

        Raises:
            NewerRecord: its format is newer than this code.
            UnfitRecord: a member is missing, unknown or of another type.
        """
        number = document.get("format") if isinstance(document, dict) else None
        # Before its members are looked at, which this code would misread.
        if isinstance(number, int) and number > self.newest:
            raise NewerRecord(
                f"{location} has format {number}; this code reads formats up to {self.newest}. Upgrade Driftline."
            )
        try:
            record: R = msgspec.convert(document, self.type)
        except msgspec.ValidationError as problem:
            name = self.ledger.partition("/")[0]
            raise UnfitRecord(
                f"{location} is not a record of {name} that this code reads: {problem}. It was changed or written "
                "by other code."
            ) from None
        return record
