"""The facts of a decision on one key, as the stage collects them."""

from __future__ import annotations

from platform_assets.engine.outside import Budget, Free
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring.decision_facts import DecisionFacts
from platform_assets.monitoring.performance_maker import Measuring
from platform_assets.store.product_store import ProductStore

FREE = Free()


def facts(product: ProductStore, key: str, budget: Budget = FREE) -> DecisionFacts:
    """Return the records that a decision on a key is made from."""
    measuring = Measuring.for_product(product.spec, measures_of(product.spec.task))
    return DecisionFacts(product, [key], budget, measuring)
