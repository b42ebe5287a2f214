"""Launch `verify__product` once per episode of a fault, so that a dead feed is a failed run in Dagster's overview.

`retrain` raises the alert of an episode; it ends here, when none of its keys is held any more.
"""

from collections.abc import Mapping, Sequence

import dagster as dg
from msgspec import field

from platform_assets.automation.alerting import episode_id
from platform_assets.automation.jobs.verification import VERB
from platform_assets.automation.sensors import closed_keys, retrain, ticks
from platform_assets.monitoring import policy
from platform_assets.store.records.decisions import Decision
from platform_assets.store.records.faults import Fault

MAX_DECISIONS = 400
"""How many recorded decisions one tick reads."""


class State(ticks.State, frozen=True, kw_only=True):
    """What was read.

    Attributes:
        read: the key of the last decision that was read.
        held: by the id of its alert, the first key of each episode whose keys are held.
    """

    read: str | None = None
    held: dict[str, str] = field(default_factory=dict)


def newest_episode(decisions: Sequence[Decision]) -> str | None:
    """Return the newest episode of a fault among decisions: keys in a row with the same source and check."""
    for decision in reversed(decisions):
        fault = decision.fault
        if decision.action == policy.ALERT_FAULT and fault is not None:
            return ":".join(part for part in (fault.episode, fault.source, fault.check) if part)
    return None


@ticks.Sensor(
    "held_keys",
    ticks.PerProduct(State),
    about="Verifies a product once per episode of a fault: the run fails while a key is held.",
    every_s=5,
    verb=VERB,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Launch a product's verification when a fault has begun."""
    decisions = closed_keys.decisions(tick.history, tick.spec.grain, state.read, MAX_DECISIONS)
    read = decisions[-1].key if decisions else state.read
    begun = {
        retrain.alert_of(decision).alert_id: decision.fault.episode
        for decision in decisions
        if decision.action == policy.ALERT_FAULT and decision.fault is not None
    }
    state = State(read=read, held=_held(tick, read, state.held | begun))
    if not decisions:
        return ticks.Result(state=state, reason="no new decision")
    episode = newest_episode(decisions)
    if episode is None:
        return ticks.Result(state=state, reason=f"no fault up to {read}")
    # One run covers every episode that a tick reads, because it fails while any key is held: ten years of decisions,
    # read by a new sensor, launch few. The run key names the episode, so a sensor without its cursor repeats nothing.
    request = dg.RunRequest(run_key=f"{tick.job(VERB)}:{episode}", job_name=tick.job(VERB))
    return ticks.Result(state=state, reason=f"a fault began: {episode}", requests=(request,))


def _held(tick: ticks.ProductTick, read: str | None, episodes: Mapping[str, str]) -> dict[str, str]:
    """Return the episodes that go on, and end the alerts of the others."""
    if read is None or not episodes:
        return dict(episodes)
    grain = tick.spec.grain
    first = min(episodes.values(), key=grain.index)
    records = [hold.record for hold in tick.history.holds(grain.span(first, read)).values() if hold.is_held]
    # A key that was delivered again and is not judged yet may be of any of them.
    faults = [record for record in records if isinstance(record, Fault)]
    if len(faults) < len(records):
        return dict(episodes)
    parts = [("fault", fault.episode, fault.source, fault.check) for fault in faults]
    held = {episode_id(*part[:count]) for part in parts for count in (2, 4)}  # a decision may know the episode only
    # An alert may not have been raised yet.
    return {alert_id: first for alert_id, first in episodes.items() if alert_id in held or not tick.end_alert(alert_id)}
