"""Turn a landed file's bytes into rows of text, or say what is wrong with the file.

Belongs here: whether a file is whole. Does not belong here: whether its rows are right (`validate.py`), storage.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.problems import Problem

if TYPE_CHECKING:
    from datetime import datetime

MOST_NAMES = 12
SHOWN = 80
"""How many characters of a broken line a message quotes."""


class UnreadableFile(Problem, ValueError):
    """A file that is empty, cut short, or not what its source sends."""


def rows(
    data: bytes,
    *,
    columns: Sequence[str],
    arrived_at_utc: datetime,
    read: Callable[[bytes], pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """Return the file's rows with `source_offset` (from 0) and `arrived_at_utc`.

    Args:
        data: the file's bytes.
        columns: the names that the file must have, in any order.
        arrived_at_utc: when it landed.
        read: the source's own reader; CSV with a header, all text, when None. An empty cell is null.

    Raises:
        UnreadableFile: an empty or truncated file, other columns; with what came and what was expected.
    """
    if not data:
        raise UnreadableFile("the file is empty (0 bytes); expected at least a header line. Deliver it again.")
    try:
        frame = (read or _csv)(data)
    except UnreadableFile:
        raise
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise UnreadableFile(str(error).partition("\n")[0]) from error
    if set(frame.columns) != set(columns):
        raise UnreadableFile(
            f"the file has the columns {in_short(frame.columns)}; expected {in_short(columns)}. "
            f"Missing: {_lacking(columns, frame.columns)}; not expected: {_lacking(frame.columns, columns)}. "
            "Mend the delivery, or the source's schema in the product's file."
        )
    return frame.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("source_offset"),
        pl.lit(arrived_at_utc, dtype=pl.Datetime("us", "UTC")).alias("arrived_at_utc"),
    )


def _csv(data: bytes) -> pl.DataFrame:
    """Read a whole CSV as text; a line cut short anywhere but at its end cannot be told from an empty cell."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"the file is no UTF-8 text: {error.reason} at byte {error.start}.") from None
    header, *lines = text.splitlines()
    last = lines[-1] if lines else header
    if not text.endswith("\n"):
        raise UnreadableFile(
            f"the file is cut short: its last line {last[-SHOWN:]!r} has no end ({len(lines)} lines came). "
            "Deliver it again."
        )
    expected = len(next(csv.reader([header])))
    came = len(next(csv.reader([last]), []))
    if came != expected:
        raise UnreadableFile(
            f"the file is cut short: its last line {last[:SHOWN]!r} has {came} cells; expected {expected}. "
            "Deliver it again."
        )
    return pl.read_csv(io.BytesIO(data), infer_schema=False)


def in_short(names: Sequence[str]) -> str:
    """Return names for a message: the first dozen, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "none"


def _lacking(these: Sequence[str], those: Sequence[str]) -> str:
    there = set(those)
    return in_short([name for name in these if name not in there])
