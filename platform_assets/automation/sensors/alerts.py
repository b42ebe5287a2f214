"""Deliver recorded alerts and their ends: to each receiver in the order of the product's queue, with growing pauses.

This is a sensor of its own so that a slow receiver delays nothing else, and each receiver has a place of its own in the
queue, so that none waits for another. Alertmanager is also told again and again which alerts go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from msgspec import field
from msgspec.structs import replace

from platform_assets.automation.receivers import configured
from platform_assets.automation.receivers.alertmanager import Alertmanager
from platform_assets.automation.receivers.api import Delivery, Message, Receiver
from platform_assets.automation.receivers.kinds import kind_of
from platform_assets.automation.sensors import ticks
from platform_assets.base import clock
from platform_assets.base.wording import counted
from platform_assets.store.records.alerts import Queued

MAX_PER_TICK = 20
PAUSES = (0, 1, 2, 4, 8, 16, 32, 60)
"""Ticks to pause after the first, second ... failure in a row to reach a receiver; the last value repeats."""
REPEATED_EVERY = timedelta(minutes=1)
"""As Prometheus does."""


class Place(ticks.State, frozen=True, kw_only=True):
    """A receiver's place in a product's queue.

    Attributes:
        done: number of the last entry that was dealt with.
        failures: how often in a row the receiver was unreachable.
        pause: ticks left until the next try.
        lasting: alerts that Alertmanager is told of again, by id; those of no episode with the moment of their end.
        repeated_at: when it was told last.
    """

    done: int = 0
    failures: int = 0
    pause: int = 0
    lasting: dict[str, str] = field(default_factory=dict)
    repeated_at: str = ""

    def after(self, delivery: Delivery) -> Place:
        """Return the place after a try to reach the receiver."""
        failures = self.failures + 1 if delivery.outcome == "unreachable" else 0
        return replace(self, failures=failures, pause=PAUSES[min(failures, len(PAUSES)) - 1] if failures else 0)


class State(ticks.State, frozen=True, kw_only=True):
    """Position in a product's queue.

    Attributes:
        done: number of the newest entry.
        places: by receiver; one that was not there before begins after the newest entry of that time.
    """

    done: int = 0
    places: dict[str, Place] = field(default_factory=dict)


@ticks.Sensor(
    "alerts",
    ticks.PerProduct(State),
    about="Delivers recorded alerts and their ends to each receiver, in order and at least once.",
    every_s=5,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Deliver the next alerts of a product."""
    history, newest = tick.alerts.history(tick.spec.name), state.done
    while not (is_whole := history.queued(newest + 1) is None) and newest - state.done < MAX_PER_TICK:
        newest += 1
    receivers = configured(tick.alerts.settings)
    if not receivers:
        entries = counted(newest - state.done, "entry")
        reason = f"{entries} recorded only: no receiver is set" if newest > state.done else "no alert is waiting"
        return ticks.Result(state=State(done=newest), reason=reason)

    def serve(receiver: Receiver) -> tuple[Place, list[str]]:
        place = state.places.get(receiver.name, Place(done=state.done))
        return _serve(tick, receiver, place, newest, is_whole=is_whole)

    with ThreadPoolExecutor(len(receivers)) as pool:
        served = dict(zip((receiver.name for receiver in receivers), pool.map(serve, receivers), strict=True))
    reasons = [f"{name}: {line}" for name, (_, lines) in served.items() for line in lines]
    places = {name: place for name, (place, _) in served.items()}
    return ticks.Result(state=State(done=newest, places=places), reason="; ".join(reasons) or "no alert is waiting")


