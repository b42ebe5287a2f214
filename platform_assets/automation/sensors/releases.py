"""Follow the release ledger: show releases that no run made in the UI, and raise an alert when a new Bento is needed.

A release record is written before its run's event. So while a run is under way, a record without an event waits for
that run to end.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from platform_assets.automation.alerting import episode_id
from platform_assets.automation.sensors import ticks
from platform_assets.base import naming
from platform_assets.evaluation import releases
from platform_assets.serving.release import event_of
from platform_assets.store.records.releases import Release

STAGE = "release"
MOST_RELEASES = 12
"""How many releases a tick looks at, and how many back a tick without a cursor starts."""
EVENTS_READ = 50
RELEASING_VERBS = ("retrain", "release")


class State(ticks.State, frozen=True, kw_only=True):
    """How far a product's releases were followed.

    Attributes:
        settled: number of the last settled release; None before the first tick.
        reason: the last reason.
    """

    settled: int | None = None
    reason: str = "no release yet"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows from a release.

    Attributes:
        is_settled: whether the sensor may go on to the next release; otherwise it looks again.
        is_reported: whether the UI needs an event.
        needs_new_bento: whether the request contract differs from the previous release's.
        reason: one clause.
    """

    is_settled: bool
    is_reported: bool
    needs_new_bento: bool
    reason: str


def plan(number: int, record: Release, before: Release | None, *, in_ui: Iterable[int], busy: str | None) -> Plan:
    """Return what follows from a release.

    Args:
        before: the previous release; None for the first.
        in_ui: numbers of releases that have an event in the UI.
        busy: the id of a run under way that may have made it and not sent its event yet.
    """
    needs_new_bento = before is not None and before.contract_sha256 != record.contract_sha256
    if number in in_ui:
        reason = f"release {number} is live"
        return Plan(is_settled=True, is_reported=False, needs_new_bento=needs_new_bento, reason=reason)
    if busy is not None and record.outcome != releases.ROLLED_BACK:
        reason = f"release {number} waits for run {busy} to end"
        return Plan(is_settled=False, is_reported=False, needs_new_bento=needs_new_bento, reason=reason)
    reason = f"release {number} was not made by a run ({record.by}): event added"
    return Plan(is_settled=True, is_reported=True, needs_new_bento=needs_new_bento, reason=reason)


@ticks.Sensor(
    "releases",
    ticks.PerProduct(State),
    about="Shows releases that no run made, such as rollbacks; raises an alert when a new Bento is needed.",
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Follow a product's releases up to the newest one that is settled."""
    history = tick.history
    settled = max(0, history.newest_release() - MOST_RELEASES) if state.settled is None else state.settled
    reason = state.reason
    for number, record in history.releases(settled + 1):
        if number > settled + MOST_RELEASES:
            break
        busy = tick.under_way(*RELEASING_VERBS)
        before = history.release(number - 1) if number > 1 else None
        in_ui = _numbers_in_ui(tick.instance, tick.spec.name)
        result = plan(number, record, before, in_ui=in_ui, busy=busy.run_id if busy is not None else None)
        reason = result.reason
        if not result.is_settled:
            break
        if result.is_reported:
            tick.instance.report_runless_asset_event(event_of(tick.spec.name, number, record))
        if result.needs_new_bento:
            text = (
                f"release {number} of {tick.spec.name} changes the request contract: the running service keeps its "
                "model until a new Bento is rolled out."
            )
            details = {"release": number, "contract_sha256": record.contract_sha256, "cutoff": record.cutoff}
            tick.raise_alert(episode_id("contract", str(number)), kind="release", text=text, **details)
        settled = number
    return ticks.Result(state=State(settled=settled, reason=reason), reason=reason)


def _numbers_in_ui(instance: dg.DagsterInstance, product: str) -> set[int]:
    """Return the numbers of the releases that the newest events show."""
    events = instance.fetch_materializations(dg.AssetKey(naming.asset_key(product, STAGE)), limit=EVENTS_READ)
    numbers = (
        record.asset_materialization.metadata.get("release")
        for record in events.records
        if record.asset_materialization is not None
    )
    return {number.value for number in numbers if isinstance(number, dg.IntMetadataValue) and number.value is not None}
