"""Give each pool as many places as its profile says, and tell runs that wait for one why they wait.

Belongs here: the places of pools, which `StepProfile.at_once` states and Dagster's own database keeps. Does not belong
here: which run is next (Dagster's queue), or the runs themselves. A place is held by a run that is under way, so a run
that ends in whatever way frees it: nothing is given back by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from platform_assets import naming
from platform_assets.profiles import profile
from sensors import episodes, ticks


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A run and the pools in which it has, or wants, a place."""

    run_id: str
    pools: frozenset[str]


def unequal(kept: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """Return the pools whose places must be set, with how many.

    Args:
        kept: places by pool, as set in Dagster; a pool that has Dagster's default is left out.
        wanted: places by pool, as the profiles say.
    """
    return {pool: places for pool, places in wanted.items() if kept.get(pool) != places}


def waits(queued: Sequence[Pooled], under_way: Sequence[Pooled], places: Mapping[str, int]) -> dict[str, str]:
    """Return by run what it waits for, of the runs in the queue that find a pool full."""
    found = {}
    for run in queued:
        for pool in sorted(run.pools & places.keys()):
            holders = [other.run_id for other in under_way if pool in other.pools]
            if len(holders) >= places[pool]:
                found[run.run_id] = (
                    f"waits for a place in pool {pool}: {len(holders)} of {places[pool]} are taken, by "
                    f"{', '.join(holders)}. It begins by itself when one of them ends, in whatever way."
                )
                break
    return found


@ticks.Sensor(
    "pools",
    ticks.Whole(list[str], []),
    about="Sets how many runs each pool lets in, as platform_assets/profiles.py says; tells who waits.",
    needs=(),
)
def watch(tick: ticks.Tick, told: list[str]) -> ticks.Seen[list[str]]:
    """Set the places of the products' pools, and tell the runs that wait; `told` are those that know."""
    instance, sizes = tick.instance, [profile(spec.training.profile) for spec in tick.specs]
    wanted = {naming.pool(size.name): size.at_once for size in sizes}
    limits = instance.event_log_storage.get_pool_limits()
    changes = unequal({each.name: each.limit for each in limits if not each.from_default}, wanted)
    for pool, places in changes.items():
        instance.event_log_storage.set_concurrency_slots(pool, places)
    queued = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    # What Dagster's queue counts: a run that is being cancelled holds its place until its step has ended.
    under_way = instance.get_runs(dg.RunsFilter(statuses=list(episodes.LAUNCHED)))
    waiting = waits([_pooled(run) for run in queued], [_pooled(run) for run in under_way], wanted)
    for run in queued:
        if run.run_id in waiting and run.run_id not in told:
            instance.report_engine_event(f"This run {waiting[run.run_id]}", run)
    said = [f"pool {pool} has {places} places now" for pool, places in changes.items()]
    said += [f"run {run_id} {why}" for run_id, why in waiting.items()]
    nothing = "no run waits for a place in a pool"
    return ticks.Seen(state=sorted(waiting), reason="\n".join(said) or nothing)


def _pooled(run: dg.DagsterRun) -> Pooled:
    asked = run.run_op_concurrency
    return Pooled(run_id=run.run_id, pools=frozenset(asked.all_pools or () if asked else ()))
