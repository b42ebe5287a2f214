"""Split one file into landed files, one per key of a source: show what would be written, then write it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.base.wording import counted, span
from platform_assets.data import arrivals, delimited
from platform_assets.data.channels import moments, parts
from platform_assets.product.sited import ChannelProblem
from platform_assets.product.spec import Product, Source
from platform_assets.store import objects
from platform_assets.store.artifacts import sha256
from platform_assets.store.product_store import ProductStore


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What landing a file does.

    Attributes:
        product, source: whose files are written.
        recipe, index: which rows of the file belong to which key.
        new, same, others: keys without a file, with one of these rows, and with one of other rows.
        running: keys whose period is not over, which are left out.
    """

    product: ProductStore
    source: Source
    recipe: parts.Recipe
    index: parts.Index
    new: tuple[str, ...]
    same: tuple[str, ...]
    others: tuple[str, ...]
    running: tuple[str, ...]

    def write(self) -> None:
        """Write the files of new keys and of those with other rows, each whole or not at all.

        Raises:
            ChannelProblem: the file has changed since it was planned.
        """
        kind = arrivals.arrival_kind(self.product.spec, self.source, self.product.settings.root)
        for key in (*self.new, *self.others):
            data = _rows(self.source, self.recipe, self.index, key)
            self._put(key, "", data)
            if kind == "marker":
                self._put(key, arrivals.MARKER, b"")
            elif kind == "manifest":
                manifest = {"rows": self.index.parts[key].rows, "sha256": sha256(data)}
                self._put(key, arrivals.MANIFEST, json.dumps(manifest).encode())

    def as_text(self, *, is_written: bool) -> str:
        """Return what was or would be written, and what was left out and why."""
        product, rows = self.product, sum(part.rows for part in self.index.parts.values())
        folder = naming.join(product.settings.root, "landing", product.spec.landing_of(self.source))
        lines = [
            (
                f"{self.recipe.path}: {counted(rows, 'row')} of {counted(len(self.index.parts), 'key')} by "
                f"{self.recipe.by}, for {self.source.name} of {product.name}, in {folder}"
            )
        ]
        keys = {
            "new": self.new,
            "there with these rows, left as they are": self.same,
            "there with other rows, which --overwrite replaces": self.others,
            "not over yet, left out": self.running,
        }
        lines += [f"  {len(names):,} {text}: {span(names)}" for text, names in keys.items() if names]
        if self.index.outside:
            lines.append(f"  {counted(self.index.outside, 'row')} outside of {product.spec.grain.describe()}, left out")
        if is_written:
            lines.append(f"Wrote {counted(len(self.new) + len(self.others), 'file')}.")
        elif not (self.new or self.others):
            lines.append("There is nothing to write.")
        else:
            option = "--overwrite" if self.others else "--write"
            lines.append(f"Nothing was written; add {option} to write.")
        return "\n".join(lines)

    def _put(self, key: str, companion: str, data: bytes) -> None:
        objects.replace(
            objects.open_store(self.product.settings.root), _path(self.product, self.source, key, companion), data
        )


