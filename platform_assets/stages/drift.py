"""Judge each key: whether its data are sound, and how far its features are from the live model's training data.

Hard checks compare a sketch of every source with the accepted keys before it. A failed check makes the key faulty: it
is held, excluded from reference and training, until it is repaired or accepted. After `repair_within` keys the faulty
source is left out, or, with broken labels, the key. One drift index ranks the newest keys' features among contiguous
windows of the training keys; another ranks the mix of the served answers. A judgement is final until the key's own data
change: late labels are judged when they land, against the same model.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from platform_assets import naming
from platform_assets.digests import reads
from platform_assets.engine.ranges import Advance, KeyedRun, Keys, Plan, Report
from platform_assets.engine.stage import Stage, dep
from platform_assets.history.faults import judgement
from platform_assets.history.holds import Hold
from platform_assets.makers.drift import COLUMNS, TYPES, Judging
from platform_assets.makers.parts import StageOutput
from platform_assets.records import notes
from platform_assets.records.judgements import Judgement
from platform_assets.show import drift as shown_drift
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.tables import PartitionRecord

STAGE = "drift"
CHECK = "no_faults"


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's drift asset."""
    return Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("polars", "deltalake"),
        doc=__doc__,
        maker=Judging.of(spec),
        run=_Run,
        deps=[
            *(dep(spec, "validated", source.name) for source in spec.sources if not source.is_slow),
            dep(spec, "features"),
            dep(spec, "predictions"),
        ],
        metadata=values.column_schema({name: str(dtype) for name, dtype in TYPES.items()}, COLUMNS),
        checks={CHECK: "No key of the run has a fault. Blocks nothing: a faulty key is held."},
    ).assets()


class _Run(KeyedRun[Judging]):
    _holds: Mapping[str, Hold]

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
        """Return each key's numbers, the chart of the newest key if it is new, and one check result for the run."""
        newest, tables = self.keys[-1], self.tables
        judged = {key: judgement(record) for key, record in done.records[STAGE].items()}
        faulty = {key: item for key, item in judged.items() if item.is_faulty}
        self._holds = self.product.history.holds(faulty) if faulty else {}
        notes = {key: shown_drift.metadata(item) for key, item in judged.items()}
        if newest not in done.memoised:
            recent = tables.records(STAGE, self.spec.grain.with_lookback((newest,), self.spec.monitors.record_keys))
            trail = {key: judgement(record) for key, record in recent.items()}
            notes[newest] |= shown_drift.newest(trail, tables.read(STAGE, [newest]))
        self._observe(faulty)
        return Report(notes=notes, checks=[_result(done)])

    def summary(self, table: str, record: PartitionRecord | None) -> str:
        assert record is not None  # a key without validated rows cannot be judged: the step fails before
        return shown_drift.result(judgement(record), self._holds.get(record.key))

    def _observe(self, faulty: Mapping[str, Judgement]) -> None:
        """Report the fault of each key on its data too, whose own result counts rows and cannot know of it.

        Dagster's page of a key shows the metadata of a later observation in place of the materialization's.
        """
        sources = {source.name for source in self.spec.sources}
        for key, judged in faulty.items():
            if judged.primary:
                source = judged.primary.source
                blamed = [(stage, source) for stage in ("raw", "validated")] if source in sources else []
                for stage, name in (*blamed, ("features", None)):
                    self.context.log_event(
                        dg.AssetObservation(
                            dg.AssetKey(naming.asset_key(self.spec.name, stage, name)),
                            partition=key,
                            metadata=values.readable(
                                shown_drift.result(judged, self._holds.get(key)),
                                {"fault": shown_drift.fault(judged.primary)},
                            ),
                        )
                    )


def _result(done: Advance) -> dg.AssetCheckResult:
    """Return one check result for the run: the faulty keys, with the primary fault of each."""
    judged = {key: judgement(record) for key, record in done.records[STAGE].items()}
    faulty = {key: judged_key.primary for key, judged_key in judged.items() if judged_key.primary}
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not faulty,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Keys with a fault: {len(faulty)} of {len(done.keys)}.",
        metadata={"keys_judged": len(done.keys), "keys_faulty": len(faulty), "faulty": shown_drift.faulty(faulty)},
    )
