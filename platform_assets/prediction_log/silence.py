"""Find the alert to raise when a service sent nothing in newly closed keys though a model was live."""

import msgspec
from msgspec.structs import replace

from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id
from platform_assets.store.product_store import ProductStore

MOST_READ = 31
"""Of how many newly closed keys a tick reads which processes sent something."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What was read.

    Attributes:
        read: the last closed key that was looked at.
        since: the first of the last closed keys in which no process sent anything; empty if one did.
    """

    read: str | None = None
    since: str = ""


def follow(product: ProductStore, state: State, newest: str | None) -> tuple[State, list[Alert | str]]:
    """Read which processes sent something in the keys closed since the last tick.

    Returns the next state, and in order the alert of each silence that began and the alert's id of each that ended.
    """
    changes: list[Alert | str] = []
    grain = product.spec.grain
    if newest is None or newest == state.read:
        return state, changes
    end = grain.index(newest)
    first = end if state.read is None else max(grain.index(state.read) + 1, end - MOST_READ + 1)
    for key in (grain.key_at(index) for index in range(first, end + 1)):
        attendance = product.history.attendance(key)
        if attendance is None:
            continue
        if attendance.case != "silent":
            changes += [episode_id("silent", state.since)] if state.since else []
            state = replace(state, since="")
        elif not state.since:
            state = replace(state, since=key)
            text = (
                f"A model of {product.name} is live, and no process of its service sent anything in {key}: neither "
                "answers nor heartbeats. The key is measured without answers. Check that the service runs and may "
                "write to the store."
            )
            changes.append(Alert(id=episode_id("silent", key), kind=Kind.SILENT, text=text, details={"key": key}))
    return replace(state, read=newest), changes
