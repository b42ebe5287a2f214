"""Decide what follows from a key: retrain, wait, or raise an alert; one create-only record per key.

The decision is made from records alone, by `monitoring.policy.decide`, and recorded with every number it used, also
when the answer is "wait". A decision is never made twice: materialising a key again returns the recorded one. Sensors
act on it.
"""

from __future__ import annotations

from collections.abc import Iterator

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


def build(spec: Product, outside: Outside = ALONE) -> list[dg.AssetsDefinition]:
    """Return the product's decision asset."""
    return Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("python",),
        doc=__doc__,
        modules=[deciding.__name__],
        run=_DecisionRun,
        outside=outside,
        deps=[dep(spec, "drift"), dep(spec, "performance")],
    ).assets()


class _DecisionRun(KeyedRun[None]):
    def work(self) -> Iterator[dg.MaterializeResult]:
        """Decide key by key, because a decision depends on earlier ones."""
        self._judged = require(self.tables, "drift", self.keys)
        recorded = self.tables.records(STAGE, self.keys)
        measuring = Measuring.for_product(self.spec, measures_of(self.spec.task))
        self._deciding = deciding.Deciding(self.product, self.keys, self.stage.outside.budget, measuring)
        decisions = {}
        for key in self.keys:
            decisions[key] = self._decision(key)
            if key not in recorded:
                self._record(key, decisions[key])
        newest = decisions[last := self.keys[-1]]
        self.context.log.info(f"{last}: {newest.action}. {' '.join(newest.reasons)}")
        rows = [
            {"key": key, "action": decisions[key].action, "why": " ".join(decisions[key].reasons)}
            for key in reversed(self.keys[-NEWEST_SHOWN:])
        ]
        run: Metadata = {
            "newest_key": last,
            "newest_action": newest.action,
            "decisions": metadata.table(rows),
        }
        for key in self.keys:
            self.add_metadata({**self.page(decisions[key]), **run}, key)
        yield dg.MaterializeResult(asset_key=self.stage.key())

    def _decision(self, key: str) -> Decision:
        """Return the recorded decision on a key, or make and record it."""
        existing = self.product.history.decision(key)
        if existing is not None:
            return existing
        record = self._deciding.decide(key, self._judged[key])
        try:
            self.product.ledgers.of(DECISIONS).create(key, record)
        except RecordExists:
            existing = self.product.history.decision(key)
            assert existing is not None  # records are never removed
            return existing
        return record

    def _record(self, key: str, decided: Decision) -> None:
        """Record the decision as a partition record too, from which Dagster's freshness is read."""
        digest, notes = sha256(canonical(decided.document())), {"action": decided.action}
        self.tables.record(STAGE, key, content_digest=digest, inputs={}, code=self.code, notes=notes)
