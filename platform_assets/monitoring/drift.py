"""Judge each key: whether its data are sound, and how far its features are from the live model's training data.

Hard checks compare a sketch of every source with the accepted keys before it. A failed check makes the key faulty: it
is held, excluded from reference and training, until it is repaired or accepted. After `repair_within` keys the faulty
source is left out, or, with broken labels, the key. One drift index ranks the newest keys' features among contiguous
windows of the training keys; another ranks the mix of the served answers. A judgement is final until the key's own data
change: late labels are judged when they land, against the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
from platform_assets.store.history.faults import judgement
from platform_assets.store.history.holds import Hold
from platform_assets.store.records import notes
from platform_assets.store.records.judgements import Judgement

STAGE = "drift"
CHECK = "no_faults"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How a key was judged.

    Attributes:
        hold: of a faulty key: its newest fault record.
        before: judgements up to the newest key of the run, in order; only of that one.
        rows: likewise, the drift of each field.
    """

    judged: Judgement
    hold: Hold | None = None
    before: Mapping[str, Judgement] | None = None
    rows: pl.DataFrame | None = None


def build(spec: Product, outside: Outside = ALONE) -> list[dg.AssetsDefinition]:
    """Return the product's drift asset."""
    return Stage(
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
    ).assets()


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
        """Return how each key was judged, with its check, and what surrounds the newest key if it is new."""
        newest, tables = self.keys[-1], self.tables
        judged = {key: judgement(record) for key, record in done.records[STAGE].items()}
        faulty = [key for key, item in judged.items() if item.is_faulty]
        holds = self.product.history.holds(faulty) if faulty else {}
        facts = {key: Seen(judged=item, hold=holds.get(key)) for key, item in judged.items()}
        self._observe({key: facts[key] for key in faulty})
        if newest not in done.memoised:
            recent = tables.records(STAGE, self.spec.grain.with_lookback((newest,), self.spec.monitors.record_keys))
            before = {key: judgement(record) for key, record in recent.items()}
            facts[newest] = replace(facts[newest], before=before, rows=tables.read(STAGE, [newest]))
        return Report(facts=facts, checks={CHECK: {key: _check(key, item) for key, item in judged.items()}})

    def _observe(self, faulty: Mapping[str, Seen]) -> None:
        """Report the fault of each key on its data too, whose own result counts rows and cannot know of it.

        Dagster's page of a key shows the metadata of a later observation in place of the materialization's.
        """
        sources = {source.name for source in self.spec.sources}
        for key, judged_key in faulty.items():
            if primary := judged_key.judged.primary:
                readable = metadata.readable(self.view(facts=judged_key)[0], {"fault": fault_sentences.clause(primary)})
                source = primary.source
                blamed = [(stage, source) for stage in ("raw", "validated")] if source in sources else []
                for stage, name in (*blamed, ("features", None)):
                    self.context.log_event(
                        dg.AssetObservation(
                            dg.AssetKey(naming.asset_key(self.spec.name, stage, name)),
                            partition=key,
                            metadata=readable,
                        )
                    )


def _check(key: str, judged: Judgement) -> KeyCheck:
    """Return a key's check: a failure begins with the source that is at fault."""
    if not judged.primary:
        return KeyCheck(passed=True, description=f"{key} has no fault.")
    clause = fault_sentences.clause(judged.primary)
    return KeyCheck(passed=False, description=f"{clause} ({key}).", metadata=judged.primary.document())
