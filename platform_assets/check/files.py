"""Read and validate a source's files: from `deliver` to the rows that the schema accepts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.base.wording import counted, span
from platform_assets.check import rows
from platform_assets.check.deliveries import Deliveries
from platform_assets.check.messages import DELIVER, Problem, call, call_for_frame, file_of, fix_in, wrong_type
from platform_assets.data import columns, landed, validation
from platform_assets.data.raw_maker import Landing
from platform_assets.engine.digests import reads
from platform_assets.product.derived import SomeColumns
from platform_assets.product.spec import Product, Source

if TYPE_CHECKING:
    import pandera.polars as pa

_ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def schema_of(spec: Product, source: Source) -> pa.DataFrameSchema:
    """Return a source's schema; raise `ValueError` for one that fails or lacks a required part."""
    import pandera.polars as pa

    function = f"{name_of(source.schema, 'schema')}()"
    try:
        schema: object = call(spec, function, source.schema)
    except Problem as problem:
        raise Problem(f"{problem}{_other_pandera(source)}") from problem
    if not isinstance(schema, pa.DataFrameSchema):
        raise wrong_type(spec, function, schema, f"a pandera DataFrameSchema of polars.{_other_pandera(source)}")
    with reads.guarded(spec.module):
        schema = source.columns()
    moments = {source.known_at, source.partition_by, *(source.known_at_of or {}).values()}
    for name, column in schema.columns.items():
        dtype = None if column.dtype is None else column.dtype.type
        if dtype is None:
            raise Problem(f"{function} of {spec.name}: column {name!r} has no type. {fix_in(spec)}")
        if name in moments and dtype != pl.Datetime("us", "UTC"):
            raise Problem(
                f"{function} of {spec.name}: column {name!r} is {dtype}, and the source uses it as a time; expected "
                f'pl.Datetime("us", "UTC"). {fix_in(spec)}'
            )
        rows.check_type(name, dtype, f"{function} of {spec.name}", fix_in(spec))
    return schema


def _other_pandera(source: Source) -> str:
    """Return what to import where a schema is written with the pandera of pandas."""
    try:
        function = source.schema.schema if isinstance(source.schema, SomeColumns) else source.schema
        text = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        return ""
    is_other = re.search(r"\bimport pandera\b(?!\.polars)|\bfrom pandera(\.pandas)? import\b|\bpandera\.pandas\b", text)
    return " Write `import pandera.polars as pa`: `import pandera` is for pandas." if is_other else ""


def read(spec: Product, available: Deliveries, source: Source, keys: Sequence[str]) -> tuple[pl.DataFrame, str]:
    """Return the good rows of the keys' files with the column `key`, and a summary for the check's line."""
    splits, undeclared = _splits(spec, available, source, keys)
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
        f"{counted(len(splits), 'file')}, {counted(good.height, 'row')} good, {bad.height:,} quarantined{reason}"
        + (f"; not declared, and left out: {columns.in_short(undeclared)}" if undeclared else ""),
    )


def good(spec: Product, available: Deliveries, source: Source, keys: Sequence[str]) -> pl.DataFrame:
    """Return the good rows of the keys' files with the column `key`, whatever share is refused."""
    return _good(_splits(spec, available, source, keys)[0])


def name_of(function: object, default: str) -> str:
    """Return a function's name; a `functools.partial` has none."""
    return str(getattr(function, "__name__", default))


def _splits(
    spec: Product, available: Deliveries, source: Source, keys: Sequence[str]
) -> tuple[dict[str, validation.Split], list[str]]:
    """Return the rows of the keys' files, split, and the columns of any of them that the source does not declare."""
    schema = schema_of(spec, source)
    read = source.read
    if read is not None:  # whatever goes wrong in a reader becomes a `Problem`
        source = replace(source, read=lambda data: call_for_frame(spec, f"{name_of(read, 'read')}()", read, data))
    maker = Landing.for_source(spec, source)
    raws, undeclared = dict[str, pl.DataFrame](), dict[str, None]()
    for key in keys:
        data: object = call(spec, DELIVER, available.deliver, source.name, key)
        if data is None:
            continue
        if not isinstance(data, bytes):
            name = f"{DELIVER} (source {source.name}, key {key})"
            raise wrong_type(spec, name, data, "bytes, or None for no file")
        try:
            raws[key], names = maker.rows(data, _ANY_TIME, key)
        except landed.UnreadableFile as problem:
            if file_of(spec.name) in str(problem):
                raise
            raise Problem(
                f"the file of {source.name}, key {key}, from {_origin(spec, available)} cannot be read: {problem}"
            ) from None
        undeclared.update(dict.fromkeys(names))
    if not raws:
        raise Problem(
            f"{available.origin} of {spec.name} delivers no file of {source.name}, {span(keys)}. {fix_in(spec)}"
        )
    split = partial(
        validation.split_keys,
        schema_version=source.schema_version,
        unique=source.unique,
        key_of=validation.key_column(source.partition_by, spec.grain.key_of) if source.partition_by else None,  # type: ignore[attr-defined]  # a spec with partition_by has a timed grain
    )
    return call(spec, f"the schema of {source.name}", split, raws, schema), [*undeclared]


def _good(splits: dict[str, validation.Split]) -> pl.DataFrame:
    return pl.concat(split.good.with_columns(pl.lit(key).alias("key")) for key, split in splits.items())


def _origin(spec: Product, available: Deliveries) -> str:
    """Return where the files come from, which may need a fix instead of the schema."""
    file = file_of(spec.name)
    return f"{available.origin} in {file}" if available.is_recorded else f"{available.origin} ({file})"
