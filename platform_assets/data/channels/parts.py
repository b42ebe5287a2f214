"""Find which rows of a file belong to which key, in one pass that holds a few MB of it at a time."""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec
import polars as pl

from platform_assets.base import clock
from platform_assets.base.keys import Grain
from platform_assets.data import delimited
from platform_assets.product.channel_sites import ChannelProblem
from platform_assets.product.parsed_moments import moments_of
from platform_assets.store import rows_by_key

BLOCK, MOST_HEADER = 8 * 2**20, 2**18
"""Bytes of CSV in memory at a time, and of a header."""
ROWS = 200_000
"""Rows of Parquet in memory at a time."""
MOST_OPEN = 2**20
"""A field with line breaks may reach over the end of a block; a longer one is not a field but a quote out of place."""
QUIET_S = 30.0
"""A file that has not changed for this long is not being written."""
_PLACE = "driftline_place"
_DATED = r"^\d{1,4}[./ -](\d{1,2}|[A-Za-z]{3,9})[./ -]\d{1,4}\b"
"""How a moment in some format begins."""
OUTSIDE = ""
"""Stands for the key of rows outside of the grain."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a file is cut.

    Attributes:
        path: absolute.
        by, time_format: the column of moments, and how they are written.
        multiline: columns of CSV whose fields may have line breaks.
        grain: of the keys.
    """

    path: str
    by: str
    time_format: str | None
    multiline: tuple[str, ...]
    grain: Grain

    @property
    def is_parquet(self) -> bool:
        """Whether the file's name says that it is Parquet; any other is CSV."""
        return self.path.endswith((".parquet", ".pq"))


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one key.

    Attributes:
        mark: of their content, in the file's order.
        rows: how many.
        size (bytes): of CSV, or of the rows in memory.
        spans: pairs of where consecutive rows begin and end: bytes of CSV, rows of Parquet; int64.
    """

    mark: str
    rows: int
    size: int
    spans: bytes


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass found.

    Attributes:
        file: mark of the file when the pass began.
        at_s: when that was, in seconds since 1970.
        took_s: how long the pass took.
        modified_s: the file's time.
        header: of CSV, with its line end.
        parts: by key.
        outside: number of rows outside of the grain, which belong to no key.
        problem: why the file cannot be cut; then there are no parts.
    """

    file: str
    at_s: float
    took_s: float
    modified_s: float
    header: bytes = b""
    parts: dict[str, Part] = {}
    outside: int = 0
    problem: str = ""


def file_mark(stat: os.stat_result) -> str:
    """Return a mark that changes when a file is written or replaced."""
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


