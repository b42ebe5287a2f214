"""Deliver recorded alerts and their ends to Alertmanager, in the order of the product's queue, with growing pauses.

This is a sensor of its own so that a slow receiver delays nothing else. Alertmanager is also told again and again which
alerts go on. Without its address alerts are recorded only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from platform_assets.alerts.alertmanager import Alertmanager, Delivery, Message
from platform_assets.base.wording import counted
from platform_assets.monitoring.alert_kinds import row_of
from platform_assets.sensors import ticks
from platform_assets.store.records.alerts import Queued

MAX_PER_TICK = 20
PAUSES_S = (0, 5, 10, 20, 40, 80, 160, 300)
"""How long to pause after the first, second ... failure in a row to reach the receiver; the last value repeats."""
REPEATED_EVERY = timedelta(minutes=1)
"""As Prometheus does."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver's place in a product's queue.

    Attributes:
        done: number of the last entry that was dealt with.
        failures: how often in a row the receiver was unreachable.
        since_s: when it was found unreachable last, by the wall clock.
        lasting: alerts that it is told of again, by id; those of no episode with the moment of their end.
        repeated_at: when it was told last.
    """

    done: int = 0
    failures: int = 0
    since_s: float = 0.0
    lasting: dict[str, str] = msgspec.field(default_factory=dict)
    repeated_at: str = ""

    @property
    def pause_s(self) -> int:
        """How long it is left alone."""
        return PAUSES_S[min(self.failures, len(PAUSES_S)) - 1] if self.failures else 0

    def after(self, delivery: Delivery, now_s: float) -> Place:
        """Return the place after a try to reach the receiver."""
        is_away = delivery.outcome == "unreachable"
        return replace(self, failures=self.failures + 1 if is_away else 0, since_s=now_s if is_away else 0.0)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Position in a product's queue.

    Attributes:
        done: number of the newest entry.
        places: that of Alertmanager, by its name; without one it begins after the newest entry of that time.
    """

    done: int = 0
    places: dict[str, Place] = msgspec.field(default_factory=dict)


@ticks.Sensor("alerts", ticks.PerProduct(State), every_s=5)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Deliver the next alerts of a product."""
    history, newest = tick.alerts.history(tick.spec.name), state.done
    while not (is_whole := history.queued(newest + 1) is None) and newest - state.done < MAX_PER_TICK:
        newest += 1
    settings, name = tick.alerts.settings, Alertmanager.name
    if not settings.alertmanager_addresses:
        entries = counted(newest - state.done, "entry")
        reason = f"{entries} recorded only: no receiver is set" if newest > state.done else "no alert is waiting"
        return ticks.Result(state=State(done=newest), reason=reason)
    place, lines = state.places.get(name, Place(done=state.done)), list[str]()
    if 0 < (left_s := place.since_s + place.pause_s - tick.at_s) <= place.pause_s:  # more: the clock was set back
        lines.append(f"{name}: was unreachable; next try in {math.ceil(left_s)} s")
    else:
        place, lines = _serve(tick, Alertmanager(settings), place, newest, is_whole=is_whole)
    return ticks.Result(
        state=State(done=newest, places={name: place}), reason="; ".join(lines) or "no alert is waiting"
    )


def _serve(
    tick: ticks.ProductTick, receiver: Alertmanager, place: Place, newest: int, *, is_whole: bool
) -> tuple[Place, list[str]]:
    """Deliver the next entries of the queue, and once a minute which alerts last; return the place, and what was done.

    Args:
        newest: number of the last entry to deliver.
        is_whole: whether the queue has no more.
    """
    history, lines = tick.alerts.history(tick.spec.name), list[str]()
    for number in range(place.done + 1, min(newest, place.done + MAX_PER_TICK) + 1):
        queued = history.queued(number)
        if queued is None or (lines and time.perf_counter() > tick.until_s):
            break
        delivery, lasting = _deliver(tick, receiver, place.lasting, queued)
        place = place.after(delivery, tick.at_s)
        line = f"{receiver.name}: {f'the end of {queued.id}' if queued.is_end else queued.id}"
        if delivery.outcome == "unreachable":
            return place, [*lines, f"{line} not delivered ({delivery.message}); next try in {place.pause_s} s"]
        place = replace(place, done=number, lasting=lasting)
        lines.append(f"{line} {delivery.outcome} ({delivery.message})")
    now = datetime.fromtimestamp(tick.at_s, UTC)  # a receiver lives by the wall clock, whatever the product's
    is_told = bool(place.repeated_at) and now - datetime.fromisoformat(place.repeated_at) < REPEATED_EVERY
    if is_told or not is_whole or place.done != newest:
        return place, lines
    lasting = {name: until for name, until in place.lasting.items() if not until or datetime.fromisoformat(until) > now}
    place = replace(place, lasting=lasting)
    if lasting:
        delivery = receiver.repeat(_messages(tick, lasting))
        place = replace(place.after(delivery, tick.at_s), repeated_at=now.isoformat())
        if delivery.outcome != "sent":
            what = f"{receiver.name}: {counted(len(lasting), 'alert')} that last not delivered ({delivery.message})"
            lines.append(f"{what}; next try in {place.pause_s} s")
    return place, lines


def _deliver(
    tick: ticks.ProductTick, receiver: Alertmanager, lasting: Mapping[str, str], queued: Queued
) -> tuple[Delivery, dict[str, str]]:
    """Deliver an entry; return the delivery, and which alerts last after it."""
    others = {alert_id: until for alert_id, until in lasting.items() if alert_id != queued.id}
    if queued.is_end:
        labels = [receiver.labels(message) for message in _messages(tick, others)]
        if any(receiver.labels(message) in labels for message in _messages(tick, [queued.id])):
            delivery = Delivery(outcome="sent", message="another episode of this alert goes on")
            tick.alerts.note(tick.spec.name, queued, delivery)
            return delivery, others
        return tick.alerts.deliver(tick.spec, queued, receiver), others
    delivery = tick.alerts.deliver(tick.spec, queued, receiver)
    told = tick.alerts.history(tick.spec.name).delivery(queued)
    if told is None or told.outcome != "sent":
        return delivery, others
    for message in _messages(tick, [queued.id]):
        lasts_s, until = row_of(message.alert.kind, message.alert.details).lasts_s, ""
        if lasts_s is not None:
            until = (datetime.fromisoformat(told.at_utc) + timedelta(seconds=lasts_s)).isoformat()
        others[queued.id] = until
    return delivery, others


def _messages(tick: ticks.ProductTick, alert_ids: Iterable[str]) -> list[Message]:
    history = tick.alerts.history(tick.spec.name)
    alerts = [history.alert(alert_id) for alert_id in alert_ids]
    return [Message(alert=alert, owner=tick.spec.owner) for alert in alerts if alert is not None]
