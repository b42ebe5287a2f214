"""Make the decision on a key, with every number that it was based on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from platform_assets.base.wording import counted
from platform_assets.monitoring import policy, recent_latency
from platform_assets.monitoring.decision_facts import DecisionFacts
from platform_assets.store.history.reader import Decisions, Faults, Releases, Requests
from platform_assets.store.records.decisions import Decision, Measured

if TYPE_CHECKING:
    from platform_assets.engine.outside import Budget
    from platform_assets.monitoring.performance_maker import Measuring
    from platform_assets.store.product_store import ProductStore
    from platform_assets.store.tables import PartitionRecord


class Deciding:
    """Decides on the keys of one run, in order."""

    CARRIERS: ClassVar[tuple[object, ...]] = (Decisions, Faults, Releases, Requests)

    def __init__(self, product: ProductStore, keys: Sequence[str], budget: Budget, measuring: Measuring) -> None:
        """Read the records that the decisions share; see `DecisionFacts`."""
        self._product, self._facts = product, DecisionFacts(product, keys, budget, measuring)

    def decide(self, key: str, judged: PartitionRecord) -> Decision:
        """Return the decision on a key, after recording which labels are given up.

        Labels are given up when they are late by `label_patience` keys, or when a training has waited for any labels
        that long.

        Args:
            judged: the key's record of stage `drift`.
        """
        product, records, now = self._product, self._facts, self._product.now
        patience = product.spec.label_patience
        reason = f"its labels were due {counted(patience, 'key')} ago or earlier."
        # Without it one file of labels that never comes would end retraining for ever.
        records.give_up(key, records.overdue(key), reason, now=now)
        facts = records.at(key, judged, now=now)
        decision = policy.decide(facts, product.spec.retraining, now)
        # Without this no training would ever start where some label is always late.
        if decision.numbers.awaits_labels and facts.waited_keys >= patience:
            reason = f"a training has waited for labels for {counted(facts.waited_keys, 'key')}."
            records.give_up(key, facts.unlabelled, reason, now=now)
            facts = records.at(key, judged, now=now)
            decision = policy.decide(facts, product.spec.retraining, now)
        return Decision(
            product=product.name,
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
                latency=recent_latency.recent_latency(product, key),
            ),
        )
