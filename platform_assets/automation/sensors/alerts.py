"""Deliver recorded alerts: each product's queue in order, with retries while the receiver is down.

This is a sensor of its own so that a slow receiver delays nothing else. `platform_assets.automation.alerting` does the
sending.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from platform_assets.automation.alerting import Delivery
from platform_assets.automation.sensors import ticks
from platform_assets.base.wording import counted

MAX_PER_TICK = 20
PAUSES = (0, 1, 2, 4, 8, 16, 32, 60)
"""Ticks to pause after the first, second ... failure in a row to reach the receiver; the last value repeats."""


class State(ticks.State, frozen=True, kw_only=True):
    """Position in a product's queue.

    Attributes:
        done: number of the last alert that was dealt with.
        failures: how often in a row the receiver was unreachable.
        pause: ticks left until the next try.
    """

    done: int = 0
    failures: int = 0
    pause: int = 0


def plan(deliveries: Sequence[Delivery], *, done: int, failures: int) -> ticks.Result[State]:
    """Return the queue's state after these deliveries, the first of which is number `done + 1`."""
    messages: list[str] = []
    for delivery in deliveries:
        if delivery.outcome == "empty":
            break
        if delivery.outcome == "unreachable":
            failures += 1
            pause = PAUSES[min(failures, len(PAUSES)) - 1]
            messages.append(
                f"{delivery.alert_id} not delivered ({delivery.message}); next try after {counted(pause, 'tick')}"
            )
            return ticks.Result(state=State(done=done, failures=failures, pause=pause), reason="; ".join(messages))
        done, failures = done + 1, 0
        messages.append(f"{delivery.alert_id} {delivery.outcome} ({delivery.message})")
    return ticks.Result(state=State(done=done, failures=failures), reason="; ".join(messages) or "no alert is waiting")


@ticks.Sensor(
    "alerts",
    ticks.PerProduct(State),
    about="Delivers recorded alerts to the webhook, in order and at least once.",
    every_s=5,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Deliver the next alerts of a product."""
    if state.pause > 0:
        reason = f"the receiver was unreachable; next try after {counted(state.pause, 'tick')}"
        return ticks.Result(state=replace(state, pause=state.pause - 1), reason=reason)
    deliveries: list[Delivery] = []
    while len(deliveries) < MAX_PER_TICK:
        deliveries.append(tick.alerts.deliver(tick.spec.name, state.done + len(deliveries) + 1))
        if deliveries[-1].outcome in ("empty", "unreachable"):
            break
    return plan(deliveries, done=state.done, failures=state.failures)
