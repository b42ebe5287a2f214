"""Rows of a key: a frame, or what reads the columns of a stored key that is too large to hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import polars as pl

CELLS_AT_ONCE = 8_000_000
"""Rows times columns that are compared at once: 64 MB of numbers per side."""


class Columns(Protocol):
    """Rows whose columns are read when they are asked for."""

    @property
    def height(self) -> int:
        """Number of rows."""

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""

    def select(self, names: Sequence[str], /) -> pl.DataFrame:
        """Read some columns."""

    def get_column(self, name: str, /) -> pl.Series:
        """Read one column."""

    def filter(self, mask: pl.Series, /) -> Columns:
        """Return some of the rows."""

    def about(self) -> pl.DataFrame:
        """Read the columns that are not fields of the product, and its slices."""


Rows = pl.DataFrame | Columns


def about(rows: Rows) -> pl.DataFrame:
    """Return a frame as it is, and the columns of a larger key that describe its answers."""
    return rows if isinstance(rows, pl.DataFrame) else rows.about()


def groups(names: Sequence[str], height: int) -> Iterator[Sequence[str]]:
    """Yield the names in groups whose columns can be held at once."""
    size = max(1, CELLS_AT_ONCE // max(1, height))
    for start in range(0, len(names), size):
        yield names[start : start + size]
