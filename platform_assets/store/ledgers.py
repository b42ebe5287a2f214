"""Store create-only records: keyed ones (one per key) and numbered ones (the newest counts).

The only primitive is "create unless it exists", which folders and S3 both have (`objects.py`). It fails only for
another writer's record, never for our own whose response was lost. Numbers have no gaps, so a ledger's `HEAD` is only a
hint: probing starts there and goes upward. If it is lost or wrong, doubling and halving finds the end. Nothing is ever
listed. An empty file at the end of a ledger is a write undone by a power loss: not a record, and its number is used
again. An empty file followed by records is damage, and an error.

Imports only obstore, msgspec and the standard library, because serving imports this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Generic

from platform_assets.base import naming
from platform_assets.base.problems import LedgerProblem, RecordExists
from platform_assets.store import objects
from platform_assets.store.artifacts import canonical, parse
from platform_assets.store.objects import open_store, reason
from platform_assets.store.records.base import R, RecordKind

HINT_DIGITS = 18
"""A longer `HEAD` was not written by us; Python refuses numbers of more than 4,300 digits."""
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


class DamagedRecord(LedgerProblem):
    """A record that is not a JSON object."""


class Ledgers:
    """The ledgers of one product. A record is a JSON object as `canonical` writes it; `of` reads and writes structs.

    A ledger's name may have several parts: `faults/2013-03-01`. A keyed ledger has `{key}.json` files, a numbered one
    `00000001.json` and so on, next to `HEAD`.
    """

    def __init__(self, root: str, product: str, bytes_max: int | None = None) -> None:
        """Open the ledgers below a storage root (a folder or an `s3://` URL).

        Args:
            bytes_max: a larger record is refused and not read; None for any size.
        """
        self.root = root
        self.product = product
        self._bytes_max = bytes_max
        self._store = open_store(root)

    def of(self, kind: RecordKind[R]) -> Ledger[R]:
        """Return the ledger of a kind of record, read and written as structs."""
        return Ledger(self, kind)

    def location(self, ledger: str, name: str) -> str:
        """Return where a record is stored, for messages."""
        return naming.join(self.root, self._path(ledger, f"{name}.json"))

    def create(self, ledger: str, key: str, record: object) -> None:
        """Write the only record of a key.

        Raises:
            RecordExists: the key has a record, which is unchanged.
            LedgerProblem: it cannot be written, for example on a full disk.
        """
        self._create(self._path(ledger, f"{key}.json"), canonical(record))

    def read(self, ledger: str, key: str) -> object:
        """Return the record of a key, or None."""
        path = self._path(ledger, f"{key}.json")
        return self._parsed(path, self._bytes(path))

    def stored(self, ledger: str, name: str) -> bytes | None:
        """Return the bytes of a record, or None; `name` is its key, or its number in eight digits."""
        return self._bytes(self._path(ledger, f"{name}.json"))

    def append(self, ledger: str, record: object) -> int:
        """Write the next numbered record and return its number, from 1. Concurrent writers get different numbers."""
        data = canonical(record)
        number = self.newest_number(ledger) + 1
        while not self._try(ledger, number, data):
            number += 1
        self.hint(ledger, number)
        return number

    def create_number(self, ledger: str, number: int, record: object) -> None:
        """Write the record with exactly this number, which must be the next; for compare-and-append.

        Raises:
            RecordExists: another writer took the number.
        """
        self._create(self._path(ledger, file_name(number)), canonical(record))
        self.hint(ledger, number)

    def latest(self, ledger: str) -> tuple[int, object] | None:
        """Return the newest numbered record and its number, or None. Costs three small reads."""
        return next(iter(self.newest(ledger, 1)), None)

    def at(self, ledger: str, number: int) -> object:
        """Return the record with a number, or None.

        Raises:
            LedgerProblem: it is unreadable or damaged; the message names the file.
        """
        path = self._path(ledger, file_name(number))
        data = self._bytes(path)
        if data == b"" and self.newest_number(ledger) > number:
            raise LedgerProblem(
                f"{naming.join(self.root, path)} is empty though later records follow; it was damaged. Put the file "
                "back from a backup."
            )
        return self._parsed(path, data)

    def newest(self, ledger: str, count: int) -> list[tuple[int, object]]:
        """Return up to `count` numbered records, the newest first."""
        newest = self.newest_number(ledger)
        pairs = ((number, self.at(ledger, number)) for number in range(newest, max(0, newest - count), -1))
        return [(number, record) for number, record in pairs if record is not None]

    def records(self, ledger: str, first: int = 1) -> Iterator[tuple[int, object]]:
        """Yield the numbered records from `first` on, oldest first."""
        number = first
        while (record := self.at(ledger, number)) is not None:
            yield number, record
            number += 1

    def newest_number(self, ledger: str, at_least: int = 0) -> int:
        """Return the newest record's number, 0 without records.

        Args:
            at_least: a number known to have existed; returned when nothing newer exists, even if its record is gone.
        """
        sizes: dict[int, int | None] = {}

        def is_there(number: int) -> bool:
            sizes[number] = self._size(ledger, number)
            return sizes[number] is not None

        low = self._hinted(ledger)
        if low <= at_least or not is_there(low):
            low = at_least
        step = 1
        while is_there(low + step):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if is_there(middle) else (low, middle)
        while low > at_least and sizes[low] == 0:
            low -= 1
            is_there(low)
        return low

    def hint(self, ledger: str, number: int) -> None:
        """Write a ledger's `HEAD`. Failing to write it is harmless: readers probe."""
        import obstore

        try:
            obstore.put(self._store, self._path(ledger, "HEAD"), str(number).encode(), mode="overwrite")
        except (obstore.exceptions.BaseError, OSError):
            return

    def overwrite(self, ledger: str, name: str, record: object) -> None:
        """Write a mutable file of a ledger that is not a record, such as a heartbeat."""
        import obstore

        path = self._path(ledger, f"{name}.json")
        try:
            obstore.put(self._store, path, canonical(record), mode="overwrite")
        except (obstore.exceptions.BaseError, OSError) as error:
            location = naming.join(self.root, path)
            raise LedgerProblem(f"{location} could not be written: {reason(self.root, error)}.") from error

    def _hinted(self, ledger: str) -> int:
        try:
            text = self._bytes(self._path(ledger, "HEAD")) or b""
        except LedgerProblem:
            if self._size(ledger, 1) is None:  # S3 reports everything in a deleted bucket as absent
                raise
            return 0
        return int(text) if text.isdigit() and len(text) <= HINT_DIGITS else 0

    def _size(self, ledger: str, number: int) -> int | None:
        import obstore

        path = self._path(ledger, file_name(number))
        try:
            return objects.size(self._store, path)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._unreadable(path, error) from error

    def _try(self, ledger: str, number: int, data: bytes) -> bool:
        try:
            self._create(self._path(ledger, file_name(number)), data)
        except RecordExists:
            return False
        return True

    def _create(self, path: str, data: bytes) -> None:
        import obstore

        location = naming.join(self.root, path)
        try:
            is_ours = objects.create(self._store, path, data)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise LedgerProblem(f"{location} could not be written: {reason(self.root, error)}.") from error
        if not is_ours:
            raise RecordExists(f"{location} exists; a record is written once.")

    def _bytes(self, path: str) -> bytes | None:
        import obstore

        try:
            return objects.read(self._store, path, self._bytes_max)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: BaseException) -> LedgerProblem:
        return LedgerProblem(f"{naming.join(self.root, path)} cannot be read: {reason(self.root, error)}.")

    def parsed(self, ledger: str, name: str, data: bytes | None) -> object:
        """Return a record's JSON values from its bytes; None for none, and for those of an undone write."""
        return self._parsed(self._path(ledger, f"{name}.json"), data)

    def _parsed(self, path: str, data: bytes | None) -> object:
        if not data:
            return None
        try:
            record = parse(data)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise DamagedRecord(
                f"{naming.join(self.root, path)} is not a JSON object ({len(data)} bytes); it was changed."
            )
        return record

    def _path(self, ledger: str, name: str) -> str:
        for part in (*ledger.split("/"), name):
            if not _PART.fullmatch(part):
                raise ValueError(
                    f"ledger {ledger!r} with {name!r} is not a valid path; expected letters, digits, '_', '-' and '.' "
                    "in each part, starting with a letter or digit."
                )
        return f"{naming.ledger_path(self.product, ledger)}/{name}"


