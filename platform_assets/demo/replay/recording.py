"""Read a product's recording: the files that its source systems would deliver, as good rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from platform_assets.base import naming
from platform_assets.engine.digests import reads
from platform_assets.product.spec import History, Product, Source

if TYPE_CHECKING:
    import polars as pl

_WHENEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Stand-in for the arrival of a file, which is not a column of any schema: a caller need not know it."""


def history(spec: Product) -> History:
    """Return the product's recording; raise `ValueError` for a product without one."""
    if spec.history is None:
        raise ValueError(f"{spec.name} has no history to replay; set `history` in its SPEC, or deliver real files.")
    return spec.history


class Reader:
    """Reads delivered files into good rows, each file once, and caches those that later keys look back on."""

    def __init__(self, spec: Product) -> None:
        """Prepare; nothing is read yet."""
        self._spec = spec
        self._rows: dict[tuple[str, str], pl.DataFrame | None] = {}

    def rows(self, source: Source, key: str) -> pl.DataFrame | None:
        """Return the good rows of a file, cast to the source's types, with a column `key`; None if there is no file."""
        file = (source.name, key)
        if file not in self._rows:
            data = history(self._spec).deliver(source.name, key)
            with reads.guarded(self._spec.module):
                self._rows[file] = None if data is None else self._good(source, key, data)
        return self._rows[file]

    def latest(self, source: Source, key: str) -> datetime | None:
        """Return when a file's last good row was known, or its last broken one if none is good; None for neither."""
        import polars as pl

        from platform_assets.data import typed

        rows = self.rows(source, key)
        if rows is None or source.known_at is None:
            return None
        moments = rows[source.known_at]
        if not rows.height:
            data = history(self._spec).deliver(source.name, key)
            assert data is not None  # it has rows, if only broken ones
            moments = self._parsed(source, key, data)[source.known_at]
            if moments.dtype == pl.String:  # null where they are not moments
                parsed = typed.parsed(moments.name, pl.Datetime("us", "UTC"))
                moments = moments.to_frame().select(parsed.alias(moments.name)).to_series()
        newest = moments.max()
        return newest if isinstance(newest, datetime) else None

    def forget(self, before: str) -> None:
        """Drop the rows of keys before this one."""
        grain = self._spec.grain
        first = grain.index(before)
        self._rows = {
            (source, key): rows
            for (source, key), rows in self._rows.items()
            if key == naming.UNPARTITIONED or grain.index(key) >= first
        }

    def _good(self, source: Source, key: str, data: bytes) -> pl.DataFrame:
        import polars as pl

        from platform_assets.data import validation

        grain, column = self._spec.grain, source.partition_by
        split = validation.split(
            self._parsed(source, key, data),
            source.columns(),
            schema_version=source.schema_version,
            unique=source.unique,
            key=key,
            key_of=validation.key_column(column, grain.key_of) if column else None,  # type: ignore[attr-defined]  # a spec with partition_by has a timed grain
        )
        return split.good.with_columns(pl.lit(key).alias("key"))

    def _parsed(self, source: Source, key: str, data: bytes) -> pl.DataFrame:
        from platform_assets.data import landed

        return landed.rows(
            data,
            columns=list(source.columns().columns),
            arrived_at_utc=_WHENEVER,
            read=source.read,
            multiline=source.multiline,
            absent=source.may_lack(self._spec.grain, key),
        )
