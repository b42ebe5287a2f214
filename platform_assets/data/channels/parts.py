"""Find which rows of a file belong to which key, in one pass that holds a few MB of it at a time."""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec
import polars as pl

from platform_assets.base import clock
from platform_assets.base.keys import Grain
from platform_assets.base.problems import Problem
from platform_assets.data import delimited
from platform_assets.data.channels import moments
from platform_assets.product.moments import moments_of
from platform_assets.product.sited import ChannelProblem
from platform_assets.store import rows_by_key

BLOCK, FIRST = 8 * 2**20, 2**18
"""Bytes of CSV in memory at a time; the first time fewer, which show the pace soon."""
ROWS = 200_000
"""Rows of Parquet in memory at a time."""
MOST_OPEN = 2**20
"""A field with line breaks may reach over the end of a block; a longer one is not a field but a quote out of place."""
QUIET_S = 30.0
"""A file that has not changed for this long is not being written."""
OUTSIDE = ""
"""Stands for the key of rows outside of the grain."""


class TooSlow(Problem):
    """The pass would take longer than it may."""


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
        """Whether the file is Parquet; any other is CSV."""
        return is_parquet(self.path)


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


def is_parquet(path: str) -> bool:
    """Tell whether a file's name says that it is Parquet."""
    return path.endswith((".parquet", ".pq"))


def file_mark(stat: os.stat_result) -> str:
    """Return a mark that changes when a file is written or replaced."""
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a file; another one that takes its name meanwhile is not read.

    Raises:
        FileNotFoundError: there is none.
        ChannelProblem: it is not a file, or cannot be read.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ChannelProblem(f"{path} is not a file.")
    try:
        file = Path(path).open("rb")  # noqa: SIM115  # closed below
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}.") from None
    except OSError as problem:
        raise ChannelProblem(f"{path} cannot be read: {problem.strerror}.") from None
    with file:
        yield file


def index(recipe: Recipe, until_s: float = float("inf")) -> Index:
    """Read a file once and return which rows belong to which key.

    Args:
        until_s: of `time.perf_counter`.

    Raises:
        TooSlow: that would be too late.
        FileNotFoundError, ChannelProblem: see `opened`.
    """
    began_s, at_s = time.perf_counter(), clock.wall().timestamp()
    with opened(recipe.path) as file:
        stat = os.fstat(file.fileno())
        head, parts, owners, problem = b"", dict[str, Part](), _Owners(recipe), ""
        try:
            if recipe.is_parquet:
                parts = _parquet(recipe, owners, until_s)
            else:
                head, parts = _csv(recipe, owners, file, stat, until_s)
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

    def add(self, begin: int, end: int) -> None:
        if self.spans and self.spans[-1] == begin:
            self.spans[-1] = end
        else:
            self.spans.extend((begin, end))

    def part(self) -> Part:
        mark = f"{self.rows} {self.hash.hexdigest()[:24]}"
        return Part(mark=mark, rows=self.rows, size=self.size, spans=self.spans.tobytes())


def _csv(
    recipe: Recipe, owners: _Owners, file: BinaryIO, stat: os.stat_result, until_s: float
) -> tuple[bytes, dict[str, Part]]:
    head, names = header(recipe.path, file)
    column = _place(recipe, names)
    parts, at, carried = dict[str, _Growing](), len(head), b""
    lines, began_s = 2, time.perf_counter()
    size = min(FIRST, BLOCK)
    while chunk := file.read(min(size, stat.st_size - at - len(carried))):
        size = min(2 * size, BLOCK)
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
            part.hash.update(memoryview(data)[begin:stop])
            part.rows, part.size = part.rows + count, part.size + stop - begin
            part.add(at + begin, at + stop)
        lines, at, carried = lines + len(ends), at + end, data[end:]
        _check_time(began_s, (at - len(head)) / max(1, stat.st_size - len(head)), until_s)
    if carried and clock.wall().timestamp() - stat.st_mtime > QUIET_S:
        text = carried[-delimited.SHOWN :].decode("utf-8", errors="replace")
        raise ChannelProblem(
            f"{recipe.path} is cut short: its last line {text!r} has no end. Add a line end if it is whole."
        )
    return head, {key: part.part() for key, part in parts.items()}


