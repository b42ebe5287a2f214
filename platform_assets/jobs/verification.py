"""Verify that no key of a product is held: `verify__product` fails while one is.

Dagster's overview shows runs alone, and the run that found a fault succeeded. So the sensor `held_keys` launches this
one per episode of a fault, and a person may launch it to see whether everything is settled.
"""
# Annotations are not postponed here: Dagster compares that of `context` as an object.

from typing import Any

import dagster as dg

from platform_assets.automation import failed_runs
from platform_assets.automation.resources import Resources
from platform_assets.base import naming
from platform_assets.engine.store_resource import StoreResource
from platform_assets.jobs import job_of
from platform_assets.monitoring import fault_sentences, held_faults
from platform_assets.product.spec import Product
from platform_assets.store.product_store import ProductStore

VERB = failed_runs.VERIFY


def build(spec: Product, resources: Resources) -> list[Any]:
    """Return the product's job."""

    @dg.op(name=naming.job("no_key_is_held", spec.name), description=f"Fail while a key of {spec.title} is held.")
    def no_key_is_held(context: dg.OpExecutionContext, driftline_store: StoreResource) -> None:
        faults = held_faults.read(ProductStore(spec, driftline_store.settings))
        sentence = fault_sentences.standing(faults)
        if held := held_faults.held(faults):
            raise dg.Failure(
                f"{sentence}. Repair the delivery (`{naming.job('repair', spec.name)}`), or accept or drop the key "
                f"(`{naming.job('accept', spec.name)}`).",
                metadata={"keys_held": len(held)},
                allow_retries=False,
            )
        context.log.info(sentence)

    return [
        job_of(
            no_key_is_held, spec, resources, VERB, f"Verify that no key of {spec.title} is held; fails while one is."
        )
    ]
