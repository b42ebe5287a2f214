"""Parse a landed file's bytes into rows of text, or report why the file is unreadable.

Whether the file is complete is decided here; whether its rows are right is `validate`.
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
    """The file is empty, truncated, or not what its source sends."""


def rows(
    data: bytes,
    *,
    columns: Sequence[str],
    arrived_at_utc: datetime,
    read: Callable[[bytes], pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """Parse the file's rows; adds `source_offset` (from 0) and `arrived_at_utc`.

    Args:
        columns: the names the file must have, in any order.
        arrived_at_utc: when it landed.
        read: the source's own reader; None for CSV with a header, all text, empty cells null.

    Raises:
        UnreadableFile: an empty or truncated file, or other columns; states what came and what was expected.
    """
    if not data:
        raise UnreadableFile("the file is empty (0 bytes); expected at least a header line. Deliver it again.")
    try:
        frame = (read or _csv)(data)
    except UnreadableFile:
        raise
    except (pl.exceptions.PolarsError, ValueError) as error:
        reason, reader = str(error).partition("\n")[0].rstrip("."), "" if read is None else ", or the source's `read`"
        raise UnreadableFile(f"{reason}. Fix the delivery{reader}.") from error
    if set(frame.columns) != set(columns):
        raise UnreadableFile(
            f"the file has the columns {in_short(frame.columns)}; expected {in_short(columns)}. "
            f"Missing: {_lacking(columns, frame.columns)}; not expected: {_lacking(frame.columns, columns)}. "
            "Fix the delivery, or the source's schema in the product's file."
        )
    return frame.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("source_offset"),
        pl.lit(arrived_at_utc, dtype=pl.Datetime("us", "UTC")).alias("arrived_at_utc"),
    )


def _csv(data: bytes) -> pl.DataFrame:
    """Read a complete CSV as text. Only its end can be checked: truncation elsewhere looks like an empty cell."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"the file is not UTF-8 text: {error.reason} at byte {error.start}. Deliver it as UTF-8, uncompressed, or "
            "give the source a `read` of its own."
        ) from None
    header, *lines = text.splitlines()
    last = lines[-1] if lines else header
    if not text.endswith("\n"):
        raise UnreadableFile(
            f"the file is cut short: its last line {last[-SHOWN:]!r} has no end ({len(lines)} lines came). "
            "Deliver it again."
        )
    expected = len(next(csv.reader([header])))
    cells = len(next(csv.reader([last]), []))
    if cells != expected:
        raise UnreadableFile(
            f"the file is cut short: its last line {last[:SHOWN]!r} has {cells} cells; expected {expected}. "
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