def _serve(
    tick: ticks.ProductTick, receiver: Receiver, place: Place, newest: int, *, is_whole: bool
) -> tuple[Place, list[str]]:
    """Deliver the next entries of the queue to a receiver; return its place, and what was done.

    Args:
        newest: number of the last entry to deliver.
        is_whole: whether the queue has no more.
    """
    if place.pause > 0:
        reason = f"was unreachable; next try after {counted(place.pause, 'tick')}"
        return replace(place, pause=place.pause - 1), [reason]
    history, lines = tick.alerts.history(tick.spec.name), list[str]()
    for number in range(place.done + 1, min(newest, place.done + MAX_PER_TICK) + 1):
        queued = history.queued(number)
        if queued is None or (lines and time.perf_counter() > tick.until_s):
            break
        name = f"the end of {queued.id}" if queued.is_end else queued.id
        lasting = place.lasting
        if isinstance(receiver, Alertmanager):
            delivery, lasting = _lasting(tick, receiver, lasting, queued)
        else:
            delivery = tick.alerts.deliver(tick.spec, queued, receiver)
        place = place.after(delivery)
        if delivery.outcome == "unreachable":
            return place, [*lines, _again(name, delivery, place)]
        place = replace(place, done=number, lasting=lasting)
        lines.append(f"{name} {delivery.outcome} ({delivery.message})")
    if isinstance(receiver, Alertmanager) and is_whole and place.done == newest:
        place, more = _repeat(tick, receiver, place)
        lines += more
    return place, lines


def _lasting(
    tick: ticks.ProductTick, receiver: Alertmanager, lasting: Mapping[str, str], queued: Queued
) -> tuple[Delivery, dict[str, str]]:
    """Deliver an entry to Alertmanager; return the delivery, and which alerts last after it."""
    others = {alert_id: until for alert_id, until in lasting.items() if alert_id != queued.id}
    if queued.is_end:
        if _is_one_of(receiver, _messages(tick, [queued.id]), _messages(tick, others)):
            delivery = Delivery(outcome="sent", message="another episode of this alert goes on")
            tick.alerts.note(tick.spec.name, queued, receiver, delivery)
            return delivery, others
        return tick.alerts.deliver(tick.spec, queued, receiver), others
    delivery = tick.alerts.deliver(tick.spec, queued, receiver)
    told = tick.alerts.history(tick.spec.name).delivery(queued, receiver.name)
    if told is not None and told.outcome == "sent":
        for kind in (kind_of(message.alert.kind, message.alert.details) for message in _messages(tick, [queued.id])):
            lasts = (
                None if kind.lasts_s is None else datetime.fromisoformat(told.at_utc) + timedelta(seconds=kind.lasts_s)
            )
            others[queued.id] = "" if lasts is None else lasts.isoformat()
    return delivery, others


def _repeat(tick: ticks.ProductTick, receiver: Alertmanager, place: Place) -> tuple[Place, list[str]]:
    """Tell Alertmanager once a minute which alerts last."""
    now = clock.wall()
    if place.repeated_at and now - datetime.fromisoformat(place.repeated_at) < REPEATED_EVERY:
        return place, []
    lasting = {name: until for name, until in place.lasting.items() if not until or datetime.fromisoformat(until) > now}
    place = replace(place, lasting=lasting)
    if not lasting:
        return place, []
    delivery = receiver.repeat(_messages(tick, lasting))
    place = replace(place.after(delivery), repeated_at=now.isoformat())
    alerts = counted(len(lasting), "alert")
    return place, [] if delivery.outcome == "sent" else [_again(f"{alerts} that last", delivery, place)]


def _messages(tick: ticks.ProductTick, alert_ids: Iterable[str]) -> list[Message]:
    history = tick.alerts.history(tick.spec.name)
    alerts = [history.alert(alert_id) for alert_id in alert_ids]
    return [Message(alert=alert, owner=tick.spec.owner) for alert in alerts if alert is not None]


def _is_one_of(receiver: Alertmanager, messages: Iterable[Message], others: Iterable[Message]) -> bool:
    """Tell whether Alertmanager takes one of these alerts for one of the others."""
    labels = [receiver.labels(message) for message in others]
    return any(receiver.labels(message) in labels for message in messages)


def _again(name: str, delivery: Delivery, place: Place) -> str:
    return f"{name} not delivered ({delivery.message}); next try after {counted(place.pause, 'tick')}"
