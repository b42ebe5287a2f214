"""Define `HostAsset`: an asset of the same Dagster deployment, made by anything, as a product's source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

Partition = Callable[[str], str | None]
PARTITION = "{partition}"
"""Stands for a partition in an address."""


@dataclass(frozen=True, kw_only=True)
class HostAsset:
    """An asset whose rows a source takes: of Parquet files, a Delta table or a table of a database.

    Attributes:
        path: the parts of its key.
        uri: where its rows are: a folder or file, an `s3://` URL, or a database's address, in which `{NAME}` stands for
            a variable of the environment (`postgresql://shop:{SHOP_PASSWORD}@db/shop`), and in that of files
            `{partition}` for the partition. None: the asset's materialisations say it, or else its definition
            (`dagster/uri`).
        table: of a database, such as `analytics.orders`. None: the same say it (`dagster/table_name`).
        key_of: returns the product's key for one of the asset's partitions, None for a partition that has none; no two
            give the same key. Without it they have the same names.
    """

    path: tuple[str, ...]
    uri: str | None = None
    table: str | None = None
    key_of: Partition | None = None

    @property
    def name(self) -> str:
        """The asset's key as Dagster shows it."""
        return "/".join(self.path)


def asset_of(value: Any) -> HostAsset:
    """Return what a product's file names: an `AssetKey`, the text `dbt/orders`, its parts, or a `HostAsset`.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, HostAsset):
        return value
    parts = value.split("/") if isinstance(value, str) else getattr(value, "path", value)
    if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, str) and part for part in parts):
        raise ValueError(
            f"asset is {value!r:.80}; expected the key of an asset, such as AssetKey('orders') or 'dbt/orders', or "
            "HostAsset(path=('orders',), uri=...)."
        )
    return HostAsset(path=tuple(parts))


def rows_of(data: bytes) -> pl.DataFrame:
    """Read what the channel of an asset delivers: Parquet. Moments without a time zone are taken as UTC."""
    import polars as pl

    rows = pl.read_parquet(BytesIO(data))
    naive = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.Datetime) and dtype.time_zone is None]
    return rows.with_columns(pl.col(naive).dt.replace_time_zone("UTC"))
