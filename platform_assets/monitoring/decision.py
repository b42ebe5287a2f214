"""Decide what follows from a key: retrain, wait, or raise an alert; one create-only record per key.

The decision is made from records alone, by `monitoring.policy.decide`, and recorded with every number it used, also
when the answer is "wait". A decision is never made twice: materialising a key again returns the recorded one. Sensors
act on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.problems import RecordExists
from platform_assets.data.stage_inputs import require
from platform_assets.engine import metadata
from platform_assets.engine.metadata import Metadata
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import KeyedRun
from platform_assets.engine.stage import Stage, dep
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring import deciding
from platform_assets.monitoring.performance_maker import Measuring
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.records.decisions import DECISIONS, Decision

STAGE = "decision"
NEWEST_SHOWN = 14


def stages(spec: Product, outside: Outside = ALONE) -> Iterator[Stage[Any]]:
    """Yield the product's decision stage."""
    yield Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("python",),
        doc=__doc__,
        modules=[deciding.__name__],
        run=_DecisionRun,
        outside=outside,
        deps=[dep(spec, "drift"), dep(spec, "performance")],
    )


class _DecisionRun(KeyedRun[None]):
    def work(self) -> Iterator[dg.MaterializeResult]:
        """Decide key by key, because a decision depends on earlier ones."""
        judged, history = require(self.tables, "drift", self.keys), self.product.history
        recorded = self.tables.records(STAGE, self.keys)
        measuring = Measuring.for_product(self.spec, measures_of(self.spec.task))
        maker = deciding.Deciding(self.product, self.keys, self.stage.outside.budget, measuring)
        decisions = dict[str, Decision]()
        for key in self.keys:
            decision = history.decision(key)
            if decision is None:
                decision = maker.decide(key, judged[key])
                try:
                    # Before the partition record: a run that is killed in between finds it and makes no other.
                    self.product.ledgers.of(DECISIONS).create(key, decision)
                except RecordExists:
                    decision = history.decision(key)
                    assert decision is not None  # records are never removed
            decisions[key] = decision
            if key not in recorded:  # Dagster's freshness is read from a partition record
                digest, notes = sha256(canonical(decision.document())), {"action": decision.action}
                self.tables.record(STAGE, key, content_digest=digest, inputs={}, code=self.code, notes=notes)
        newest = decisions[last := self.keys[-1]]
        self.context.log.info(f"{last}: {newest.action}. {' '.join(newest.reasons)}")
        rows = [
            {"key": key, "action": decisions[key].action, "why": " ".join(decisions[key].reasons)}
            for key in reversed(self.keys[-NEWEST_SHOWN:])
        ]
        run: Metadata = {"newest_key": last, "newest_action": newest.action, "decisions": metadata.table(rows)}
        for key in self.keys:
            self.add_metadata({**self.page(decisions[key]), **run}, key)
        yield dg.MaterializeResult(asset_key=self.stage.key())