def plan(
    products: Sequence[Product],
    settings: Settings,
    file: Path,
    *,
    source: str | None = None,
    by: str | None = None,
    time_format: str | None = None,
) -> Plan:
    """Return what landing a file does. Reads it twice, and the landed files of its keys.

    Args:
        products: of which one has a source of landed files with the file's columns.
        source: its name; None for the only one.
        by: the column with a row's moment; None for the source's `partition_by` or `known_at`.
        time_format: how CSV writes it; None for ISO 8601.

    Raises:
        ValueError: no source fits, or several do.
        ChannelProblem: the file cannot be split.
    """
    path = str(file.absolute())
    spec, chosen = _chosen(products, path, source)
    if (by := by or chosen.partition_by or chosen.known_at) is None:
        raise ValueError(f"source {chosen.name!r} of {spec.name} has no column of moments; name it with --by.")
    if spec.grain.instant_after(spec.grain.first) is None:
        raise ValueError(f"{spec.name} has batches, which have no moments; land each batch as a file.")
    recipe = parts.Recipe(path=path, by=by, time_format=time_format, multiline=chosen.multiline, grain=spec.grain)
    index = parts.index(recipe)
    if index.problem:
        raise ChannelProblem(index.problem)
    product = ProductStore(spec, settings)
    found: dict[str, list[str]] = {"new": [], "same": [], "others": [], "running": []}
    for key in sorted(index.parts, key=spec.grain.index):
        there = objects.read(objects.open_store(settings.root), _path(product, chosen, key))
        if product.awaited_until(chosen, key) is not None:
            found["running"].append(key)
        elif there is None:
            found["new"].append(key)
        else:
            found["same" if there == _rows(chosen, recipe, index, key) else "others"].append(key)
    return Plan(
        product=product,
        source=chosen,
        recipe=recipe,
        index=index,
        **{name: tuple(keys) for name, keys in found.items()},
    )


def _chosen(products: Sequence[Product], path: str, name: str | None) -> tuple[Product, Source]:
    """Return the only source of landed files that has the file's columns."""
    columns = _columns(path)
    fitting = [
        (spec, source)
        for spec, source in _landed(products, path)
        if (source.name == name if name else _needed(source) <= columns)
    ]
    if len(fitting) == 1:
        return fitting[0]
    named = ", ".join(f"{source.name} of {spec.name}" for spec, source in fitting)
    raise ValueError(
        f"{path} has the columns {', '.join(sorted(columns)[:12])}, and they fit {named or 'no source of landed files'}"
        f" ({', '.join(spec.name for spec in products)}); expected one source. Name the product, and --source."
    )


def _landed(products: Sequence[Product], path: str) -> Iterator[tuple[Product, Source]]:
    for spec in products:
        for source in spec.sources:
            if source.is_landed and not source.is_slow and source.suffix.endswith(".parquet") == parts.is_parquet(path):
                yield spec, source


def _needed(source: Source) -> set[str]:
    return set(source.schema().columns) - {column.name for column in source.partial_columns}


def _columns(path: str) -> set[str]:
    if parts.is_parquet(path):
        import polars as pl

        try:
            return set(pl.read_parquet_schema(path))
        except (pl.exceptions.PolarsError, OSError) as problem:
            raise ChannelProblem(f"{path} cannot be read: {objects.first_line(problem)}.") from None
    with parts.opened(path) as file:
        return set(parts.header(path, file)[1])


def _rows(source: Source, recipe: parts.Recipe, index: parts.Index, key: str) -> bytes:
    """Return a key's rows as a file lands: CSV without a reader has moments in one format.

    Rows that have a moment which that format cannot hold stay as they are, for validation to name.
    """
    import polars as pl

    data = parts.rows_of(recipe, index, index.parts[key])
    if data is None:
        raise ChannelProblem(f"{recipe.path} was changed while it was read; start again.")
    if recipe.is_parquet or source.read is not None:
        return data
    rows = delimited.read_csv(data, multiline=source.multiline)
    formats = {} if recipe.time_format is None else {recipe.by: recipe.time_format}
    typed = moments.as_moments(rows, source.schema(), formats)
    changed = [name for name in rows.columns if typed.schema[name] != pl.String]
    written = typed.with_columns(pl.col(changed).dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    are_whole = all((typed[name].dt.truncate("1s") == typed[name]).all() for name in changed)
    if delimited.BROKEN in rows.columns or not are_whole or written.equals(rows):
        return data
    return written.write_csv().encode()


def _path(product: ProductStore, source: Source, key: str, companion: str = "") -> str:
    folder = product.spec.landing_of(source)
    return naming.landing_location("", folder, key, f"{source.suffix}{companion}").lstrip("/")
