"""Define `OneFile`: one CSV or Parquet file with the rows of all keys, cut by the moment in one column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from platform_assets.base import kinds
from platform_assets.data.channels import lags
from platform_assets.product.channel_sites import ChannelProblem, SitedChannel
from platform_assets.product.channels import Landed

if TYPE_CHECKING:
    from platform_assets.data.channels.lags import Read, Schema
    from platform_assets.data.channels.parts import Index, Recipe

MOST_TRIES = 3
PARSED = 8
"""Bytes of memory that rows take while they are read and checked, per byte of CSV or of typed values; measured."""


@dataclass(frozen=True)
class OneFile(SitedChannel):
    """One CSV or Parquet file with the rows of all keys: it may grow, or be written anew.

    A key's delivery is its rows, in the file's order. The file is read once whenever its size or time has changed, and
    a key's mark is of the content of its rows: only keys whose rows changed are taken in again. A key without rows
    between others is an empty delivery; one after the last row has none yet. A row without a legible moment belongs to
    the key of the row before it, whose quarantine shows it.

    Attributes:
        path: of the file; a relative one starts in the project's folder, which is the nearest one above the product's
            file with a `pyproject.toml`, or else the folder of that file. Parquet where it ends in `.parquet` or `.pq`.
        by: the column with the moment that gives a row's key.
        time_format: how CSV writes these moments, as in `%d.%m.%Y %H:%M`; None: ISO 8601. Without an offset they are
            UTC.
        lag: how long after the end of a key its rows may still be added; it is taken in after that.
        most_memory_mb (MB): of one key's rows; more are refused with an estimate.
    """

    PLACES: ClassVar[tuple[str, ...]] = ("path", "lag", "most_memory_mb")

    path: str
    _: KW_ONLY
    by: str
    time_format: str | None = None
    lag: timedelta = timedelta(0)
    most_memory_mb: int = 4_000

    def __post_init__(self) -> None:
        """Refuse what no file has."""
        path = str(self.path)  # a person may write a Path
        if not path or "://" in path:
            raise ValueError(
                f"OneFile is {path!r}; expected the path of a CSV or Parquet file on this machine. Many files, or a "
                "bucket: ObjectPrefix."
            )
        object.__setattr__(self, "path", path)
        kinds.check(self, f"OneFile({path!r}): ")

    def reader(self, read: Read | None, schema: Schema, multiline: tuple[str, ...]) -> Read | None:
        """Return the source's own `read`, or one for the file's format."""
        from platform_assets.data.channels.timed_rows import TimedRows

        if read is not None and not isinstance(read, TimedRows):
            return read
        return TimedRows(schema=schema, multiline=multiline, by=self.by, time_format=self.time_format)

    def probe(self, key: str, companion: str = "") -> str | None:
        """Return the mark of a key's rows."""
        return self.marks([key]).get(key)

    def marks(self, keys: Sequence[str], companion: str = "") -> Mapping[str, str | None]:
        """Return the marks of several keys' rows. Costs a look at the file's time, and a pass if that has changed."""
        try:
            index = self._index()
        except FileNotFoundError:
            return {}
        span = self._span(index)
        return {key: self._mark(index, span, key) for key in keys}

    def keys(self) -> list[str]:
        """Return the keys with rows, and the empty ones between them, as far as the lag lets them in."""
        try:
            first, last = self._span(self._index())
        except FileNotFoundError:
            return []
        keys = [] if last < 0 else [self.site.grain.key_at(place) for place in range(first, last + 1)]
        return [key for key in keys if lags.is_over(self, key)]

    def arrived_at(self, key: str) -> datetime | None:
        """Return when the file was written last."""
        try:
            return datetime.fromtimestamp(self._file.stat().st_mtime, UTC)
        except OSError:
            return None

    def cite(self, key: str | None = None) -> str:
        """Return the file's path, and the key."""
        return str(self._file) if key is None else f"{self._file}, {key}"

    def fetch(self, key: str, companion: str = "") -> Landed:
        """Return a key's rows as CSV or Parquet.

        Raises:
            FileNotFoundError: there is no file, or it has no row of the key or a later one.
            ChannelProblem: the file cannot be cut, changes all the time, or has too many rows of the key.
        """
        from platform_assets.data.channels import parts, passes

        for _ in range(MOST_TRIES):
            index = self._index()
            mark = self._mark(index, self._span(index), key)
            if mark is None:
                raise FileNotFoundError(f"{self._file} has no row of {key} or a later key.")
            part = index.parts.get(key)
            if part is not None and (needed := part.size * PARSED / 1e6) > self.most_memory_mb:
                raise ChannelProblem(
                    f"{self._file} has {part.rows:,} rows of {key}, which take some {needed:,.0f} MB of memory; "
                    f"most_memory_mb is {self.most_memory_mb:,}. Choose a finer grain, leave columns out, or raise it."
                )
            data = parts.rows_of(self._recipe, index, part)
            if data is not None:
                at = datetime.fromtimestamp(index.modified_s, UTC)
                return Landed(uri=self.cite(key), data=data, arrived_at_utc=at, mark=mark)
            # The file was written between the pass and this read, though neither its size nor its time tells.
            passes.forget(self._recipe, self.site.scratch)
        raise ChannelProblem(f"{self._file} changed in each of {MOST_TRIES} reads of {key}; it is taken in later.")

    @cached_property
    def _file(self) -> Path:
        return (self.site.folder / Path(self.path).expanduser()).absolute()

    @cached_property
    def _recipe(self) -> Recipe:
        from platform_assets.data.channels.parts import Recipe

        return Recipe(
            path=str(self._file),
            by=self.by,
            time_format=self.time_format,
            multiline=self.site.multiline,
            grain=self.site.grain,
        )

    def _span(self, index: Index) -> tuple[int, int]:
        """Return the positions of the first and the last key with rows; -1 for the last without any."""
        places = [self.site.grain.index(key) for key in index.parts]
        return (min(places), max(places)) if places else (0, -1)

    def _mark(self, index: Index, span: tuple[int, int], key: str) -> str | None:
        from platform_assets.data.channels import parts

        if not lags.is_over(self, key):
            return None
        if key in index.parts:
            return index.parts[key].mark
        is_between = self.site.grain.contains(key) and span[0] <= self.site.grain.index(key) <= span[1]
        return parts.empty_mark(index) if is_between else None

    def _index(self) -> Index:
        """Return which rows belong to which key.

        Raises:
            FileNotFoundError: there is no file.
            ChannelProblem: the file cannot be cut.
        """
        from platform_assets.data.channels import passes

        index = passes.index(self._recipe, self.site.scratch)
        if index.problem:
            raise ChannelProblem(index.problem)
        return index
