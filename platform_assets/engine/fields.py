"""Say once what every asset shows: key, group, owners, kinds, tags, version and description.

Belongs here: the arguments that all stages share. Does not belong here: values that the UI draws (`show.values`),
which keys a run works on (`ranges.py`), or anything that one stage alone knows.
"""

from __future__ import annotations

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


def _description(doc: str | None, about: str) -> str:
    return "\n\n".join(part for part in (inspect.cleandoc(doc or ""), inspect.cleandoc(about)) if part)
