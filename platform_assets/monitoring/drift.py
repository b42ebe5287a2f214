"""Judge each key: whether its data are sound, and how far its features are from the live model's training data.

Hard checks compare a sketch of every source with the accepted keys before it. A failed check makes the key faulty: it
is held, excluded from reference and training, until it is repaired or accepted. After `repair_within` keys the faulty
source is left out, or, with broken labels, the key. One drift index ranks the newest keys' features among contiguous
windows of the training keys; another ranks the mix of the served answers. A judgement is final until the key's own data
change: late labels are judged when they land, against the same model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import polars as pl

from platform_assets.base import naming
from platform_assets.engine import metadata
from platform_assets.engine.digests import reads
from platform_assets.engine.key_checks import KeyCheck
from platform_assets.engine.outputs import StageOutput
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import Advance, KeyedRun, Keys, Plan, Report
from platform_assets.engine.stage import Stage, dep
from platform_assets.monitoring import fault_sentences
from platform_assets.monitoring.drift_maker import COLUMNS, TYPES, Judging
from platform_assets.product.spec import Product
from platform_assets.store.records import notes
from platform_assets.store.records.faults import Hold, Judgement
from platform_assets.store.records.notes import judgement

STAGE = "drift"
CHECK = "no_faults"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How a key was judged.

    Attributes:
        hold: of a faulty key: its newest fault record.
        rows: of the newest key of the run, the drift of each field.
    """

    judged: Judgement
    hold: Hold | None = None
    rows: pl.DataFrame | None = None


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's drift stage."""
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        maker=Judging.for_product(spec),
        run=_DriftRun,
        outside=outside,
        deps=[
            *(dep(spec, "validated", source.name) for source in spec.sources if not source.is_slow),
            dep(spec, "features"),
            dep(spec, "predictions"),
        ],
        metadata=metadata.column_schema({name: str(dtype) for name, dtype in TYPES.items()}, COLUMNS),
        checks={CHECK: "The key has no fault. Blocks nothing: a faulty key is held."},
    )


class _DriftRun(KeyedRun[Judging]):
    def plan(self, chunk: Keys) -> Plan:
        judge = self.maker.judge(self.product, chunk)
        with reads.guarded(self.spec.module, self.maker):
            judge.heal()
            inputs = {key: judge.inputs(key) for key in chunk}

        def make(stale: Keys) -> dict[str, StageOutput]:
            with reads.guarded(self.spec.module, self.maker):
                return {STAGE: self.maker.make(judge, stale)}

        return Plan(
            inputs=inputs,
            make=make,
            is_whole=lambda record: self.product.artifacts.is_whole(notes.Drift.of(record).sketch, compressed=True),
        )

    def describe(self, done: Advance) -> Report:
        """Return how each key was judged, with its check, and the fields of the newest key if it is new."""
        newest = self.keys[-1]
        judged = {key: judgement(record) for key, record in done.records[STAGE].items()}
        faulty = [key for key, item in judged.items() if item.is_faulty]
        holds = self.product.history.holds(faulty) if faulty else {}
        facts = {key: Seen(judged=item, hold=holds.get(key)) for key, item in judged.items()}
        sources = {source.name for source in self.spec.sources}
        checks = {key: KeyCheck(passed=True, description=f"{key} has no fault.") for key in judged}
        for key in faulty:
            # Dagster's page of a key shows a later observation's metadata in place of the materialization's, whose rows
            # cannot know of the fault.
            if primary := judged[key].primary:
                clause = fault_sentences.clause(primary)
                checks[key] = KeyCheck(passed=False, description=f"{clause} ({key}).", metadata=primary.document())
                readable = metadata.readable(self.view(facts=facts[key])[0], {"fault": clause})
                blamed = [("raw", primary.source), ("validated", primary.source)] if primary.source in sources else []
                for stage, name in (*blamed, ("features", None)):
                    asset = dg.AssetKey(naming.asset_key(self.spec.name, stage, name))
                    self.context.log_event(dg.AssetObservation(asset, partition=key, metadata=readable))
        if newest not in done.memoised:
            facts[newest] = replace(facts[newest], rows=self.tables.read(STAGE, [newest]))
        return Report(facts=facts, checks={CHECK: checks})
