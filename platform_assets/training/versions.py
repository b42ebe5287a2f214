"""Find the keys whose rows an earlier version of the product made, and what making them again takes.

A training takes rows of one version along the whole chain of its keys: as landed, validated, features and outcomes. The
version is the product's own code and values and a number per maker (`digests.version`), so rewording the platform makes
nothing older. A person may state that two versions of a stage go together (`store.records.versions`).
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from platform_assets.base import naming
from platform_assets.base.wording import counted, span
from platform_assets.data.features_maker import Building
from platform_assets.data.outcomes_maker import Labelling
from platform_assets.data.raw_maker import Landing
from platform_assets.data.validated_maker import Validation
from platform_assets.engine import digests
from platform_assets.engine.outputs import RowMaker
from platform_assets.store.records.notes import Notes

if TYPE_CHECKING:
    from platform_assets.product.spec import Product, Source
    from platform_assets.store.partition_records import PartitionRecord
    from platform_assets.store.product_store import ProductStore

FEATURES, OUTCOMES = "features", "outcomes"
_MOST_NAMED = 4

Accepted = Mapping[str, Collection[str]]
"""The versions of each stage that train together with the present one, itself included."""


@dataclass(frozen=True, kw_only=True)
class Older:
    """The keys whose rows an earlier version made.

    Attributes:
        keys: in order.
        among: how many keys were looked at.
        stages: whose version differs, in the order of the chain, each with the number of keys.
        since_utc: when the first rows of the present version were made; None while there are none, or it is unknown.
        cpu_s: what making the keys again takes, from their own records.
    """

    keys: tuple[str, ...]
    among: int
    stages: Mapping[str, int]
    since_utc: datetime | None
    cpu_s: float

    def describe(self) -> str:
        """Return how many keys are older, in which stages, and since when, as a clause."""
        named = [f"{stage} of {counted(count, 'key')}" for stage, count in self.stages.items()]
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        since = "" if self.since_utc is None else f", of which there are rows since {self.since_utc:%Y-%m-%d %H:%M} UTC"
        verb = "was" if len(self.keys) == 1 else "were"
        return (
            f"{len(self.keys)} of {counted(self.among, 'key')} ({span((self.keys[0], self.keys[-1]))}) {verb} made by "
            f"an earlier version than the product's present one{since}: {', '.join(named[:_MOST_NAMED])}{more}"
        )

    def work(self) -> str:
        """Return what making them again takes, as a clause."""
        return f"making them again takes about {self.cpu_s:,.0f} CPU seconds by their own records"


def current(spec: Product) -> dict[str, str]:
    """Return the present version of each stage that a training's rows come from."""
    makers: dict[str, RowMaker] = {
        naming.stage(stage, source.name): maker.for_source(spec, source)
        for source in spec.sources
        for stage, maker in (("raw", Landing), ("validated", Validation))
    }
    makers |= {FEATURES: Building.for_product(spec), OUTCOMES: Labelling.for_product(spec)}
    return {stage: digests.version(maker) for stage, maker in makers.items()}


def accepted(product: ProductStore) -> dict[str, frozenset[str]]:
    """Return the versions that train together with the present ones: a person's marks connect them, in any order."""
    marks, connected = product.history.compatible_versions(), dict[str, frozenset[str]]()
    for stage, version in current(product.spec).items():
        reached, pairs = {version}, list(marks.get(stage, ()))
        while more := {name for pair in pairs if reached & {*pair} for name in pair} - reached:
            reached |= more
        connected[stage] = frozenset(reached)
    return connected


def names_of(product: ProductStore, keys: Sequence[str]) -> dict[str, list[str]]:
    """Return the versions on the records of keys that no training accepts, by stage."""
    spec, tables, versions = product.spec, product.tables, accepted(product)
    names: dict[str, set[str]] = {}
    for stage in (FEATURES, OUTCOMES):
        for record in tables.records(stage, keys).values():
            for name in older_stages(spec, stage, record, versions):
                names.setdefault(name, set()).update({*record.versions.get(name, ())} - {*versions[name]})
    return {stage: sorted(versions_of_stage) for stage, versions_of_stage in sorted(names.items())}


