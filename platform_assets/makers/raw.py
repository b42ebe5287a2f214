"""Turn the bytes of landed files into rows: of text, or of typed values if the source has its own reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from platform_assets.compute import landed, typed
from platform_assets.makers.parts import RowMaker

if TYPE_CHECKING:
    from datetime import datetime

    import pandera.polars as pa

    from platform_assets.product.channels import Channel
    from platform_assets.product.sources import Source
    from platform_assets.specs.base import ProductSpec


@dataclass(frozen=True, kw_only=True)
class Landing(RowMaker):
    """Reads the files of one source; see `Source` for its members. Files below `landing/` have no channel."""

    NUMBER: ClassVar[int] = 1

    schema: Callable[[], pa.DataFrameSchema]
    read: Callable[[bytes], pl.DataFrame] | None
    channel: Channel | None
    multiline: tuple[str, ...]

    @staticmethod
    def of(spec: ProductSpec, source: Source) -> Landing:
        """Return the maker for a source."""
        del spec
        return Landing(
            schema=source.schema, read=source.read, channel=source.channel, multiline=source.multiline
        )

    def rows(self, data: bytes, arrived_at_utc: datetime) -> pl.DataFrame:
        """Parse one file.

        Raises:
            UnreadableFile: the file is empty or truncated, or has other columns.
        """
        columns = list(self._types())
        return landed.rows(
            data, columns=columns, arrived_at_utc=arrived_at_utc, read=self.read, multiline=self.multiline
        )

    def align(
        self, frames: Mapping[str, pl.DataFrame], stored: Mapping[str, pl.DataType]
    ) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
        """Bring the rows of all keys to common types, and make an empty frame of those types for missing files.

        Args:
            frames: by key, from `rows`.
            stored: the types of the table's columns; empty before the table exists.
        """
        types: dict[str, pl.DataType] = dict.fromkeys(self._types(), pl.String())
        if self.read is not None:
            types = typed.targets(list(frames.values()), self._types(), stored)
            frames = {key: typed.hold(frame, types) for key, frame in frames.items()}
        nothing = pl.Schema(types) | {"source_offset": pl.Int64(), "arrived_at_utc": pl.Datetime("us", "UTC")}
        return dict(frames), pl.DataFrame(schema=nothing)

    def _types(self) -> dict[str, pl.DataType]:
        return {name: column.dtype.type for name, column in self.schema().columns.items()}
