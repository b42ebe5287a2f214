"""Read and write one ledger's records as structs; `ledgers.py` handles files and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic

from platform_assets.store.records.base import R, RecordKind

if TYPE_CHECKING:
    from platform_assets.store.ledgers import Ledgers


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

    def newest_number(self, at_least: int = 0) -> int:
        """Return the number of the newest record, 0 when there is none."""
        return self._ledgers.newest_number(self._kind.ledger, at_least)

    def _typed(self, number: int, document: object) -> R:
        return self._kind.read(document, self._ledgers.location(self._kind.ledger, f"{number:08d}"))
