"""Fail a run of `verify__PRODUCT` once per episode of a fault, so that a dead feed is red in Dagster's overview.

`retrain` raises the alert of an episode; it ends here, when none of its keys is held any more.
"""

import dagster as dg
import msgspec

from platform_assets.data import closed_keys
from platform_assets.jobs.verification import VERB
from platform_assets.monitoring import decision_alerts, held_faults, policy
from platform_assets.sensors import ticks

MAX_DECISIONS = 400
"""How many recorded decisions one tick reads."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What was read.

    Attributes:
        read: the key of the last decision that was read.
        held: by the id of its alert, the first key of each episode whose keys are held.
    """

    read: str | None = None
    held: dict[str, str] = msgspec.field(default_factory=dict)


@ticks.Sensor("held_keys", ticks.PerProduct(State), every_s=10, jobs=VERB)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Launch a product's verification when a fault has begun."""
    decisions = closed_keys.decisions(tick.history, tick.spec.grain, state.read, MAX_DECISIONS)
    read = decisions[-1].key if decisions else state.read
    faults = [item for item in decisions if item.action == policy.ALERT_FAULT and item.fault is not None]
    held = state.held | {decision_alerts.of_fault(item).id: item.fault.episode for item in faults if item.fault}
    going_on = held_faults.going_on(tick.history, tick.spec.grain, held, read) if held and read else held.keys()
    # An alert may not have been raised yet.
    held = {name: first for name, first in held.items() if name in going_on or not tick.end_alert(name)}
    state = State(read=read, held=held)
    if not decisions:
        return ticks.Result(state=state, reason="no new decision")
    if not faults or (newest := faults[-1].fault) is None:
        return ticks.Result(state=state, reason=f"no fault up to {read}")
    # One run covers every episode that a tick reads, because it fails while any key is held: ten years of decisions,
    # read by a new sensor, launch few. The run key names the episode, so a sensor without its cursor repeats nothing.
    episode = ":".join(part for part in (newest.episode, newest.source, newest.check) if part)
    request = dg.RunRequest(run_key=f"{tick.job(VERB)}:{episode}", job_name=tick.job(VERB))
    return ticks.Result(state=state, reason=f"a fault began: {episode}", requests=(request,))
