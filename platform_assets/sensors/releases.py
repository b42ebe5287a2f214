"""Follow the release ledger: show releases that no run made in the UI, and raise an alert when a new Bento is needed.

A release record is written before its run's event. So while a run is under way, a record without an event waits for
that run to end.
"""

import dagster as dg
import msgspec

from platform_assets.base import naming
from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id
from platform_assets.sensors import ticks
from platform_assets.serving import shown_releases
from platform_assets.serving.release import event_of

STAGE = "release"
MOST_RELEASES = 12
"""How many releases a tick looks at, and how many back a tick without a cursor starts."""
EVENTS_READ = 50


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How far a product's releases were followed.

    Attributes:
        settled: number of the last settled release; None before the first tick.
        reason: the last reason.
    """

    settled: int | None = None
    reason: str = "no release yet"


@ticks.Sensor("releases", ticks.PerProduct(State))
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Follow a product's releases up to the newest one that is settled."""
    history = tick.history
    settled = max(0, history.newest_release() - MOST_RELEASES) if state.settled is None else state.settled
    reason, asset = state.reason, dg.AssetKey(naming.asset_key(tick.spec.name, STAGE))
    for number, record in history.releases(settled + 1):
        if number > settled + MOST_RELEASES:
            break
        busy = tick.under_way("retrain", "release")
        before = history.release(number - 1) if number > 1 else None
        # What the newest events show.
        shown = tick.context.instance.fetch_materializations(asset, limit=EVENTS_READ).records
        notes = [event.asset_materialization.metadata for event in shown if event.asset_materialization]
        numbers = [note.get("release") for note in notes]
        in_ui = {item.value for item in numbers if isinstance(item, dg.IntMetadataValue) and item.value is not None}
        result = shown_releases.plan(
            number, record, before, in_ui=in_ui, busy=busy.run_id if busy is not None else None
        )
        reason = result.reason
        if not result.is_settled:
            break
        if result.is_reported:
            tick.context.instance.report_runless_asset_event(event_of(tick.spec.name, number, record))
        if result.needs_new_bento:
            text = (
                f"release {number} of {tick.spec.name} changes the request contract: the running service keeps its "
                "model until a new Bento is rolled out."
            )
            details = {"release": number, "contract_sha256": record.contract_sha256, "cutoff": record.cutoff}
            alert_id = episode_id("contract", str(number))
            tick.raise_alert(Alert(id=alert_id, kind=Kind.RELEASE, text=text, details=details))
        settled = number
    return ticks.Result(state=State(settled=settled, reason=reason), reason=reason)
