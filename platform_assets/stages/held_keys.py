"""Check on a product's data assets that no key is held: a dead feed shows as a failed check where the data is.

The judgement of a key (`drift`) comes after its data, so one check run after it reports on the assets before: on the
deliveries and valid rows of each source, and on features. An error while a key is held, that is until it is repaired,
accepted or given up; a warning while a key that was given up is among those that trainings and comparisons look back
on. It blocks nothing: held keys are left out by themselves.
"""

# Annotations are not postponed here: Dagster compares that of `context` as an object.

from collections.abc import Iterator, Mapping

import dagster as dg

from platform_assets import naming
from platform_assets.handle import Product
from platform_assets.history.holds import Hold
from platform_assets.records.faults import Fault
from platform_assets.show import drift as shown_drift
from platform_assets.show import values
from platform_assets.specs.base import ProductSpec
from resources.store import StoreResource

CHECK = "no_key_held"
JUDGED = "drift"
WATCHED = ("raw", "validated")
"""The stages with one asset per source that carry the check; `features` carries it for all sources."""
RECORDS_READ = 20
"""How far back in a key's fault ledger its fault is looked for."""

Faults = Mapping[str, tuple[Fault, Hold]]
"""The newest fault of each key that is held or was given up, with its hold; oldest key first."""


def build(spec: ProductSpec) -> list[dg.AssetChecksDefinition]:
    """Return the one definition of all these checks; a run evaluates those of the assets that it selects."""
    sources = [source.name for source in spec.sources if not source.is_slow]
    blamed = {dg.AssetKey(naming.asset_key(spec.name, stage, name)): name for stage in WATCHED for name in sources}
    features = dg.AssetKey(naming.asset_key(spec.name, "features"))
    judged = dg.AssetKey(naming.asset_key(spec.name, JUDGED))
    specs = [
        dg.AssetCheckSpec(
            CHECK,
            asset=key,
            additional_deps=[judged],
            description="No key waits for a person because of a fault. An error while one does, a warning while one "
            "that was given up is among those looked back on. Blocks nothing: held keys are left out.",
        )
        for key in (*blamed, features)
    ]

    @dg.multi_asset_check(
        name=naming.job(CHECK, spec.name), specs=specs, can_subset=True, required_resource_keys={"store"}
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        store: StoreResource = context.resources.store
        faults = _faults(Product(spec, store.settings))
        for selected in sorted(context.selected_asset_check_keys):
            source = blamed.get(selected.asset_key)
            concerned = {
                key: (fault, hold) for key, (fault, hold) in faults.items() if source is None or fault.source == source
            }
            yield _result(selected.asset_key, concerned)

    return [check]


def _faults(product: Product) -> Faults:
    """Read the faults of the newest judged keys, as many as a key is compared with."""
    grain = product.spec.grain
    newest = max(product.tables.records(JUDGED), key=grain.index, default=None)
    if newest is None:
        return {}
    keys = grain.with_lookback((newest,), product.spec.monitors.record_keys)
    holds = {key: hold for key, hold in product.history.holds(keys).items() if hold.is_excluded or hold.nulled_source}
    faults: dict[str, tuple[Fault, Hold]] = {}
    for key in sorted(holds, key=grain.index):
        records = product.history.newest_faults(key, RECORDS_READ)
        if fault := next((record for _, record in records if isinstance(record, Fault)), None):
            faults[key] = fault, holds[key]
    return faults


def _result(asset: dg.AssetKey, faults: Faults) -> dg.AssetCheckResult:
    held = {key: fault for key, (fault, hold) in faults.items() if hold.is_held}
    settled = {key: fault for key, (fault, hold) in faults.items() if not hold.is_held}
    rows = [
        {"key": key, "state": shown_drift.state(hold), "episode": fault.episode, "fault": shown_drift.fault(fault)}
        for key, (fault, hold) in reversed(list(faults.items()))
    ]
    return dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=asset,
        passed=not faults,
        severity=dg.AssetCheckSeverity.ERROR if held else dg.AssetCheckSeverity.WARN,
        description=_sentence(held, settled),
        metadata={"keys_held": len(held), "keys_given_up": len(settled), "faults": values.table(rows)},
    )


def _sentence(held: Mapping[str, Fault], settled: Mapping[str, Fault]) -> str:
    """Return what is held and why; the newest fault speaks for the others."""
    for faults, state in ((held, "held"), (settled, "given up and left out of training")):
        if faults:
            newest = list(faults)[-1]
            return f"{', '.join(faults)} {state}: {shown_drift.fault(faults[newest])}"
    return "No key is held."
