"""Set the size of each pool from its profile, and log to queued runs why they wait.

`StepProfile.at_once` states the size, Dagster's own database keeps it, and Dagster's queue picks the next run. A run
holds its slot while it is under way, so any end of the run frees it: no slot is ever freed by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from platform_assets.automation.sensors import episodes, ticks
from platform_assets.base import naming
from platform_assets.launch.profiles import profile


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A run and the pools in which it has, or needs, a slot."""

    run_id: str
    pools: frozenset[str]


def unequal(current: Mapping[str, int], expected: Mapping[str, int]) -> dict[str, int]:
    """Return the pools whose size must be set, with the size.

    Args:
        current: sizes by pool, as set in Dagster, without pools that have Dagster's default.
        expected: sizes by pool, as the profiles say.
    """
    return {pool: size for pool, size in expected.items() if current.get(pool) != size}


def wait_reasons(queued: Sequence[Pooled], under_way: Sequence[Pooled], sizes: Mapping[str, int]) -> dict[str, str]:
    """Return, by run, the reason of each queued run whose pool is full."""
    reasons = {}
    for run in queued:
        for pool in sorted(run.pools & sizes.keys()):
            holders = [other.run_id for other in under_way if pool in other.pools]
            if len(holders) >= sizes[pool]:
                reasons[run.run_id] = (
                    f"waits for a slot in pool {pool}: {len(holders)} of {sizes[pool]} are taken, by "
                    f"{', '.join(holders)}. It starts when one of them ends, however that run ends."
                )
                break
    return reasons


@ticks.Sensor(
    "pools",
    ticks.Whole(list[str], []),
    about="Sets the size of each pool from platform_assets/launch/profiles.py; logs to queued runs why they wait.",
)
def watch(tick: ticks.Tick, notified: list[str]) -> ticks.Result[list[str]]:
    """Set the sizes of the products' pools, and log to each waiting run why it waits, once."""
    instance, sizes = tick.instance, [profile(spec.training.profile) for spec in tick.specs]
    expected = {naming.pool(size.name): size.at_once for size in sizes}
    limits = instance.event_log_storage.get_pool_limits()
    changes = unequal({limit.name: limit.limit for limit in limits if not limit.from_default}, expected)
    for pool, size in changes.items():
        instance.event_log_storage.set_concurrency_slots(pool, size)
    queued = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    # As Dagster's queue counts: a run that is being cancelled holds its slot until its step has ended.
    under_way = instance.get_runs(dg.RunsFilter(statuses=list(episodes.LAUNCHED)))
    waiting = wait_reasons([_pooled(run) for run in queued], [_pooled(run) for run in under_way], expected)
    for run in queued:
        if run.run_id in waiting and run.run_id not in notified:
            instance.report_engine_event(f"This run {waiting[run.run_id]}", run)
    lines = [f"pool {pool} now has {size} {'slot' if size == 1 else 'slots'}" for pool, size in changes.items()]
    lines += [f"run {run_id} {reason}" for run_id, reason in waiting.items()]
    return ticks.Result(state=sorted(waiting), reason="\n".join(lines) or "no run waits for a slot in a pool")


def _pooled(run: dg.DagsterRun) -> Pooled:
    concurrency = run.run_op_concurrency
    return Pooled(run_id=run.run_id, pools=frozenset(concurrency.all_pools or () if concurrency else ()))
