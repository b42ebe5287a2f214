"""Set the size of each pool from its profile, and log to queued runs why they wait.

`StepProfile.at_once` states the size, Dagster's own database keeps it, and Dagster's queue picks the next run. A run
holds its slot while it is under way, so any end of the run frees it: no slot is ever freed by hand.
"""

from collections.abc import Collection, Iterable, Mapping

import dagster as dg

from platform_assets.base import naming
from platform_assets.launch.profiles import profile
from platform_assets.sensors import ticks
from platform_assets.sensors.under_way import LAUNCHED


@ticks.Sensor("pools", ticks.Whole(list[str], []), every_s=30)
def watch(tick: ticks.Tick, notified: list[str]) -> ticks.Result[list[str]]:
    """Set the sizes of the products' pools, and log to each waiting run why it waits, once."""
    instance, sizes = tick.context.instance, [profile(spec.training.profile) for spec in tick.specs]
    expected = {naming.pool(size.name): size.at_once for size in sizes}
    limits = instance.event_log_storage.get_pool_limits()
    current = {limit.name: limit.limit for limit in limits if not limit.from_default}
    changes = {pool: size for pool, size in expected.items() if current.get(pool) != size}
    for pool, size in changes.items():
        instance.event_log_storage.set_concurrency_slots(pool, size)
    queued = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    # As Dagster's queue counts: a run that is being cancelled holds its slot until its step has ended.
    under_way = instance.get_runs(dg.RunsFilter(statuses=list(LAUNCHED)))
    waiting = wait_reasons(_pools(queued), _pools(under_way), expected)
    for run in queued:
        if run.run_id in waiting and run.run_id not in notified:
            instance.report_engine_event(f"This run {waiting[run.run_id]}", run)
    lines = [f"pool {pool} now has {size} {'slot' if size == 1 else 'slots'}" for pool, size in changes.items()]
    lines += [f"run {run_id} {reason}" for run_id, reason in waiting.items()]
    return ticks.Result(state=sorted(waiting), reason="\n".join(lines) or "no run waits for a slot in a pool")


def _pools(runs: Iterable[dg.DagsterRun]) -> dict[str, Collection[str]]:
    """Return the pools of each run."""
    concurrency = {run.run_id: run.run_op_concurrency for run in runs}
    return {run_id: (each and each.all_pools) or () for run_id, each in concurrency.items()}


def wait_reasons(
    queued: Mapping[str, Collection[str]], under_way: Mapping[str, Collection[str]], sizes: Mapping[str, int]
) -> dict[str, str]:
    """Return, by run, the reason of each queued run whose pool is full.

    Args:
        queued, under_way: by run, the pools in which it needs, or has, a slot.
    """
    reasons = {}
    for run, pools in queued.items():
        for pool in sorted(sizes.keys() & pools):
            holders = [other for other, taken in under_way.items() if pool in taken]
            if len(holders) >= sizes[pool]:
                reasons[run] = (
                    f"waits for a slot in pool {pool}: {len(holders)} of {sizes[pool]} are taken, by "
                    f"{', '.join(holders)}. It starts when one of them ends, however that run ends."
                )
                break
    return reasons
