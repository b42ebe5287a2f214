"""Deliver the alerts that other sensors recorded: each product's queue in order, again when the receiver was down.

Belongs here: the pace. Does not belong here: what deserves an alert, or how one is sent (`resources.alerts`). Sending
has a sensor of its own so that a slow receiver holds up nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dagster as dg

from platform_assets.specs.base import ProductSpec
from resources.alerts import AlertsResource, Delivery
from sensors import ticks

MOST_A_TICK = 20
PAUSES = (0, 1, 2, 4, 8, 16, 32, 60)
"""For how many ticks an unreachable receiver is left alone after the first, second ... failure; the last holds on."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a tick made of its deliveries.

    Attributes:
        done: the place up to which the queue is worked off.
        failures: how often in a row the receiver was unreachable.
        pause: for how many ticks it is left alone.
        reason: one clause.
    """

    done: int
    failures: int
    pause: int
    reason: str


def plan(deliveries: Sequence[Delivery], *, done: int, failures: int) -> Plan:
    """Say where the queue stands after these deliveries, which began at `done + 1`."""
    told: list[str] = []
    for delivery in deliveries:
        if delivery.outcome == "empty":
            break
        if delivery.outcome == "unreachable":
            failures += 1
            pause = PAUSES[min(failures, len(PAUSES)) - 1]
            waiting = f"{delivery.alert_id} waits ({delivery.told}); the next try after {pause} ticks"
            return Plan(done=done, failures=failures, pause=pause, reason="; ".join([*told, waiting]))
        done, failures = done + 1, 0
        told.append(f"{delivery.alert_id} {delivery.outcome} ({delivery.told})")
    return Plan(done=done, failures=failures, pause=0, reason="; ".join(told) or "no alert waits")


def build(specs: Iterable[ProductSpec]) -> dg.SensorDefinition:
    """Return the sensor."""
    products = tuple(specs)

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Delivers recorded alerts to the webhook, in order and at least once.",
    )
    def watch(context: dg.SensorEvaluationContext, alerts: AlertsResource) -> dg.SensorResult:
        return ticks.evaluate(context, products, lambda spec, state: _look(spec, state, alerts))

    return watch


def _look(spec: ProductSpec, state: ticks.State, alerts: AlertsResource) -> ticks.Seen:
    pause = state.get("pause", 0)
    if pause > 0:
        return ticks.Seen(
            state={**state, "pause": pause - 1}, reason=f"the receiver is left alone for {pause} more ticks"
        )
    done = state.get("done", 0)
    deliveries: list[Delivery] = []
    while len(deliveries) < MOST_A_TICK:
        deliveries.append(alerts.deliver(spec.name, done + len(deliveries) + 1))
        if deliveries[-1].outcome in ("empty", "unreachable"):
            break
    found = plan(deliveries, done=done, failures=state.get("failures", 0))
    return ticks.Seen(state={"done": found.done, "failures": found.failures, "pause": found.pause}, reason=found.reason)
