"""Raise an alert when a service sent nothing in newly closed keys though a model was live."""

from msgspec.structs import replace

from platform_assets.automation.alerting import episode_id
from platform_assets.automation.sensors import ticks

MOST_READ = 31
"""Of how many newly closed keys a tick reads which processes sent something."""


class State(ticks.State, frozen=True, kw_only=True):
    """What was read.

    Attributes:
        read: the last closed key that was looked at.
        since: the first of the last closed keys in which no process sent anything; empty if one did.
    """

    read: str | None = None
    since: str = ""


def follow(tick: ticks.ProductTick, state: State, newest: str | None) -> State:
    """Read which processes sent something in the keys closed since the last tick; raise one alert per silence."""
    grain = tick.spec.grain
    if newest is None or newest == state.read:
        return state
    end = grain.index(newest)
    first = end if state.read is None else max(grain.index(state.read) + 1, end - MOST_READ + 1)
    for key in (grain.key_at(index) for index in range(first, end + 1)):
        attendance = tick.history.attendance(key)
        if attendance is None:
            continue
        if attendance.case != "silent":
            if state.since:
                tick.end_alert(episode_id("silent", state.since))
            state = replace(state, since="")
        elif not state.since:
            state = replace(state, since=key)
            tick.raise_alert(episode_id("silent", key), kind="silent", text=_text(tick.spec.name, key), key=key)
    return replace(state, read=newest)


def _text(product: str, key: str) -> str:
    return (
        f"A model of {product} is live, and no process of its service sent anything in {key}: neither answers nor "
        "heartbeats. The key is measured without answers. Check that the service runs and may write to the "
        "store."
    )