class LedgerWriter(Generic[R]):
    """One ledger of a product, write access only; `Ledgers` documents the methods."""

    def __init__(self, ledgers: Ledgers, kind: RecordKind[R]) -> None:
        self._ledgers = ledgers
        self._kind = kind

    def create(self, key: str, record: R) -> None:
        """Write the one record of a key."""
        self._ledgers.create(self._kind.ledger, key, record.document())

    def append(self, record: R) -> int:
        """Write the next numbered record and return its number."""
        return self._ledgers.append(self._kind.ledger, record.document())

    def create_number(self, number: int, record: R) -> None:
        """Write the record of exactly this number."""
        self._ledgers.create_number(self._kind.ledger, number, record.document())

    def overwrite(self, name: str, record: R) -> None:
        """Write a mutable file of the ledger."""
        self._ledgers.overwrite(self._kind.ledger, name, record.document())


class Ledger(LedgerWriter[R]):
    """One ledger of a product; `Ledgers` documents the methods. Reads also raise what `RecordKind.read` does."""

    def read(self, key: str) -> R | None:
        """Return the record of a key, or None."""
        document = self._ledgers.read(self._kind.ledger, key)
        return None if document is None else self._kind.read(document, self._ledgers.location(self._kind.ledger, key))

    def stored(self, name: str) -> tuple[bytes, R] | None:
        """Return a record with its bytes, or None; `name` is its key, or its number in eight digits."""
        data = self._ledgers.stored(self._kind.ledger, name)
        document = self._ledgers.parsed(self._kind.ledger, name, data)
        if data is None or document is None:
            return None
        return data, self._kind.read(document, self._ledgers.location(self._kind.ledger, name))

    def latest(self) -> tuple[int, R] | None:
        """Return the newest numbered record and its number, or None."""
        return next(iter(self.newest(1)), None)

    def at(self, number: int) -> R | None:
        """Return the record of a number, or None."""
        document = self._ledgers.at(self._kind.ledger, number)
        return None if document is None else self._typed(number, document)

    def newest(self, count: int) -> list[tuple[int, R]]:
        """Return up to `count` numbered records, the newest first."""
        return [
            (number, self._typed(number, document))
            for number, document in self._ledgers.newest(self._kind.ledger, count)
        ]

    def records(self, first: int = 1) -> Iterator[tuple[int, R]]:
        """Yield the numbered records from `first` on, oldest first."""
        for number, document in self._ledgers.records(self._kind.ledger, first):
            yield number, self._typed(number, document)

    def newest_first(self) -> Iterator[tuple[int, R]]:
        """Yield the numbered records, the newest first, reading each only when it is needed."""
        for number in range(self.newest_number(), 0, -1):
            if (record := self.at(number)) is not None:
                yield number, record

    def newest_number(self, at_least: int = 0) -> int:
        """Return the number of the newest record, 0 when there is none."""
        return self._ledgers.newest_number(self._kind.ledger, at_least)

    def _typed(self, number: int, document: object) -> R:
        return self._kind.read(document, self._ledgers.location(self._kind.ledger, f"{number:08d}"))


def file_name(number: int) -> str:
    """Return the file name of a numbered record: `00000001.json`."""
    return f"{number:08d}.json"
