"""Parse a landed file's bytes into rows of text, or report why the file is unreadable.

Whether the file is complete is decided here; whether its rows are right is `validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.data import columns as fitted
from platform_assets.data import delimited
from platform_assets.data.delimited import SHOWN as SHOWN
from platform_assets.data.delimited import UnreadableFile as UnreadableFile

if TYPE_CHECKING:
    from datetime import datetime


def rows(
    data: bytes,
    *,
    columns: Mapping[str, pl.DataType] | Sequence[str],
    arrived_at_utc: datetime,
    read: Callable[[bytes], pl.DataFrame] | None = None,
    multiline: Collection[str] = (),
    absent: Collection[str] = (),
) -> pl.DataFrame:
    """Parse the file's rows; adds `source_offset` (from 0) and `arrived_at_utc`.

    A record of CSV that is not a row counts as one, with null cells, in `source_offset` too; see `delimited.BROKEN`.
    Columns that are not declared are left out; `parse` keeps them.

    Args:
        columns: the names the file must have, in any order, with their types if these are known.
        arrived_at_utc: when it landed.
        read: the source's own reader; None for CSV with a header, all text, empty cells null.
        multiline: columns of CSV whose fields may have line breaks.
        absent: the columns that this file may lack; there they are null.

    Raises:
        UnreadableFile: an empty or truncated file, or one without a column; states what came and what was expected.
    """
    frame = parse(data, read, multiline)
    return declared(frame, columns=columns, arrived_at_utc=arrived_at_utc, absent=absent)


def declared(
    frame: pl.DataFrame,
    *,
    columns: Mapping[str, pl.DataType] | Sequence[str],
    arrived_at_utc: datetime,
    absent: Collection[str] = (),
) -> pl.DataFrame:
    """Return the declared columns of what `parse` read; see `rows`."""
    types = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns, pl.String())
    delivered = as_delivered(frame, types)
    if problem := fitted.problem(delivered, types, absent):
        raise UnreadableFile(problem)
    return fitted.fit(delivered, types).with_columns(
        *(frame[name] for name in frame.columns if name not in delivered.columns),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("source_offset"),
        pl.lit(arrived_at_utc, dtype=pl.Datetime("us", "UTC")).alias("arrived_at_utc"),
    )


def as_delivered(frame: pl.DataFrame, columns: Collection[str]) -> pl.DataFrame:
    """Return what `parse` read without the column that it adds, `delimited.BROKEN`, unless it is declared."""
    return frame if delimited.BROKEN in columns else frame.drop(delimited.BROKEN, strict=False)


def parse(
    data: bytes, read: Callable[[bytes], pl.DataFrame] | None = None, multiline: Collection[str] = ()
) -> pl.DataFrame:
    """Parse the file's rows with all its columns; see `rows`."""
    if not data:
        raise UnreadableFile("the file is empty (0 bytes); expected at least a header line. Deliver it again.")
    if read is None:
        try:
            return delimited.read_csv(data, multiline=multiline)
        except UnreadableFile:
            raise
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise UnreadableFile(f"{_first_line(error)}. Fix the delivery.") from error
    try:
        frame: object = read(data)
    except (UnreadableFile, MemoryError, ImportError):
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # what other people's bytes do to a reader is not known
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the machine's, not the file's: a disk that is full, a connection that is lost
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UnreadableFile(f"{kind}{_first_line(error)}. Fix the delivery, or the source's `read`.") from error
    if not isinstance(frame, pl.DataFrame):
        raise UnreadableFile(
            f"the source's `read` returned {type(frame).__name__}; expected a polars DataFrame. Fix it in the "
            "product's file."
        )
    return frame


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
