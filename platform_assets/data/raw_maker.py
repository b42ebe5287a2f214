"""Turn the bytes of landed files into rows: of text, or of typed values if the source has its own reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from platform_assets.data import columns, landed, typed
from platform_assets.data.landed import UnreadableFile
from platform_assets.engine.outputs import RowMaker
from platform_assets.store.landing import LandedFiles

if TYPE_CHECKING:
    from datetime import datetime

    import pandera.polars as pa

    from platform_assets.base.keys import Grain
    from platform_assets.product.channels import Channel, Landed
    from platform_assets.product.host_assets import HostAsset
    from platform_assets.product.sources import Column, Source
    from platform_assets.product.spec import Product


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of a delivery.

    Attributes:
        undeclared: its columns that the source does not declare and that were left out.
        unreadable: why it counts as one without rows; None if it could be read.
    """

    undeclared: Sequence[str] = ()
    unreadable: UnreadableFile | None = None


@dataclass(frozen=True, kw_only=True)
class Landing(RowMaker):
    """Reads the files of one source; see `Source` for its members. Files below `landing/` have no channel.

    Attributes:
        grain: the product's, if a partial column is declared by keys; otherwise None.
    """

    NUMBER: ClassVar[int] = 1
    CARRIERS: ClassVar[tuple[object, ...]] = (LandedFiles,)

    schema: Callable[[], pa.DataFrameSchema]
    read: Callable[[bytes], pl.DataFrame] | None
    asset: HostAsset | None
    channel: Channel | None
    multiline: tuple[str, ...]
    partial_columns: tuple[Column, ...]
    grain: Grain | None

    @staticmethod
    def for_source(spec: Product, source: Source) -> Landing:
        """Return the maker for a source."""
        return Landing(
            schema=source.schema,
            read=source.read,
            asset=None if source.asset is None else replace(source.asset, uri=None),
            channel=source.channel,
            multiline=source.multiline,
            partial_columns=source.partial_columns,
            grain=None if all(column.optional for column in source.partial_columns) else spec.grain,
        )

    def make(
        self, files: Mapping[str, Landed | None], stored: Mapping[str, pl.DataType]
    ) -> tuple[dict[str, pl.DataFrame], dict[str, Taken]]:
        """Return the rows of each key, and what became of its delivery.

        Args:
            files: by key; None for a delivery that never came, which has no rows.
            stored: the types of the table's columns; empty before the table exists.
        """
        rows, taken = dict[str, pl.DataFrame](), dict[str, Taken]()
        for key, file in files.items():
            taken[key] = Taken()
            if file is not None:
                try:
                    rows[key], undeclared = self.rows(file.data, file.arrived_at_utc, key)
                except UnreadableFile as problem:
                    taken[key] = Taken(unreadable=problem)
                else:
                    taken[key] = Taken(undeclared=undeclared)
        # The rows of all keys get common types, also the empty ones of missing files.
        types: dict[str, pl.DataType] = dict.fromkeys(self._types(), pl.String())
        if self.read is not None:
            types = typed.targets(list(rows.values()), self._types(), stored)
            rows = {key: typed.hold(frame, types) for key, frame in rows.items()}
        nothing = pl.Schema(types) | {"source_offset": pl.Int64(), "arrived_at_utc": pl.Datetime("us", "UTC")}
        return {key: rows.get(key, pl.DataFrame(schema=nothing)) for key in files}, taken

    def rows(self, data: bytes, arrived_at_utc: datetime, key: str) -> tuple[pl.DataFrame, Sequence[str]]:
        """Parse the file of a key; return its rows, and its columns that the source does not declare.

        Raises:
            UnreadableFile: the file is empty or truncated, or lacks a column.
        """
        absent = {column.name for column in self.partial_columns if column.may_lack(self.grain, key)}
        frame, types = landed.parse(data, self.read, self.multiline), self._types()
        rows = landed.declared(frame, columns=types, arrived_at_utc=arrived_at_utc, absent=absent)
        return rows, columns.undeclared(landed.as_delivered(frame, types), types)

    def _types(self) -> dict[str, pl.DataType]:
        return {name: column.dtype.type for name, column in self.schema().columns.items()}
