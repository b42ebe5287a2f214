"""Launch `verify__product` once per episode of a fault, so that a dead feed is a failed run in Dagster's overview."""

from collections.abc import Sequence

import dagster as dg

from platform_assets.automation.jobs.verification import VERB
from platform_assets.automation.sensors import closed_keys, ticks
from platform_assets.monitoring import policy
from platform_assets.store.records.decisions import Decision

MAX_DECISIONS = 400
"""How many recorded decisions one tick reads."""


class State(ticks.State, frozen=True, kw_only=True):
    """The key of the last decision that was read."""

    read: str | None = None


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
    if not decisions:
        return ticks.Result(state=state, reason="no new decision")
    read = decisions[-1].key
    episode = newest_episode(decisions)
    if episode is None:
        return ticks.Result(state=State(read=read), reason=f"no fault up to {read}")
    # One run covers every episode that a tick reads, because it fails while any key is held: ten years of decisions,
    # read by a new sensor, launch few. The run key names the episode, so a sensor without its cursor repeats nothing.
    request = dg.RunRequest(run_key=f"{tick.job(VERB)}:{episode}", job_name=tick.job(VERB))
    return ticks.Result(state=State(read=read), reason=f"a fault began: {episode}", requests=(request,))
