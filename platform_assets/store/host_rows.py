"""Read the rows of a host's asset as they were when it was materialised: the channel of `Source.asset`.

What was materialised is on record (`data/materialisations.py` writes it), so a channel needs no Dagster. A Delta table
is read at the version that was seen. Files and tables of a database have no versions: a read that finds other rows than
were seen refuses, and the next materialisation is taken instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from platform_assets.base import naming
from platform_assets.base.keys import Grain
from platform_assets.product.channel_sites import ChannelProblem
from platform_assets.product.channels import Channel, Landed
from platform_assets.product.host_assets import HostAsset
from platform_assets.store import objects, rows_by_key
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.sources import MATERIALISED, Materialised

if TYPE_CHECKING:
    import polars as pl

FILE = ".parquet"
WHOLE = "all"
"""Name of the ledger of an asset whose rows are read together."""
_HIDDEN = re.compile(r"(^|/)[_.]")
_VARIABLE = re.compile(r"\{(\w+)\}")
_DATABASE = re.compile(r"[a-z][a-z0-9+]*://")
_DATABASES = ("duckdb", "sqlite", "postgresql")
_OBJECTS = ("s3://", "s3a://", "gs://", "az://", "abfs://", "abfss://", "file://")
PAGE = 1_000
"""Number of objects in one listing."""
_KEY = "driftline_key"


class AssetProblem(ChannelProblem):
    """An asset cannot be read as a source; the message names it."""


@dataclass(frozen=True, kw_only=True)
class AssetRows(Channel):
    """The rows of an asset whose partitions are keys, or of a slow source's.

    Attributes:
        root, product, source: whose records say what was materialised.
        asset: what is read.
    """

    PLACES: ClassVar[tuple[str, ...]] = ("root", "product", "source")

    root: str
    product: str
    source: str
    asset: HostAsset

    def probe(self, key: str, companion: str = "") -> str | None:
        """Return the mark of a key's rows. Three small reads."""
        return self.mark(self.materialised(key), key)

    def arrived_at(self, key: str) -> datetime | None:
        """Return when the newest rows of a key were materialised."""
        record = self.materialised(key)
        return datetime.fromisoformat(record.at_utc) if record else None

    def fetch(self, key: str, companion: str = "") -> Landed:
        """Return a key's rows as Parquet.

        Raises:
            FileNotFoundError: nothing was materialised for it.
            AssetProblem: its rows cannot be read, or were overwritten since.
        """
        record = self.materialised(key)
        mark = self.mark(record, key)
        if record is None or mark is None:
            raise FileNotFoundError(
                f"asset {self.asset.name} has no materialisation with rows of {key}; if it has another name now, fix "
                f"asset of source {self.source!r} in the product's file."
            )
        rows = self.part(record, key)
        # What has no versions, such as a database's table, tells by its rows alone that it was written anew.
        if record.keys and record.keys.get(key) != mark_of(rows):
            raise overwritten(self.asset.name, record.uri)
        if self.probe(key) != mark:  # a sensor noted another materialisation meanwhile
            raise AssetProblem(
                f"asset {self.asset.name} was materialised again while {key} was read; its new rows are taken next."
            )
        data = BytesIO()
        rows.write_parquet(data, statistics=False)
        at = datetime.fromisoformat(record.at_utc)
        return Landed(uri=record.uri, data=data.getvalue(), arrived_at_utc=at, mark=mark)

    def cite(self, key: str | None = None) -> str:
        """Return the asset's name."""
        return f"asset {self.asset.name}" + (f", {key}" if key else "")

    def keys(self) -> list[str]:
        """Return the keys that were materialised. One listing."""
        import obstore

        folder = naming.ledger_path(self.product, f"{naming.MATERIALISED}/{self.source}")
        listing = obstore.list_with_delimiter(objects.open_store(self.root), folder)
        return [prefix.rpartition("/")[2] for prefix in listing["common_prefixes"]]

    def for_tick(self) -> Channel:
        """Return a channel that lists the records of a bucket once; in a folder a probe costs no request."""
        if objects.is_folder(self.root):
            return self
        return _ListedRows(root=self.root, product=self.product, source=self.source, asset=self.asset)

    def materialised(self, key: str) -> Materialised | None:
        """Return the newest materialisation that a key's rows are from."""
        latest = Ledgers(self.root, self.product).of(MATERIALISED.of(ledger(self.source, key))).latest()
        return latest and latest[1]

    def mark(self, record: Materialised | None, key: str) -> str | None:
        """Return the mark of a key's rows in a materialisation."""
        return None if record is None else record.mark

    def part(self, record: Materialised, key: str) -> pl.DataFrame:
        """Read the rows of a key."""
        return read(record, self.asset.name)

    def seen(self, record: Materialised) -> dict[str, str]:
        """Return a mark per key for rows that have no version of their own."""
        return {naming.UNPARTITIONED: mark_of(read(record, self.asset.name))} if is_database(record.uri) else {}


