"""Parse a landed file's bytes into rows of text, or report why the file is unreadable.

Whether the file is complete is decided here; whether its rows are right is `validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import delimited
from platform_assets.compute.delimited import SHOWN as SHOWN
from platform_assets.compute.delimited import UnreadableFile as UnreadableFile

if TYPE_CHECKING:
    from datetime import datetime

MOST_NAMES = 12


def rows(
    data: bytes,
    *,
    columns: Sequence[str],
    arrived_at_utc: datetime,
    read: Callable[[bytes], pl.DataFrame] | None = None,
    multiline: Collection[str] = (),
) -> pl.DataFrame:
    """Parse the file's rows; adds `source_offset` (from 0) and `arrived_at_utc`.

    A record of CSV that is not a row counts as one, with null cells, in `source_offset` too; see `delimited.BROKEN`.

    Args:
        columns: the names the file must have, in any order.
        arrived_at_utc: when it landed.
        read: the source's own reader; None for CSV with a header, all text, empty cells null.
        multiline: columns of CSV whose fields may have line breaks.

    Raises:
        UnreadableFile: an empty or truncated file, or other columns; states what came and what was expected.
    """
    if not data:
        raise UnreadableFile("the file is empty (0 bytes); expected at least a header line. Deliver it again.")
    try:
        frame = delimited.read_csv(data, multiline=multiline) if read is None else read(data)
    except UnreadableFile:
        raise
    except (pl.exceptions.PolarsError, ValueError) as error:
        reason, reader = str(error).partition("\n")[0].rstrip("."), "" if read is None else ", or the source's `read`"
        raise UnreadableFile(f"{reason}. Fix the delivery{reader}.") from error
    names = [name for name in frame.columns if name != delimited.BROKEN or name in columns]
    if set(names) != set(columns):
        raise UnreadableFile(
            f"the file has the columns {in_short(names)}; expected {in_short(columns)}. "
            f"Missing: {_lacking(columns, names)}; not expected: {_lacking(names, columns)}. "
            "Fix the delivery, or the source's schema in the product's file."
        )
    return frame.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("source_offset"),
        pl.lit(arrived_at_utc, dtype=pl.Datetime("us", "UTC")).alias("arrived_at_utc"),
    )


def in_short(names: Sequence[str]) -> str:
    """Return names for a message: the first dozen, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "none"


def _lacking(these: Sequence[str], those: Sequence[str]) -> str:
    there = set(those)
    return in_short([name for name in these if name not in there])