def header(path: str, file: BinaryIO) -> tuple[bytes, list[str]]:
    """Read the header of CSV, with its line end, and the names in it; the file then stands at the first record.

    Raises:
        ChannelProblem: there is none.
    """
    start = file.read(FIRST)
    if start.startswith(b"\x1f\x8b"):
        raise ChannelProblem(f"{path} is packed with gzip, so its rows cannot be found; unpack it.")
    line = start.splitlines(keepends=True)[:1]
    if not line or not line[0].endswith((b"\n", b"\r")):
        raise ChannelProblem(f"{path} has no header line; expected the columns' names.")
    file.seek(len(line[0]))
    try:
        return line[0], delimited.names_of(line[0])
    except delimited.UnreadableFile as problem:
        raise ChannelProblem(f"{path}: {problem}") from None


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
    dated = moments.is_dated(cells.gather(unread)).arg_true()
    if len(dated):
        _refuse_format(recipe, cells, times, int(unread[int(dated[0])]), lines, len(dated))
    return times


def _refuse_format(recipe: Recipe, cells: pl.Series, times: pl.Series, place: int, lines: int, count: int) -> None:
    expected = f"the format {recipe.time_format!r}" if recipe.time_format else "a moment such as 2024-03-01T05:00:00Z"
    read = times.is_not_null().arg_true()
    other = f", and {cells[int(read[0])]!r} in record {lines + int(read[0]):,}" if len(read) else ""
    raise ChannelProblem(
        f"{recipe.path} has {cells[place]!r} in {recipe.by!r} of record {lines + place:,} (and {count - 1:,} more like "
        f"it){other}: expected {expected} throughout, so none of its rows is taken. Write it in one format, and "
        "another one than ISO 8601 into the channel's time_format."
    )


def _check_time(began_s: float, share: float, until_s: float) -> None:
    """Give up as soon as the pace shows that the pass ends too late."""
    now_s = time.perf_counter()
    if share < 1 and began_s + (now_s - began_s) / max(share, 1e-9) > until_s:
        raise TooSlow


def _parquet(recipe: Recipe, owners: _Owners, until_s: float) -> dict[str, Part]:
    parts, at, began_s = dict[str, _Growing](), 0, time.perf_counter()
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
            hashes, size = row_hashes(rows), rows.estimated_size() / rows.height
            for owner, first, count in owners.of(times):
                part = parts.setdefault(owner, _Growing(new_hash(rows.schema)))
                part.hash.update(hashes[first : first + count].to_numpy().tobytes())
                part.rows, part.size = part.rows + count, part.size + int(size * count)
                part.add(at + first, at + first + count)
            at += rows.height
            _check_time(began_s, at / total, until_s)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise ChannelProblem(f"{recipe.path} cannot be read: {f'{problem}'.splitlines()[0].rstrip('.')}.") from None
    return {key: part.part() for key, part in parts.items()}


def new_hash(schema: pl.Schema) -> hashlib.blake2b:
    """Return the hash of no rows of a schema."""
    return hashlib.blake2b(repr(list(schema.items())).encode())


def row_hashes(rows: pl.DataFrame) -> pl.Series:
    """Return a hash per row of its values."""
    return rows.hash_rows()


def mark_of(rows: pl.DataFrame) -> str:
    """Return the mark of one key's rows of Parquet, as the pass makes it."""
    digest = new_hash(rows.schema)
    digest.update(row_hashes(rows).to_numpy().tobytes())
    return f"{rows.height} {digest.hexdigest()[:24]}"


def empty_mark(index: Index) -> str:
    """Return the mark of a key without rows."""
    return f"0 {hashlib.blake2b(index.header).hexdigest()[:24]}"


def rows_of(recipe: Recipe, index: Index, part: Part | None) -> bytes | None:
    """Return a part's rows as CSV or Parquet, of no key without a part; None if they are others than in the pass."""
    spans = [] if part is None else array("q", part.spans).tolist()
    if recipe.is_parquet:
        return _parquet_rows(recipe, part, spans)
    with opened(recipe.path) as file:
        pieces = [index.header]
        for begin, end in zip(spans[::2], spans[1::2], strict=True):
            file.seek(begin)
            pieces.append(file.read(end - begin))
    data = b"".join(pieces)
    return data if part is None or part.mark.endswith(hashlib.blake2b(data).hexdigest()[:24]) else None


def _parquet_rows(recipe: Recipe, part: Part | None, spans: list[int]) -> bytes | None:
    data = BytesIO()
    try:
        frame = pl.scan_parquet(recipe.path)
        if part is None:
            rows = frame.head(0).collect()
        else:
            begins, ends = spans[::2], spans[1::2]
            rows = frame.slice(begins[0], ends[-1] - begins[0]).collect()
            if len(begins) > 1:
                wanted = pl.concat([pl.int_range(b, e, eager=True) for b, e in zip(begins, ends, strict=True)])
                rows = rows[(wanted - begins[0]).to_list()] if ends[-1] - begins[0] <= rows.height else rows
            if mark_of(rows) != part.mark:
                return None
        rows.write_parquet(data, statistics=False)
    except (pl.exceptions.PolarsError, OSError):
        return None
    return data.getvalue()
