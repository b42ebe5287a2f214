"""Decide what follows from a key: train again, wait, or call a person; one create-only record a key.

The decision is made from records alone, by `compute.policy.decide`, with every number that was looked at, also when
the answer is "wait". A decision is never made twice: materialising a key again returns the recorded one. Sensors carry
it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from platform_assets import naming
from platform_assets.compute import policy
from platform_assets.engine.ranges import KeyedRun
from platform_assets.engine.stage import Stage, dep
from platform_assets.facts import latency
from platform_assets.facts.decision_facts import DecisionFacts
from platform_assets.makers.reading import require
from platform_assets.problems import RecordExists
from platform_assets.records.decisions import DECISIONS, Decision, Measured
from platform_assets.show import decision as shown_decision
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import canonical, sha256

STAGE = "decision"
NEWEST_SHOWN = 14


def build(spec: ProductSpec) -> list[dg.AssetsDefinition]:
    """Return the product's decisions."""
    return Stage(
        spec=spec,
        name=STAGE,
        system=naming.MONITORING,
        kinds=("python",),
        doc=__doc__,
        modules=["platform_assets.compute.policy"],
        run=_Run,
        deps=[dep(spec, "drift"), dep(spec, "performance")],
    ).assets()


class _Run(KeyedRun[None]):
    def work(self) -> Iterator[dg.MaterializeResult]:
        """Decide key by key, for a decision rests on those before it."""
        self._judged = require(self.tables, "drift", self.keys)
        known = self.tables.records(STAGE, self.keys)
        self._stands = DecisionFacts(self.product, self.keys)
        made = {}
        for key in self.keys:
            made[key] = self._decided(key)
            if key not in known:
                self._record(key, made[key])
        last = self.keys[-1]
        newest = made[last]
        self.context.log.info(f"{last}: {newest.action}. {' '.join(newest.reasons)}")
        rows = [
            {"key": key, "action": made[key].action, "why": " ".join(made[key].reasons)}
            for key in reversed(self.keys[-NEWEST_SHOWN:])
        ]
        run: values.Metadata = {
            "newest_key": last,
            "newest_action": newest.action,
            "decisions": values.table(rows),
        }
        for key in self.keys:
            self.add_metadata({**shown_decision.metadata(made[key]), **run}, key)
        yield dg.MaterializeResult(asset_key=self.stage.key())

    def _decided(self, key: str) -> Decision:
        """Return the recorded decision of a key, or make and record it."""
        spec, found = self.spec, self.product.history.decision(key)
        if found is not None:
            return found
        now = self.product.now
        facts, made = self._made(key, now)
        record = Decision(
            product=spec.name,
            key=key,
            action=made.action,
            cutoff=facts.cutoff,
            reasons=made.reasons,
            numbers=made.numbers,
            is_free=made.is_free,
            fault=facts.health.fault,
            request=facts.request if made.is_free else None,
            at_utc=now.isoformat(),
            measured=Measured(
                spent_usd=round(facts.spent_usd, 6),
                next_usd=round(facts.following.usd, 6),
                latency=latency.recent_latency(self.product, key),
            ),
        )
        try:
            self.product.ledgers.of(DECISIONS).create(key, record)
        except RecordExists:
            found = self.product.history.decision(key)
            assert found is not None  # records are never removed
            return found
        return record

    def _made(self, key: str, now: datetime) -> tuple[policy.Facts, policy.Decision]:
        """Decide, after recording which labels are no longer waited for.

        Those are labels that are late by `label_patience` keys, and all that a training has waited for as long: where
        some label is always late, no training would begin otherwise.
        """
        spec, stands, judged = self.spec, self._stands, self._judged[key]
        patience = spec.label_patience
        stands.give_up(key, stands.overdue(key), f"its labels were due {patience} keys ago or earlier.", now=now)
        facts = stands.at(key, judged, now=now)
        made = policy.decide(facts, spec.retraining, now)
        if made.numbers.awaits_labels and facts.waited_keys >= patience:
            why = f"a training has waited for labels for {facts.waited_keys} keys."
            stands.give_up(key, facts.unlabelled, why, now=now)
            facts = stands.at(key, judged, now=now)
            made = policy.decide(facts, spec.retraining, now)
        return facts, made

    def _record(self, key: str, decided: Decision) -> None:
        """Note the decision among the partition records: what is fresh is read from them."""
        digest, notes = sha256(canonical(decided.document())), {"action": decided.action}
        self.tables.record(STAGE, key, content_digest=digest, inputs={}, code=self.code, notes=notes)