def opened(path: str) -> BinaryIO:
    """Open a file; another one that takes its name meanwhile is not read.

    Raises:
        FileNotFoundError: there is none.
        ChannelProblem: it is not a file, or cannot be read.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ChannelProblem(f"{path} is not a file.")
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}.") from None
    except OSError as problem:
        raise ChannelProblem(f"{path} cannot be read: {problem.strerror}.") from None


def index(recipe: Recipe) -> Index:
    """Read a file once and return which rows belong to which key.

    Raises:
        FileNotFoundError, ChannelProblem: see `opened`.
    """
    began_s, at_s = time.perf_counter(), clock.wall().timestamp()
    with opened(recipe.path) as file:
        stat = os.fstat(file.fileno())
        head, parts, owners, problem = b"", dict[str, Part](), _Owners(recipe), ""
        try:
            if recipe.is_parquet:
                parts = _parquet(recipe, owners)
            else:
                head, parts = _csv(recipe, owners, file, stat)
        except (ChannelProblem, delimited.UnreadableFile) as error:
            problem = f"{error}"
        return Index(
            file=file_mark(stat),
            at_s=at_s,
            took_s=time.perf_counter() - began_s,
            modified_s=stat.st_mtime,
            header=head,
            parts=parts,
            outside=owners.outside,
            problem=problem,
        )


@dataclass
class _Growing:
    """The part of one key while the pass goes on."""

    hash: hashlib.blake2b
    rows: int = 0
    size: int = 0
    spans: array[int] = field(default_factory=lambda: array("q"))

    def add(self, content: bytes | memoryview, rows: int, size: int, begin: int, end: int) -> None:
        self.hash.update(content)
        self.rows, self.size = self.rows + rows, self.size + size
        if self.spans and self.spans[-1] == begin:
            self.spans[-1] = end
        else:
            self.spans.extend((begin, end))

    def part(self) -> Part:
        mark = f"{self.rows} {self.hash.hexdigest()[:24]}"
        return Part(mark=mark, rows=self.rows, size=self.size, spans=self.spans.tobytes())


def _csv(recipe: Recipe, owners: _Owners, file: BinaryIO, stat: os.stat_result) -> tuple[bytes, dict[str, Part]]:
    start = file.read(MOST_HEADER)
    if start.startswith(b"\x1f\x8b"):
        raise ChannelProblem(f"{recipe.path} is packed with gzip, so its rows cannot be found; unpack it.")
    head = b"".join(start.splitlines(keepends=True)[:1])
    if not head.endswith((b"\n", b"\r")):
        raise ChannelProblem(f"{recipe.path} has no header line; expected the columns' names.")
    file.seek(len(head))
    try:
        column = _place(recipe, delimited.names_of(head))
    except delimited.UnreadableFile as problem:
        raise ChannelProblem(f"{recipe.path}: {problem}") from None
    parts, at, carried = dict[str, _Growing](), len(head), b""
    lines = 2
    # What is appended while the file is read belongs to the next pass.
    while chunk := file.read(min(BLOCK, stat.st_size - at - len(carried))):
        data = carried + chunk
        end = data.rfind(head[-1:]) + 1
        found = delimited.records(head, data[:end], column, multiline=recipe.multiline)
        ends, cells = found.ends, found.cells
        is_last = at + len(data) >= stat.st_size
        if not is_last and (opens := [place for place in found.opens if len(data) - place < MOST_OPEN]):
            end = opens[0]
            ends = ends[ends <= end]
            cells = cells.head(len(ends))
        begins = [0, *ends[:-1].tolist()]
        for owner, first, count in owners.of(_moments(recipe, cells, lines)):
            begin, stop = begins[first], int(ends[first + count - 1])
            part = parts.setdefault(owner, _Growing(hashlib.blake2b(head)))
            part.add(memoryview(data)[begin:stop], count, stop - begin, at + begin, at + stop)
        lines, at, carried = lines + len(ends), at + end, data[end:]
    if carried and clock.wall().timestamp() - stat.st_mtime > QUIET_S:
        text = carried[-delimited.SHOWN :].decode("utf-8", errors="replace")
        raise ChannelProblem(
            f"{recipe.path} is cut short: its last line {text!r} has no end. Add a line end if it is whole."
        )
    return head, {key: part.part() for key, part in parts.items()}


def _place(recipe: Recipe, names: list[str]) -> int:
    if recipe.by not in names:
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        raise ChannelProblem(
            f"{recipe.path} has no column {recipe.by!r}, by which its rows are assigned to keys; it has {shown}. Fix "
            "`by` in the product's file."
        )
    return names.index(recipe.by)


class _Owners:
    """Assigns consecutive rows to keys.

    A row whose moment is not known belongs to the key of the row before it (the first rows to that of the row after
    them): its key's quarantine shows it. Rows outside of the grain belong to none.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._last: str | None = None
        self.outside = 0

    def of(self, times: pl.Series) -> Iterator[tuple[str, int, int]]:
        """Yield the key, the place and the number of rows of each run of rows."""
        if times.is_empty():
            return
        known = rows_by_key.keys_of(times, self._recipe.grain).fill_null(OUTSIDE)
        owners = pl.select(pl.when(pl.lit(times).is_not_null()).then(pl.lit(known)).forward_fill()).to_series()
        if owners[0] is None:
            first = owners.drop_nulls().head(1).to_list() if self._last is None else [self._last]
            if not first:
                raise ChannelProblem(
                    f"{self._recipe.path}: none of its first {len(times):,} rows has a moment in {self._recipe.by!r}."
                )
            owners = owners.fill_null(first[0])
        self._last = owners[-1]
        runs = owners.rle().struct.unnest()
        places = runs["len"].cum_sum() - runs["len"]
        for owner, place, count in zip(runs["value"], places, runs["len"], strict=True):
            if owner == OUTSIDE:
                self.outside += count
            else:
                yield owner, place, count


