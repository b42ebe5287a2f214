"""Check on a product's data assets that no key is held: a dead feed shows as a failed check where the data is.

The judgement of a key (`drift`) comes after its data, so one check run after it reports on the assets before: on the
deliveries and valid rows of each source, and on features. An error while a key is held, that is until it is repaired,
accepted or given up; a warning while a key that was given up is among those that trainings and comparisons look back
on. It blocks nothing: held keys are left out by themselves.
"""

# Annotations are not postponed here: Dagster compares that of `context` as an object.

from collections.abc import Iterator

import dagster as dg

from platform_assets.automation.resources import Resources
from platform_assets.base import naming
from platform_assets.engine import metadata
from platform_assets.engine.store_resource import StoreResource
from platform_assets.monitoring import held_faults
from platform_assets.monitoring.fault_sentences import clause, standing, state
from platform_assets.product.spec import Product
from platform_assets.store.product_store import ProductStore

CHECK = "no_key_held"
WATCHED = ("raw", "validated")
"""The stages with one asset per source that carry the check; `features` carries it for all sources."""


def build(spec: Product, resources: Resources) -> list[dg.AssetChecksDefinition]:
    """Return the one definition of all these checks; a run evaluates those of the assets that it selects."""
    sources = [source.name for source in spec.sources if not source.is_slow]
    source_of_asset = {
        dg.AssetKey(naming.asset_key(spec.name, stage, name)): name for stage in WATCHED for name in sources
    }
    features = dg.AssetKey(naming.asset_key(spec.name, "features"))
    judged = dg.AssetKey(naming.asset_key(spec.name, held_faults.JUDGED))
    specs = [
        dg.AssetCheckSpec(
            CHECK,
            asset=key,
            additional_deps=[judged],
            description="No key waits for a person because of a fault. Fails as an error while one does, and as a "
            "warning while one that was given up is among the newest keys. Blocks nothing: held keys are left out.",
        )
        for key in (*source_of_asset, features)
    ]

    @dg.multi_asset_check(
        name=naming.job(CHECK, spec.name),
        specs=specs,
        can_subset=True,
        resource_defs={naming.STORE: resources.bound[naming.STORE]},
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        store: StoreResource = getattr(context.resources, naming.STORE)
        faults = held_faults.read(ProductStore(spec, store.settings))
        for selected in sorted(context.selected_asset_check_keys):
            source = source_of_asset.get(selected.asset_key)
            of_source = {
                key: (fault, hold) for key, (fault, hold) in faults.items() if source is None or fault.source == source
            }
            held = held_faults.held(of_source)
            rows = [
                {"key": key, "state": state(hold), "episode": fault.episode, "fault": clause(fault)}
                for key, (fault, hold) in reversed(of_source.items())
            ]
            yield dg.AssetCheckResult(
                check_name=CHECK,
                asset_key=selected.asset_key,
                passed=not of_source,
                severity=dg.AssetCheckSeverity.ERROR if held else dg.AssetCheckSeverity.WARN,
                description=standing(of_source),
                metadata={
                    "keys_held": len(held),
                    "keys_given_up": len(of_source) - len(held),
                    "faults": metadata.table(rows),
                },
            )

    return [check]
