"""The facts of a decision on one key, as the stage collects them."""

from platform_assets.engine.outside import Budget
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring.decision_facts import DecisionFacts
from platform_assets.monitoring.performance_maker import Measuring
from platform_assets.store.product_store import ProductStore

FREE = Budget()


def facts(product: ProductStore, key: str, budget: Budget = FREE) -> DecisionFacts:
    measuring = Measuring.for_product(product.spec, measures_of(product.spec.task))
    return DecisionFacts(product, [key], budget, measuring)
