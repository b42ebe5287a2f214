"""Keep the asset `cost` current: launch `cost__product` when attempts were recorded that no run has told of.

Belongs here: noticing. Does not belong here: what anything costs (stage `cost`). A retrain that goes well tells of its
attempts itself; what it cannot tell of are attempts of runs that failed or were cancelled, and backtests.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.history import money
from platform_assets.specs.base import ProductSpec
from resources.store import StoreResource
from sensors import episodes, ticks

VERB = "cost"
LEDGERS = (naming.ATTEMPTS, naming.BACKTEST_ATTEMPTS)
SPENDING_VERBS = ("retrain", "backtest", VERB)


def plan(newest: Mapping[str, int], told: Mapping[str, int], *, busy: str | None) -> tuple[bool, str]:
    """Say whether a run is wanted, and why or why not.

    Args:
        newest: number of the newest record by ledger.
        told: number of the newest that the asset tells of.
        busy: the id of a run under way that spends or tells.
    """
    untold = sum(newest[name] - told[name] for name in newest)
    if untold <= 0:
        return False, "every attempt is told of"
    if busy is not None:
        return False, f"waits for the end of run {busy}"
    return True, f"{untold} records of attempts are told of by no run"


def build(specs: Iterable[ProductSpec], jobs: Sequence[Any]) -> dg.SensorDefinition:
    """Return the sensor.

    Args:
        specs: the products.
        jobs: `cost__product` of each.
    """
    products = tuple(specs)

    @dg.sensor(
        name="costs",
        jobs=list(jobs),
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes the asset cost anew after failed runs and backtests; a retrain that goes well does itself.",
    )
    def watch(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
        def look(spec: ProductSpec, state: ticks.State) -> ticks.Seen:
            return _look(spec, state, context.instance, store)

        return ticks.evaluate(context, products, look)

    return watch


def _look(spec: ProductSpec, state: ticks.State, instance: dg.DagsterInstance, store: StoreResource) -> ticks.Seen:
    history = store.history(spec.name)
    newest = {name: history.newest_attempt_number(name) for name in LEDGERS}
    if newest == state.get("settled"):
        return ticks.Seen(state=state, reason="every attempt is told of")
    busy = episodes.under_way(instance, [naming.job(verb, spec.name) for verb in SPENDING_VERBS])
    kept = history.kept()
    told = {name: money.told(kept, name) for name in LEDGERS}
    is_wanted, reason = plan(newest, told, busy=None if busy is None else busy.run_id)
    if busy is not None:
        return ticks.Seen(state=state, reason=reason)
    if not is_wanted:
        return ticks.Seen(state={"settled": newest}, reason=reason)
    run = dg.RunRequest(
        run_key="-".join([VERB, spec.name, *(str(newest[name]) for name in LEDGERS)]),
        job_name=naming.job(VERB, spec.name),
    )
    return ticks.Seen(state={"settled": newest}, reason=reason, requests=(run,))
