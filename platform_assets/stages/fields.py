"""Say once what every asset shows: key, group, owners, kinds, tags, version, description, and metadata builders.

Belongs here: the arguments that all stages share, and values that the UI draws (tables, schemas, plots).
Does not belong here: which keys a run works on (`ranges.py`), or anything that one stage alone knows.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from platform_assets import digests, naming, partitions
from platform_assets.specs.base import ProductSpec, Source


def asset_args(
    spec: ProductSpec,
    stage: str,
    *,
    source: str | None = None,
    system: str,
    kinds: Iterable[str],
    doc: str | None,
    code: str,
    deps: Sequence[dg.AssetDep] = (),
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what `dg.asset` and `dg.AssetSpec` both take: everything but partitions.

    Args:
        spec: the product.
        stage: the bare stage, `raw`.
        source: of which source, for stages with one asset a source.
        system: `naming.DATA`, `TRAINING`, `SERVING` or `MONITORING`.
        kinds: at most three technologies.
        doc: the stage module's docstring: its catalog page, to which the source's description is added.
        code: the stage's code digest, from `digests.of`.
        deps: from `dep`.
        metadata: what is known before anything runs, such as `column_schema`.
    """
    kinds = set(kinds)
    if len(kinds) > 3:
        raise ValueError(f"stage {stage!r} has kinds {sorted(kinds)}; expected at most three technologies.")
    return {
        "key": naming.asset_key(spec.name, stage, source),
        "group_name": naming.group(spec.name, system),
        "owners": [spec.owner],
        "kinds": kinds,
        "tags": {naming.TAG_STAGE: stage, naming.TAG_PRODUCT: spec.name},
        "code_version": digests.short(code),
        "description": _description(doc, spec.source(source).description if source else spec.description),
        "deps": list(deps),
        "metadata": dict(metadata or {}),
    }


def keyed(spec: ProductSpec, source: Source | None = None) -> dict[str, Any]:
    """Return the partitions of a data stage: the product's keys, a range of them in one run; none for a slow source.

    A slow source has the policy of a range too: Dagster launches a range only when everything selected has it.
    """
    is_slow = source is not None and source.is_slow
    return {
        "partitions_def": None if is_slow else partitions.definition(spec.grain),
        "backfill_policy": partitions.single_run(),
    }


def by_cutoff(spec: ProductSpec) -> dict[str, Any]:
    """Return the partitions of a model stage: the same keys, read as cutoffs, one a run."""
    return {"partitions_def": partitions.definition(spec.grain), "backfill_policy": partitions.one_run_each()}


def dep(
    spec: ProductSpec, stage: str, source: str | None = None, *, mapping: dg.PartitionMapping | None = None
) -> dg.AssetDep:
    """Return a dependency on another stage of the product, by the same key unless `mapping` says otherwise."""
    return dg.AssetDep(dg.AssetKey(naming.asset_key(spec.name, stage, source)), partition_mapping=mapping)


def row_count(rows: int) -> dict[str, Any]:
    """Return the metadata by which Dagster shows and plots a row count."""
    return {"dagster/row_count": rows}


def column_schema(columns: Mapping[str, Any], descriptions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the metadata that fills Dagster's column tab.

    Args:
        columns: dtype by name, such as a polars `Schema`.
        descriptions: what a column means, where known.
    """
    descriptions = descriptions or {}
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name=name, type=str(dtype), description=descriptions.get(name))
                for name, dtype in columns.items()
            ]
        )
    }


def table(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> dg.MarkdownMetadataValue:
    """Return rows as a Markdown table; floats to four significant digits, missing cells empty.

    Args:
        rows: one mapping a row.
        columns: which, in order; the first row's by default.
    """
    columns = list(columns or (rows[0] if rows else ()))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines) if columns else "*(no rows)*")


def image(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """Return a plot from `compute.plots` as an image inside the metadata; `title` stands where none is shown."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _description(doc: str | None, about: str) -> str:
    return "\n\n".join(part for part in (inspect.cleandoc(doc or ""), inspect.cleandoc(about)) if part)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