@dataclass(frozen=True, kw_only=True)
class _ListedRows(AssetRows):
    """Rows by partition for one tick, which asks for keys in ascending order: most of them have no record."""

    def materialised(self, key: str) -> Materialised | None:
        import obstore

        if not self._listed:
            folder = naming.ledger_path(self.product, f"{naming.MATERIALISED}/{self.source}")
            # A listing starts after its offset, and the key itself must be in it.
            listing = obstore.list(objects.open_store(self.root), folder, offset=f"{folder}/{key}", chunk_size=PAGE)
            paths = [str(meta["path"]) for meta in next(iter(listing), [])]
            keys = [path.removeprefix(f"{folder}/").partition("/")[0] for path in paths]
            self._listed.append((key, frozenset(keys), keys[-1] if len(keys) == PAGE else None))
        first, names, last = self._listed[0]
        is_known_absent = first <= key and (last is None or key < last) and key not in names
        return None if is_known_absent else super().materialised(key)

    @cached_property
    def _listed(self) -> list[tuple[str, frozenset[str], str | None]]:
        """The one listing: its first key, the keys with records, and the last key that it reaches; None for all."""
        return []


@dataclass(frozen=True, kw_only=True)
class TableRows(AssetRows):
    """The rows of an asset that is one table, of which each key has some.

    Attributes:
        by: the column with a row's moment.
        grain: of the keys.
    """

    by: str
    grain: Grain

    def mark(self, record: Materialised | None, key: str) -> str | None:
        """Return the mark of a key's rows in a materialisation."""
        return None if record is None else record.keys.get(key)

    def marks(self, keys: Sequence[str], companion: str = "") -> Mapping[str, str | None]:
        """Return the marks of several keys' rows. Three small reads."""
        record = self.materialised(naming.UNPARTITIONED)
        return {key: self.mark(record, key) for key in keys}

    def keys(self) -> list[str]:
        """Return the keys with rows."""
        record = self.materialised(naming.UNPARTITIONED)
        return [] if record is None else [*record.keys]

    def for_tick(self) -> Channel:
        """Return itself: one record tells of all keys."""
        return self

    def materialised(self, key: str) -> Materialised | None:
        """Return the newest materialisation of the table."""
        return super().materialised(naming.UNPARTITIONED)

    def part(self, record: Materialised, key: str) -> pl.DataFrame:
        """Return the rows of a key; the table is read once for all of them."""
        if record.event not in self._tables:
            self._tables.clear()
            self._tables[record.event] = self._by_key(read(record, self.asset.name))
        if key not in self._tables[record.event]:
            raise overwritten(self.asset.name, record.uri)
        return self._tables[record.event][key]

    def seen(self, record: Materialised) -> dict[str, str]:
        """Return a mark per key."""
        return {key: mark_of(rows) for key, rows in sorted(self._by_key(read(record, self.asset.name)).items())}

    def _by_key(self, rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Split rows by the key of their moment; those without one, or outside of the grain, belong to none."""
        if self.by not in rows.columns:
            raise AssetProblem(
                f"asset {self.asset.name} has no column {self.by!r}, by which {self.source} of {self.product} assigns "
                f"rows to keys; it has {', '.join(rows.columns)}. Fix partition_by in the product's file."
            )
        try:
            keys = rows_by_key.keys_of(rows_by_key.utc(rows[self.by]), self.grain)
        except ValueError as problem:
            raise AssetProblem(f"asset {self.asset.name}: column {self.by!r} {problem}") from None
        named = rows.with_columns(keys.alias(_KEY)).drop_nulls(_KEY)
        parts = named.partition_by(_KEY, as_dict=True, include_key=False, maintain_order=True)
        return {f"{key}": part for (key,), part in parts.items()}

    @cached_property
    def _tables(self) -> dict[int, dict[str, pl.DataFrame]]:
        return {}


def ledger(source: str, key: str) -> str:
    """Return the name of the ledger of a source's key, below `materialised`."""
    return f"{source}/{WHOLE if key == naming.UNPARTITIONED else key}"


def overwritten(asset: str, uri: str) -> AssetProblem:
    """Return the problem of rows that are not those of the materialisation."""
    return AssetProblem(
        f"asset {asset}: its rows at {uri} were overwritten after it was materialised; materialise it again, and its "
        "new rows are taken."
    )


def mark_of(rows: pl.DataFrame) -> str:
    """Return a mark of rows: their number and a sum of their hashes, whatever their order."""
    # Comparable only within one version of polars: others give other hashes for the same rows.
    return f"{rows.height} {int(rows.hash_rows().sum() or 0):016x}"


def digest_of(marks: Mapping[str, str]) -> str:
    """Return the mark of a table, from those of its parts."""
    return f"rows {sha256(canonical(dict(marks)))[:16]}"


def is_database(uri: str) -> bool:
    """Tell whether an address is a database's, not that of files."""
    return bool(_DATABASE.match(uri)) and not uri.startswith(_OBJECTS)


def version_of(uri: str, asset: str) -> tuple[int | None, str]:
    """Return the version of a Delta table, and its mark; for Parquet files None and theirs. One listing.

    Raises:
        AssetProblem: there is neither.
    """
    from deltalake import DeltaTable

    with _reading(uri, asset):
        if not uri.endswith(FILE) and DeltaTable.is_deltatable(uri):
            version = DeltaTable(uri).version()
            return version, f"version {version}"
        return None, _files(uri)[1]


def read(record: Materialised, asset: str) -> pl.DataFrame:
    """Read all rows of a materialisation.

    Raises:
        AssetProblem: they cannot be read, or are others by now.
    """
    import polars as pl

    uri = record.uri
    with _reading(uri, asset):
        if is_database(uri):
            return _table(uri, record.table, asset)
        if record.version is not None:
            return pl.scan_delta(uri, version=record.version).collect()
        files, before = _files(uri)
        # polars reads the columns in folder names by itself for one folder, but not for a list of files.
        rows = pl.read_parquet(files, hive_partitioning="=" in files[0].removeprefix(uri))
        if record.files not in (None, before) or _files(uri)[1] != before:
            raise overwritten(asset, uri)
        return rows


@contextmanager
def _reading(uri: str, asset: str) -> Iterator[None]:
    """Name the asset whose rows cannot be read."""
    import deltalake
    import obstore
    import polars as pl

    known = (OSError, obstore.exceptions.BaseError, deltalake.exceptions.DeltaError, pl.exceptions.PolarsError)
    try:
        yield
    except ModuleNotFoundError as problem:
        package = {"psycopg2": "psycopg2-binary"}.get(f"{problem.name}", problem.name)
        raise AssetProblem(
            f"asset {asset}: {uri} cannot be read without {package}: pip install {package}."
        ) from problem
    except known as problem:
        raise AssetProblem(
            f"asset {asset}: {uri} cannot be read: {objects.first_line(problem).rstrip('.')}."
        ) from problem


def _files(uri: str) -> tuple[list[str], str]:
    """Return the Parquet files of an address, and a mark of all of them.

    Raises:
        FileNotFoundError: there are none.
    """
    import obstore

    folder, _, name = uri.rpartition("/") if uri.endswith(FILE) else (uri.rstrip("/"), "", "")
    if "://" not in folder and not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    store = objects.open_store(folder)
    try:
        metas = [obstore.head(store, name)] if name else [meta for page in obstore.list(store) for meta in page]
    except FileNotFoundError:
        metas = []
    # Names that begin so are those of logs and of files that are still being written.
    rows = (meta for meta in metas if meta["path"].endswith(FILE) and not _HIDDEN.search(meta["path"]))
    if not (metas := sorted(rows, key=lambda meta: meta["path"])):
        raise FileNotFoundError("there are neither Parquet files nor a Delta table")
    lines = [f"{meta['path']} {objects.mark_of(meta)}" for meta in metas]
    return [f"{folder}/{meta['path']}" for meta in metas], f"files {sha256(canonical(lines))[:16]}"


def _table(uri: str, table: str | None, asset: str) -> pl.DataFrame:
    """Read a table of a database in one snapshot, its rows sorted by all columns."""
    import polars as pl

    if not table:
        raise AssetProblem(
            f"asset {asset} is in a database and does not say in which table; give its materialisations the metadata "
            "dagster/table_name, or the source HostAsset(table=...)."
        )
    if not uri.startswith(_DATABASES):
        raise AssetProblem(f"asset {asset} is at {uri}; expected a database of {', '.join(_DATABASES)}, or files.")
    address = filled(uri, asset)
    query = "select * from {}".format(".".join('"{}"'.format(part.replace('"', '""')) for part in table.split(".")))
    if address.startswith("duckdb:"):
        import duckdb

        try:
            # Open for one query alone: even a reader of the file keeps writers out ("Could not set lock on file").
            with duckdb.connect(address.removeprefix("duckdb:///"), read_only=True) as connection:
                rows = pl.DataFrame(connection.sql(query))
        except duckdb.Error as problem:
            raise _unreadable(asset, table, problem) from None
    else:
        import sqlalchemy

        # Without a driver's name SQLAlchemy 2.1 looks for psycopg 3.
        engine = sqlalchemy.create_engine(address.replace("postgresql://", "postgresql+psycopg2://", 1))
        try:
            with engine.connect() as connection:
                if engine.dialect.name == "postgresql":
                    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                # By default types follow from the first 100 rows, and a later value that does not fit is an error.
                rows = pl.read_database(query, connection, infer_schema_length=None)
        except sqlalchemy.exc.SQLAlchemyError as problem:
            raise _unreadable(asset, table, getattr(problem, "orig", None) or problem) from None
        finally:
            engine.dispose()
    return rows.sort(rows.columns, nulls_last=True)  # a database promises no order of rows


def _unreadable(asset: str, table: str, problem: BaseException) -> AssetProblem:
    return AssetProblem(f"asset {asset}: table {table} cannot be read: {objects.first_line(problem).rstrip('.')}.")


def filled(uri: str, asset: str) -> str:
    """Return an address with the environment's variables that it names, such as a password."""

    def value(match: re.Match[str]) -> str:
        text = objects.variable(match[1])
        if text is None:
            raise AssetProblem(f"asset {asset}: its address names the variable {match[1]}, which is not set.")
        return text

    return _VARIABLE.sub(value, uri)
