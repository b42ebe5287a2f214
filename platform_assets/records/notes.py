"""What a stage notes of a key beside its rows: the notes of its partition records, as their readers get them.

Of `performance` and `drift` they are records of their own (`performance`, `judgements`). Notes of older code may lack
members; what later code adds is not an error here, because records of keys are read by whatever code is installed.
"""

from __future__ import annotations

from typing import Protocol, Self, TypedDict

import msgspec

from platform_assets.problems import UnfitRecord
from platform_assets.records.base import Number, Part
from platform_assets.records.performance import Value


class Noted(Protocol):
    """A partition record, as far as it is read here."""

    @property
    def stage(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def notes(self) -> object: ...


class Notes(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The notes of any stage; `cpu_s` is what making the key took."""

    cpu_s: Number = 0.0

    @classmethod
    def of(cls, record: Noted) -> Self:
        """Return what a record's notes say; raise `UnfitRecord` where a member is missing or of another type."""
        return cls.read(record.notes, f"the record of {record.stage} {record.key}")

    @classmethod
    def read(cls, notes: object, place: str) -> Self:
        """Return what notes say; see `of`. `place` names them in a message."""
        try:
            return msgspec.convert(notes, cls)
        except msgspec.ValidationError as problem:
            raise UnfitRecord(
                f"{place} has notes that this code does not read: {problem}. It was changed or written by other code."
            ) from None


class Stored(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The blobs that notes of some stage name: a key's sketch, the copy of a landed file, and where that came from."""

    sketch: str | None = None
    sha256: str | None = None
    uri: str | None = None


class Raw(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Where a landed file came from, or why a key was closed without it.

    Attributes:
        mark: what told the file from another at the same place.
        sha256: of the file.
    """

    uri: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    arrived_at_utc: str | None = None
    mark: str | None = None
    is_missing: bool = False
    why: str | None = None


class Validated(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """How many rows came, and how many of them were put into quarantine, repeated ones among them.

    Older code did not count repeated rows by themselves.
    """

    rows_in: int
    rows_quarantined: int
    rows_repeated: int = 0


class Features(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """How many rows were put aside, by reason: they hold what no field declares."""

    rows_put_aside: int = 0
    put_aside_by_reason: dict[str, int] = msgspec.field(default_factory=dict)


class Requests(TypedDict):
    """The requests of a key, those slower than the objective, and the seconds in which one of them was answered."""

    limit_ms: Number
    requests: int
    slow: int
    stalls: int


class Counted(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What was counted of a key's answers."""

    latency: Requests | None = None


class Predictions(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What was counted of a key's answers, and how many came after the key was closed."""

    late: int = 0
    measured: Counted | None = None


class Drift(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The sha256 of a key's sketch, and the bundle with whose training rows the key was compared."""

    sketch: str
    reference: str | None = None


class Service(Notes, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A Bento's tag, and its smoke test: rows, the largest difference from the bundle, one request."""

    tag: str
    asked_rows: int
    max_apart: Number
    request: dict[str, str | dict[str, Value] | None]