def of_next_training(product: ProductStore) -> Older | None:
    """Return the older keys of the window that ends with the newest closed key; None without any."""
    spec = product.spec
    grain = spec.grain
    closed = max((grain.index(key) for key in product.tables.records("decision") if grain.contains(key)), default=None)
    if closed is None:
        return None
    first = 0 if spec.window is None else max(0, closed + 1 - spec.window)
    keys = tuple(grain.key_at(place) for place in range(first, closed + 1))
    excluded = product.history.excluded(keys)
    return older(product, [key for key in keys if key not in excluded])


def renewing(product: ProductStore, behind: Older) -> int | None:
    """Return the number of the renewal that makes these keys again; None when nobody asked for it."""
    newest, index = product.history.renewal(), product.spec.grain.index
    if newest is None or newest[1].versions != current(product.spec):
        return None
    number, renewal = newest
    is_inside = index(renewal.first) <= index(behind.keys[0]) and index(behind.keys[-1]) <= index(renewal.last)
    return number if is_inside else None


def reach(spec: Product, behind: Older) -> int:
    """Return how many keys before an older key a run must make again too: those that its features look back on.

    None where only features or outcomes themselves have another version.
    """
    return spec.lookback if {*behind.stages} - {FEATURES, OUTCOMES} else 0


def rebuild_command(product: str, *, keys: str = "older", reason: str) -> str:
    """Return the command with which a person makes older keys again, or states that their versions go together."""
    document = {"ops": {naming.job("rebuild_keys", product): {"config": {"keys": keys, "why": reason}}}}
    return shlex.join(["dg", "launch", "--job", naming.job("rebuild", product), "--config-json", json.dumps(document)])


def advice(product: str) -> str:
    """Return what a person does about older keys, with commands."""
    again = rebuild_command(product, reason="the product changed")
    compatible = rebuild_command(product, keys="compatible", reason="the rows are equal in meaning")
    return f"To make them again: {again}. If rows of both versions may train together: {compatible}."


def older_stages(spec: Product, stage: str, record: PartitionRecord, versions: Accepted) -> list[str]:
    """Return the stages along a record's chain with another version than the accepted ones, in their order."""
    # A record that is older than versions has none, and counts as older.
    return [name for name in chain(spec, stage) if not {*record.versions.get(name, ("",))} <= {*versions[name]}]


def older(product: ProductStore, keys: Sequence[str]) -> Older | None:
    """Return which of the keys a training could not take; None without any.

    A key without outcomes, whose labels are awaited or given up, is judged by its features. Costs the newest records of
    each stage: one table each, cached.
    """
    spec, tables, versions = product.spec, product.tables, accepted(product)
    stages_of: dict[str, set[str]] = {}
    for stage in (FEATURES, OUTCOMES):
        for key, record in tables.records(stage, keys).items():
            if names := older_stages(spec, stage, record, versions):
                stages_of.setdefault(key, set()).update(names)
    if not stages_of:
        return None
    behind = tuple(key for key in keys if key in stages_of)
    of_sources = (
        naming.stage(name, source.name)
        for source in spec.sources
        if not source.is_slow
        for name in ("raw", "validated")
    )
    made_again = (*of_sources, FEATURES, OUTCOMES, "predictions", "drift", "performance")
    cpu_s = sum(Notes.of(record).cpu_s for stage in made_again for record in tables.records(stage, behind).values())
    counts = Counter(name for names in stages_of.values() for name in names)
    present = [
        record.sequence
        for record in tables.records(FEATURES).values()
        if not older_stages(spec, FEATURES, record, versions)
    ]
    return Older(
        keys=behind,
        among=len(keys),
        stages={name: counts[name] for name in versions if name in counts},
        since_utc=tables.written_at(FEATURES, min(present)) if present else None,
        cpu_s=cpu_s,
    )


def chain(spec: Product, stage: str) -> tuple[str, ...]:
    """Return the stages whose versions the rows of `features` or `outcomes` have, that stage last."""
    sources: tuple[Source, ...] = spec.feature_sources if stage == FEATURES else (spec.label_source,)
    names = [naming.stage(name, source.name) for source in sources for name in ("raw", "validated")]
    return (*names, stage)
