"""Deliver the alerts that other sensors recorded: each product's queue in order, again when the receiver was down.

Belongs here: the pace. Does not belong here: what deserves an alert, or how one is sent (`resources.alerts`). Sending
has a sensor of its own so that a slow receiver holds up nothing else.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from resources.alerts import Delivery
from sensors import ticks

MOST_A_TICK = 20
PAUSES = (0, 1, 2, 4, 8, 16, 32, 60)
"""For how many ticks an unreachable receiver is left alone after the first, second ... failure; the last holds on."""


class State(ticks.State, frozen=True, kw_only=True):
    """Where a product's queue stands.

    Attributes:
        done: the place up to which it is worked off.
        failures: how often in a row the receiver was unreachable.
        pause: for how many ticks it is left alone.
    """

    done: int = 0
    failures: int = 0
    pause: int = 0


def plan(deliveries: Sequence[Delivery], *, done: int, failures: int) -> ticks.Seen[State]:
    """Say where the queue stands after these deliveries, which began at `done + 1`."""
    told: list[str] = []
    for delivery in deliveries:
        if delivery.outcome == "empty":
            break
        if delivery.outcome == "unreachable":
            failures += 1
            pause = PAUSES[min(failures, len(PAUSES)) - 1]
            told.append(f"{delivery.alert_id} waits ({delivery.told}); the next try after {pause} ticks")
            return ticks.Seen(state=State(done=done, failures=failures, pause=pause), reason="; ".join(told))
        done, failures = done + 1, 0
        told.append(f"{delivery.alert_id} {delivery.outcome} ({delivery.told})")
    return ticks.Seen(state=State(done=done, failures=failures), reason="; ".join(told) or "no alert waits")


@ticks.Sensor(
    "alerts",
    ticks.PerProduct(State),
    about="Delivers recorded alerts to the webhook, in order and at least once.",
    every_s=5,
    needs=("alerts",),
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Seen[State]:
    """Deliver the next alerts of a product."""
    if state.pause > 0:
        reason = f"the receiver is left alone for {state.pause} more ticks"
        return ticks.Seen(state=replace(state, pause=state.pause - 1), reason=reason)
    deliveries: list[Delivery] = []
    while len(deliveries) < MOST_A_TICK:
        deliveries.append(tick.alerts.deliver(tick.spec.name, state.done + len(deliveries) + 1))
        if deliveries[-1].outcome in ("empty", "unreachable"):
            break
    return plan(deliveries, done=state.done, failures=state.failures)
