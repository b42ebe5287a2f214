"""Read and validate a source's files as they are delivered.

Belongs here: from `deliver` to good rows. Does not belong here: which keys are read (`trial`), or what
the rows are used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.checking import rows
from platform_assets.checking.deliveries import Deliveries
from platform_assets.checking.told import DELIVER, Problem, another, counted, file_of, mend_of, own, own_frame
from platform_assets.compute import landed, validate
from platform_assets.specs.base import ProductSpec, Source

if TYPE_CHECKING:
    import pandera.polars as pa

_WHENEVER = datetime(1970, 1, 1, tzinfo=UTC)


def schema_of(spec: ProductSpec, source: Source) -> pa.DataFrameSchema:
    """Return a source's schema; raise `ValueError` for one that fails or lacks what it must have."""
    import pandera.polars as pa

    whose = f"{name_of(source.schema, 'schema')}()"
    schema: object = own(spec, whose, source.schema)
    if not isinstance(schema, pa.DataFrameSchema):
        raise another(spec, whose, schema, "a pandera DataFrameSchema")
    schema = source.columns()
    for name, column in schema.columns.items():
        dtype = None if column.dtype is None else column.dtype.type
        if dtype is None:
            raise Problem(f"{whose} of {spec.name}: column {name!r} has no type. {mend_of(spec)}")
        if name in (source.known_at, source.partition_by) and dtype != pl.Datetime("us", "UTC"):
            raise Problem(
                f"{whose} of {spec.name}: column {name!r} is {dtype}, and the source names it as a moment; expected "
                f'pl.Datetime("us", "UTC"). {mend_of(spec)}'
            )
        rows.check_type(name, dtype, f"{whose} of {spec.name}", mend_of(spec))
    return schema


def read(spec: ProductSpec, given: Deliveries, source: Source, keys: Sequence[str]) -> tuple[pl.DataFrame, str]:
    """Return the good rows of the keys' files with the column `key`, and what is to be told of them."""
    splits = _splits(spec, given, source, keys)
    good = _good(splits)
    bad = pl.concat(split.quarantined for split in splits.values())
    reason = "" if bad.is_empty() else f"; most often: {bad['reason'].value_counts(sort=True)['reason'][0]}"
    if bad.height > spec.monitors.max_quarantined_share * (good.height + bad.height) or good.is_empty():
        raise Problem(
            f"{bad.height:,} of {good.height + bad.height:,} rows of {source.name} are refused{reason}. Mend the "
            f"source's schema or {_place(spec, given)}."
        )
    return (
        good,
        f"{counted(len(splits), 'file')}, {counted(good.height, 'row')} good, {bad.height:,} quarantined{reason}",
    )


def good(spec: ProductSpec, given: Deliveries, source: Source, keys: Sequence[str]) -> pl.DataFrame:
    """Return the good rows of the keys' files with the column `key`, however many are refused."""
    return _good(_splits(spec, given, source, keys))


def name_of(function: object, otherwise: str) -> str:
    """Return a function's name; a `functools.partial` has none."""
    return str(getattr(function, "__name__", otherwise))


def _splits(spec: ProductSpec, given: Deliveries, source: Source, keys: Sequence[str]) -> dict[str, validate.Split]:
    schema = schema_of(spec, source)
    files = {key: _delivered(spec, given, source, key) for key in keys}
    raws = {
        key: _rows(spec, given, source, key, data, [*schema.columns]) for key, data in files.items() if data is not None
    }
    if not raws:
        raise Problem(
            f"{given.by} of {spec.name} delivers no file of {source.name}, {keys[0]} to {keys[-1]}. {mend_of(spec)}"
        )
    return own(spec, f"the schema of {source.name}", _split, spec, source, schema, raws)


def _good(splits: dict[str, validate.Split]) -> pl.DataFrame:
    return pl.concat(split.good.with_columns(pl.lit(key).alias("key")) for key, split in splits.items())


def _place(spec: ProductSpec, given: Deliveries) -> str:
    """Return what to fix besides the schema, to stand in a sentence."""
    return f"{given.by} in {file_of(spec.name)}" if given.is_recorded else f"{given.by} ({file_of(spec.name)})"


def _delivered(spec: ProductSpec, given: Deliveries, source: Source, key: str) -> bytes | None:
    data: object = own(spec, DELIVER, given.deliver, source.name, key)
    if data is not None and not isinstance(data, bytes):
        raise another(spec, f"{DELIVER} (source {source.name}, key {key})", data, "bytes, or None for no file")
    return data


def _rows(
    spec: ProductSpec, given: Deliveries, source: Source, key: str, data: bytes, columns: Sequence[str]
) -> pl.DataFrame:
    def reader(data: bytes) -> pl.DataFrame:
        assert source.read is not None  # else nobody calls this
        return own_frame(spec, f"{name_of(source.read, 'read')}()", source.read, data)

    try:
        return landed.rows(
            data, columns=columns, arrived_at_utc=_WHENEVER, read=None if source.read is None else reader
        )
    except landed.UnreadableFile as problem:
        if file_of(spec.name) in str(problem):
            raise
        fix = f"Fix {given.by}, or the source, in {file_of(spec.name)}."
        raise Problem(f"the file of {source.name}, key {key}, cannot be read: {problem} {fix}") from None


def _split(
    spec: ProductSpec, source: Source, schema: pa.DataFrameSchema, raws: dict[str, pl.DataFrame]
) -> dict[str, validate.Split]:
    return validate.split_keys(
        raws,
        schema,
        schema_version=source.schema_version,
        unique=source.unique,
        key_of=validate.key_column(source.partition_by, spec.grain.key_of) if source.partition_by else None,  # type: ignore[attr-defined]  # a spec with partition_by has a timed grain
    )
