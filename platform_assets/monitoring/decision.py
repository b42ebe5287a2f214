"""Decide what follows from a key: retrain, wait, or raise an alert; one create-only record per key.

The decision is made from records alone, by `monitoring.policy.decide`, and recorded with every number it used, also
when the answer is "wait". A decision is never made twice: materialising a key again returns the recorded one. Sensors
act on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.problems import RecordExists
from platform_assets.base.wording import counted
from platform_assets.data.stage_inputs import require
from platform_assets.engine import metadata
from platform_assets.engine.metadata import Metadata
from platform_assets.engine.outside import ALONE, Outside
from platform_assets.engine.ranges import KeyedRun
from platform_assets.engine.stage import Stage, dep
from platform_assets.monitoring import policy, recent_latency
from platform_assets.monitoring.decision_facts import DecisionFacts
from platform_assets.product.spec import ProductSpec
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.records.decisions import DECISIONS, Decision, Measured

STAGE = "decision"
NEWEST_SHOWN = 14


def build(spec: ProductSpec, outside: Outside = ALONE) -> list[dg.AssetsDefinition]:
    """Return the product's decision asset."""
    return Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("python",),
        doc=__doc__,
        modules=["platform_assets.monitoring.policy"],
        run=_DecisionRun,
        outside=outside,
        deps=[dep(spec, "drift"), dep(spec, "performance")],
    ).assets()


class _DecisionRun(KeyedRun[None]):
    def work(self) -> Iterator[dg.MaterializeResult]:
        """Decide key by key, because a decision depends on earlier ones."""
        self._judged = require(self.tables, "drift", self.keys)
        recorded = self.tables.records(STAGE, self.keys)
        self._facts = DecisionFacts(self.product, self.keys, self.stage.outside.budget)
        decisions = {}
        for key in self.keys:
            decisions[key] = self._decision(key)
            if key not in recorded:
                self._record(key, decisions[key])
        last = self.keys[-1]
        newest = decisions[last]
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
        spec, existing = self.spec, self.product.history.decision(key)
        if existing is not None:
            return existing
        now = self.product.now
        facts, decision = self._decide(key, now)
        record = Decision(
            product=spec.name,
            key=key,
            action=decision.action,
            cutoff=facts.cutoff,
            reasons=decision.reasons,
            numbers=decision.numbers,
            is_free=decision.is_free,
            fault=facts.health.fault,
            request=facts.request if decision.is_free else None,
            at_utc=now.isoformat(),
            measured=Measured(
                spent_usd=round(facts.balance.spent_usd, 6),
                next_usd=round(facts.balance.next_usd, 6),
                latency=recent_latency.recent_latency(self.product, key),
            ),
        )
        try:
            self.product.ledgers.of(DECISIONS).create(key, record)
        except RecordExists:
            existing = self.product.history.decision(key)
            assert existing is not None  # records are never removed
            return existing
        return record

    def _decide(self, key: str, now: datetime) -> tuple[policy.Facts, policy.Decision]:
        """Decide, after recording which labels are given up.

        Labels are given up when they are late by `label_patience` keys, or when a training has waited for any labels
        that long: if some label is always late, no training would ever start otherwise.
        """
        spec, records, judged = self.spec, self._facts, self._judged[key]
        patience = spec.label_patience
        reason = f"its labels were due {counted(patience, 'key')} ago or earlier."
        records.give_up(key, records.overdue(key), reason, now=now)
        facts = records.at(key, judged, now=now)
        decision = policy.decide(facts, spec.retraining, now)
        if decision.numbers.awaits_labels and facts.waited_keys >= patience:
            reason = f"a training has waited for labels for {counted(facts.waited_keys, 'key')}."
            records.give_up(key, facts.unlabelled, reason, now=now)
            facts = records.at(key, judged, now=now)
            decision = policy.decide(facts, spec.retraining, now)
        return facts, decision

    def _record(self, key: str, decided: Decision) -> None:
        """Record the decision as a partition record too, from which Dagster's freshness is read."""
        digest, notes = sha256(canonical(decided.document())), {"action": decided.action}
        self.tables.record(STAGE, key, content_digest=digest, inputs={}, code=self.code, notes=notes)
