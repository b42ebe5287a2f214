"""Read and validate a source's files: from `deliver` to the rows that the schema accepts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.checking import rows
from platform_assets.checking.deliveries import Deliveries
from platform_assets.checking.messages import (
    DELIVER,
    Problem,
    call,
    call_for_frame,
    file_of,
    fix_in,
    wrong_type,
)
from platform_assets.compute import landed, validate
from platform_assets.digests import reads
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.wording import counted, span

if TYPE_CHECKING:
    import pandera.polars as pa

_ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def schema_of(spec: ProductSpec, source: Source) -> pa.DataFrameSchema:
    """Return a source's schema; raise `ValueError` for one that fails or lacks a required part."""
    import pandera.polars as pa

    function = f"{name_of(source.schema, 'schema')}()"
    schema: object = call(spec, function, source.schema)
    if not isinstance(schema, pa.DataFrameSchema):
        raise wrong_type(spec, function, schema, "a pandera DataFrameSchema")
    with reads.guarded(spec.module):
        schema = source.columns()
    for name, column in schema.columns.items():
        dtype = None if column.dtype is None else column.dtype.type
        if dtype is None:
            raise Problem(f"{function} of {spec.name}: column {name!r} has no type. {fix_in(spec)}")
        if name in (source.known_at, source.partition_by) and dtype != pl.Datetime("us", "UTC"):
            raise Problem(
                f"{function} of {spec.name}: column {name!r} is {dtype}, and the source uses it as a time; expected "
                f'pl.Datetime("us", "UTC"). {fix_in(spec)}'
            )
        rows.check_type(name, dtype, f"{function} of {spec.name}", fix_in(spec))
    return schema


def read(spec: ProductSpec, available: Deliveries, source: Source, keys: Sequence[str]) -> tuple[pl.DataFrame, str]:
    """Return the good rows of the keys' files with the column `key`, and a summary for the check's line."""
    splits = _splits(spec, available, source, keys)
    good = _good(splits)
    bad = pl.concat(split.quarantined for split in splits.values())
    reason = "" if bad.is_empty() else f"; most often: {bad['reason'].value_counts(sort=True)['reason'][0]}"
    if good.is_empty() and bad.is_empty():
        raise Problem(
            f"the files of {source.name}, {span(keys)}, have no rows; expected some. Fix {_origin(spec, available)}."
        )
    if bad.height > spec.monitors.max_quarantined_share * (good.height + bad.height) or good.is_empty():
        raise Problem(
            f"{bad.height:,} of {good.height + bad.height:,} rows of {source.name} are refused{reason}. Fix the "
            f"source's schema or {_origin(spec, available)}."
        )
    return (
        good,
        f"{counted(len(splits), 'file')}, {counted(good.height, 'row')} good, {bad.height:,} quarantined{reason}",
    )


def good(spec: ProductSpec, available: Deliveries, source: Source, keys: Sequence[str]) -> pl.DataFrame:
    """Return the good rows of the keys' files with the column `key`, whatever share is refused."""
    return _good(_splits(spec, available, source, keys))


def name_of(function: object, default: str) -> str:
    """Return a function's name; a `functools.partial` has none."""
    return str(getattr(function, "__name__", default))


def _splits(spec: ProductSpec, available: Deliveries, source: Source, keys: Sequence[str]) -> dict[str, validate.Split]:
    schema = schema_of(spec, source)
    files = {key: _delivered(spec, available, source, key) for key in keys}
    raws = {
        key: _rows(spec, available, source, key, data, [*schema.columns])
        for key, data in files.items()
        if data is not None
    }
    if not raws:
        raise Problem(f"{available.by} of {spec.name} delivers no file of {source.name}, {span(keys)}. {fix_in(spec)}")
    return call(spec, f"the schema of {source.name}", _split, spec, source, schema, raws)


def _good(splits: dict[str, validate.Split]) -> pl.DataFrame:
    return pl.concat(split.good.with_columns(pl.lit(key).alias("key")) for key, split in splits.items())


def _origin(spec: ProductSpec, available: Deliveries) -> str:
    """Return where the files come from, which may need a fix instead of the schema."""
    return (
        f"{available.by} in {file_of(spec.name)}" if available.is_recorded else f"{available.by} ({file_of(spec.name)})"
    )


def _delivered(spec: ProductSpec, available: Deliveries, source: Source, key: str) -> bytes | None:
    data: object = call(spec, DELIVER, available.deliver, source.name, key)
    if data is not None and not isinstance(data, bytes):
        raise wrong_type(spec, f"{DELIVER} (source {source.name}, key {key})", data, "bytes, or None for no file")
    return data


def _rows(
    spec: ProductSpec, available: Deliveries, source: Source, key: str, data: bytes, columns: Sequence[str]
) -> pl.DataFrame:
    def reader(data: bytes) -> pl.DataFrame:
        assert source.read is not None  # this function is passed on only then
        return call_for_frame(spec, f"{name_of(source.read, 'read')}()", source.read, data)

    try:
        return landed.rows(
            data, columns=columns, arrived_at_utc=_ANY_TIME, read=None if source.read is None else reader
        )
    except landed.UnreadableFile as problem:
        if file_of(spec.name) in str(problem):
            raise
        raise Problem(
            f"the file of {source.name}, key {key}, from {_origin(spec, available)} cannot be read: {problem}"
        ) from None


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
