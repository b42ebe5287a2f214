"""Launch `verify__product` once per episode of a fault, so that a dead feed is a failed run in Dagster's overview."""

from collections.abc import Sequence

import dagster as dg

from platform_assets.compute import policy
from platform_assets.jobs.verification import VERB
from platform_assets.records.decisions import Decision
from sensors import closed_keys, ticks

MAX_DECISIONS = 400
"""How many recorded decisions one tick reads."""


class State(ticks.State, frozen=True, kw_only=True):
    """The key of the last decision that was read."""

    read: str | None = None


def plan(decisions: Sequence[Decision]) -> dict[str, str]:
    """Return the newest faulty key by episode: keys in a row with the same source and check."""
    episodes: dict[str, str] = {}
    for decision in decisions:
        fault = decision.fault
        if decision.action == policy.ALERT_FAULT and fault is not None:
            parts = (part for part in (fault.episode, fault.source, fault.check) if part)
            episodes[":".join(parts)] = decision.key
    return episodes


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
    # The run key names the episode, so a sensor that lost its cursor launches nothing twice.
    requests = tuple(
        dg.RunRequest(run_key=f"{tick.job(VERB)}:{episode}", job_name=tick.job(VERB)) for episode in plan(decisions)
    )
    reason = f"{len(requests)} faults began" if requests else f"no fault up to {decisions[-1].key}"
    return ticks.Result(state=State(read=decisions[-1].key), reason=reason, requests=requests)
