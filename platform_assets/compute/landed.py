"""Parse a landed file's bytes into rows of text, or report why the file is unreadable.

Whether the file is complete is decided here; whether its rows are right is `validate`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import columns as fitted
from platform_assets.problems import Problem

if TYPE_CHECKING:
    from datetime import datetime

SHOWN = 80
"""How many characters of a broken line a message quotes."""


class UnreadableFile(Problem, ValueError):
    """The file is empty, truncated, or not what its source sends."""


def rows(
    data: bytes,
    *,
    columns: Mapping[str, pl.DataType] | Sequence[str],
    arrived_at_utc: datetime,
    read: Callable[[bytes], pl.DataFrame] | None = None,
    absent: Collection[str] = (),
) -> pl.DataFrame:
    """Parse the file's rows; adds `source_offset` (from 0) and `arrived_at_utc`.

    Columns that are not declared are left out; `parse` keeps them.

    Args:
        columns: the names the file must have, in any order, with their types if these are known.
        arrived_at_utc: when it landed.
        read: the source's own reader; None for CSV with a header, all text, empty cells null.
        absent: the columns that this file may lack; there they are null.

    Raises:
        UnreadableFile: an empty or truncated file, or one without a column; states what came and what was expected.
    """
    return declared(parse(data, read), columns=columns, arrived_at_utc=arrived_at_utc, absent=absent)


def declared(
    frame: pl.DataFrame,
    *,
    columns: Mapping[str, pl.DataType] | Sequence[str],
    arrived_at_utc: datetime,
    absent: Collection[str] = (),
) -> pl.DataFrame:
    """Return the declared columns of what `parse` read; see `rows`."""
    types = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns, pl.String())
    if problem := fitted.problem(frame, types, absent):
        raise UnreadableFile(problem)
    return fitted.fit(frame, types).with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("source_offset"),
        pl.lit(arrived_at_utc, dtype=pl.Datetime("us", "UTC")).alias("arrived_at_utc"),
    )


def parse(data: bytes, read: Callable[[bytes], pl.DataFrame] | None = None) -> pl.DataFrame:
    """Parse the file's rows with all its columns; see `rows`."""
    if not data:
        raise UnreadableFile("the file is empty (0 bytes); expected at least a header line. Deliver it again.")
    if read is None:
        try:
            return _csv(data)
        except UnreadableFile:
            raise
        except (pl.exceptions.PolarsError, ValueError, csv.Error) as error:
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