def _moments(recipe: Recipe, cells: pl.Series, lines: int) -> pl.Series:
    """Return the moments of a column of CSV; refuse moments in another format than the others."""
    times = moments_of(cells, recipe.time_format)
    unread = (times.is_null() & cells.is_not_null()).arg_true()
    # Text that is not a moment in any format stays: its row goes into a quarantine.
    dated = unread.filter(cells.gather(unread).str.strip_chars().str.contains(_DATED))
    if dated.is_empty():
        return times
    expected = f"the format {recipe.time_format!r}" if recipe.time_format else "a moment such as 2024-03-01T05:00:00Z"
    read = times.is_not_null().arg_true()
    other = f", and {cells[int(read[0])]!r} in record {lines + int(read[0]):,}" if len(read) else ""
    raise ChannelProblem(
        f"{recipe.path} has {cells[int(dated[0])]!r} in {recipe.by!r} of record {lines + int(dated[0]):,} (and "
        f"{len(dated) - 1:,} more like it){other}: expected {expected} throughout, so none of its rows is taken. Write "
        "it in one format, and another one than ISO 8601 into the channel's time_format."
    )


def _parquet(recipe: Recipe, owners: _Owners) -> dict[str, Part]:
    parts, at = dict[str, _Growing](), 0
    try:
        frame = pl.scan_parquet(recipe.path)
        _place(recipe, frame.collect_schema().names())
        total = int(frame.select(pl.len()).collect().item())
        while at < total:
            rows = frame.slice(at, ROWS).collect()
            if rows.is_empty():
                break
            try:
                times = rows_by_key.utc(rows[recipe.by])
            except ValueError as problem:
                raise ChannelProblem(f"{recipe.path}: column {recipe.by!r} {problem}") from None
            # Other versions of polars hash differently: the file's marks move then, and its keys are read once more.
            hashes, size = rows.hash_rows(), rows.estimated_size() / rows.height
            for owner, first, count in owners.of(times):
                content = hashes[first : first + count].to_numpy().tobytes()
                part = parts.setdefault(owner, _Growing(_new_hash(rows.schema)))
                part.add(content, count, int(size * count), at + first, at + first + count)
            at += rows.height
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise ChannelProblem(f"{recipe.path} cannot be read: {f'{problem}'.splitlines()[0].rstrip('.')}.") from None
    return {key: part.part() for key, part in parts.items()}


def _new_hash(schema: pl.Schema) -> hashlib.blake2b:
    """Return the hash of no rows of a schema."""
    return hashlib.blake2b(repr(list(schema.items())).encode())


def empty_mark(index: Index) -> str:
    """Return the mark of a key without rows."""
    return f"0 {hashlib.blake2b(index.header).hexdigest()[:24]}"


def rows_of(recipe: Recipe, index: Index, part: Part | None) -> bytes | None:
    """Return a part's rows as CSV or Parquet, of no key without a part; None if they are others than in the pass."""
    if recipe.is_parquet:
        return _parquet_rows(recipe, part)
    spans = array("q", b"" if part is None else part.spans)
    with opened(recipe.path) as file:
        pieces = [index.header]
        for begin, end in zip(spans[::2], spans[1::2], strict=True):
            file.seek(begin)
            pieces.append(file.read(end - begin))
    data = b"".join(pieces)
    return data if part is None or part.mark.endswith(hashlib.blake2b(data).hexdigest()[:24]) else None


def _parquet_rows(recipe: Recipe, part: Part | None) -> bytes | None:
    data = BytesIO()
    try:
        frame = pl.scan_parquet(recipe.path)
        if part is None:
            rows = frame.head(0).collect()
        else:
            spans = array("q", part.spans)
            places = pl.int_ranges(pl.Series(spans[::2]), pl.Series(spans[1::2]), eager=True).explode()
            # The slice skips what lies before and after; of an unsorted file, the filter holds the key's rows alone.
            between = frame.slice(spans[0], spans[-1] - spans[0]).with_row_index(_PLACE, offset=spans[0])
            chosen = between.filter(pl.col(_PLACE).is_in(places.implode())).drop(_PLACE)
            rows = chosen.collect(engine="streaming")
            digest = _new_hash(rows.schema)
            digest.update(rows.hash_rows().to_numpy().tobytes())
            if part.mark != f"{rows.height} {digest.hexdigest()[:24]}":
                return None
        rows.write_parquet(data, statistics=False)
    except (pl.exceptions.PolarsError, OSError):
        return None
    return data.getvalue()
