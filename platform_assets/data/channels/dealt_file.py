"""Define `DealtFile`: one CSV or Parquet file without moments, whose rows are dealt into numbered batches."""

from __future__ import annotations

import hashlib
import io
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from platform_assets.base import kinds
from platform_assets.base.keys import BatchGrain
from platform_assets.product.channel_sites import ChannelProblem, Site, SitedChannel
from platform_assets.product.channels import Landed

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.data.channels.lags import Read, Schema

KNOWN_AT = "known_at_utc"
"""The column that is added: the file does not say when its rows were known, so all of them were at `LONG_AGO`."""
STEP = 2_654_435_769
"""Of 2^32: the golden ratio."""
LONG_AGO = "2000-01-01T00:00:00Z"


@dataclass(frozen=True)
class DealtFile(SitedChannel):
    """One file without moments, as the batches of a `BatchGrain`.

    Every batch is a sample of the whole file, whatever its order; with `batch` it has the rows of one value, such as a
    year. Rows have the column `known_at_utc` in addition, a moment long ago. The file is read as a whole whenever its
    size or time has changed, and a batch's mark is of its content.

    Attributes:
        path: of the file; a relative one starts in the project's folder, as in `OneFile`.
        batch: column whose values, sorted, are the batches; None spreads the rows evenly, by their number.
    """

    PLACES: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    _: KW_ONLY
    batch: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no file has."""
        object.__setattr__(self, "path", str(self.path))  # a person may write a Path
        kinds.check(self, f"DealtFile({self.path!r}): ")

    def at(self, site: Site) -> Self:
        """Return the channel with a product's grain.

        Raises:
            ValueError: its keys are not batches.
        """
        if not isinstance(site.grain, BatchGrain):
            raise ValueError(
                f"source {site.source!r} deals the rows of {self.path} into batches, and its keys are "
                f"{site.grain.kind}; expected a BatchGrain, or OneFile with the column of the moments."
            )
        return super().at(site)

    def reader(self, read: Read | None, schema: Schema, multiline: tuple[str, ...]) -> Read | None:
        """Return the source's own `read`, or one for the file's format."""
        from platform_assets.product.host_assets import rows_of

        return read or (rows_of if is_parquet(Path(self.path)) else None)

    def keys(self) -> list[str]:
        """Return all batches; none where there is no file."""
        grain = self.site.grain
        return [grain.key_at(place) for place in range(grain.size or 0)] if self._file.is_file() else []

    def probe(self, key: str, companion: str = "") -> str | None:
        """Return the mark of a batch's content."""
        return hashlib.sha256(self._dealt()[key]).hexdigest()[:24] if key in self.keys() else None

    def arrived_at(self, key: str) -> datetime | None:
        """Return when the file was written last."""
        return datetime.fromtimestamp(self._file.stat().st_mtime, UTC) if self._file.is_file() else None

    def fetch(self, key: str, companion: str = "") -> Landed:
        """Return a batch as CSV or Parquet.

        Raises:
            FileNotFoundError: there is no file.
            ChannelProblem: it cannot be read.
        """
        mark, arrived_at = self.probe(key), self.arrived_at(key)
        if mark is None or arrived_at is None:
            raise FileNotFoundError(f"there is no file {self._file}.")
        return Landed(uri=self.cite(key), data=self._dealt()[key], arrived_at_utc=arrived_at, mark=mark)

    def cite(self, key: str | None = None) -> str:
        """Return the file's path, and the batch."""
        return str(self._file) if key is None else f"{self._file}, {key}"

    @property
    def _file(self) -> Path:
        return (self.site.folder / Path(self.path).expanduser()).absolute()

    def _dealt(self) -> dict[str, bytes]:
        stat = self._file.stat()
        keys = tuple(self.keys())
        return _dealt(self._file, keys, self.batch, self.site.multiline, (stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=4)
def _dealt(
    file: Path, keys: tuple[str, ...], column: str | None, multiline: tuple[str, ...], _state: tuple[int, int]
) -> dict[str, bytes]:
    """Return each batch in the file's own format; read again when the file's size or time differs."""
    import polars as pl

    rows = rows_of_file(file, multiline)
    if column is not None and column not in rows.columns:
        raise ChannelProblem(f"{file} has no column {column!r}, whose values are the batches; it has {rows.columns}.")
    rows = rows.with_columns(pl.lit(LONG_AGO).alias(KNOWN_AT))
    # Steps of the golden ratio spread rows evenly, and repeat with no period that a file may have.
    spread = pl.int_range(pl.len(), dtype=pl.Int64) * STEP % 2**32 * len(keys) // 2**32
    place = spread if column is None else pl.col(column).rank("dense").cast(pl.Int64) - 1
    batches = {}
    for number, key in enumerate(keys):
        data, batch = io.BytesIO(), rows.filter(place == number)
        batch.write_parquet(data, statistics=False) if is_parquet(file) else batch.write_csv(data)
        batches[key] = data.getvalue()
    return batches


def rows_of_file(file: Path, multiline: tuple[str, ...] = ()) -> pl.DataFrame:
    """Read a whole CSV file as text, or a Parquet file.

    Raises:
        ChannelProblem: it is neither, or a record of CSV is not a row.
    """
    import polars as pl

    from platform_assets.data.delimited import BROKEN, UnreadableFile, read_csv

    try:
        rows = pl.read_parquet(file) if is_parquet(file) else read_csv(file.read_bytes(), multiline=multiline)
    except (OSError, UnreadableFile, pl.exceptions.PolarsError) as problem:
        raise ChannelProblem(f"{file} cannot be read: {problem}") from None
    if BROKEN in rows.columns:
        raise ChannelProblem(f"{file} has a record that is not a row: {rows[BROKEN].drop_nulls()[0]}. Fix the file.")
    return rows


def is_parquet(file: Path) -> bool:
    """Tell whether a file's name says that it is Parquet."""
    return file.suffix in (".parquet", ".pq")
