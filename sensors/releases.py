"""Follow the release ledger: show in the UI what no run released, and tell when a new Bento must be rolled out.

Belongs here: what follows from a release record. Does not belong here: making one (stage `release`, `driftline
rollback`). A record comes before its run's event, so one without an event is only reported when no run is under way.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from platform_assets import naming
from platform_assets.compute import releases
from platform_assets.records.releases import Release
from resources.alerts import episode_id
from sensors import ticks

STAGE = "release"
MOST_RELEASES = 12
"""How many releases a tick looks at, and how far back one without a cursor begins."""
EVENTS_READ = 50
RELEASING_VERBS = ("retrain", "release")


class State(ticks.State, frozen=True, kw_only=True):
    """How far a product's releases were followed.

    Attributes:
        seen: the number of the last settled one; None before the first tick.
        said: the last reason.
    """

    seen: int | None = None
    said: str = "nothing was released yet"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows from a release.

    Attributes:
        is_settled: whether the sensor may go on to the next release; otherwise it looks again.
        is_reported: whether the UI must be told.
        needs_new_bento: whether the request contract is another one than before.
        reason: one clause.
    """

    is_settled: bool
    is_reported: bool
    needs_new_bento: bool
    reason: str


def plan(number: int, record: Release, before: Release | None, *, shown: Iterable[int], busy: str | None) -> Plan:
    """Say what follows from a release.

    Args:
        number: of the release.
        record: the release.
        before: the release before it; None for the first.
        shown: numbers of releases that the UI has an event of.
        busy: the id of a run under way that may have made it and not said so yet.
    """
    needs_new_bento = before is not None and before.contract_sha256 != record.contract_sha256
    if number in shown:
        told = f"release {number} is live"
        return Plan(is_settled=True, is_reported=False, needs_new_bento=needs_new_bento, reason=told)
    if busy is not None and record.outcome != releases.ROLLED_BACK:
        told = f"release {number} waits for the end of run {busy}"
        return Plan(is_settled=False, is_reported=False, needs_new_bento=needs_new_bento, reason=told)
    told = f"release {number} was made by no run ({record.by}): shown now"
    return Plan(is_settled=True, is_reported=True, needs_new_bento=needs_new_bento, reason=told)


@ticks.Sensor(
    "releases",
    ticks.PerProduct(State),
    about="Shows releases that no run made, such as rollbacks, and tells when a new Bento is needed.",
    needs=("store", "alerts"),
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Seen[State]:
    """Follow a product's releases up to the newest one that is settled."""
    history = tick.history
    seen = max(0, history.newest_release() - MOST_RELEASES) if state.seen is None else state.seen
    reason = state.said
    for number, record in history.releases(seen + 1):
        if number > seen + MOST_RELEASES:
            break
        busy = tick.under_way(*RELEASING_VERBS)
        before = history.release(number - 1) if number > 1 else None
        shown = _shown(tick.instance, tick.spec.name)
        found = plan(number, record, before, shown=shown, busy=busy.run_id if busy is not None else None)
        reason = found.reason
        if not found.is_settled:
            break
        if found.is_reported:
            tick.instance.report_runless_asset_event(event_of(tick.spec.name, number, record))
        if found.needs_new_bento:
            text = (
                f"release {number} of {tick.spec.name} has another request contract than the one before: the running "
                "service keeps its model until a new Bento is rolled out."
            )
            details = {"release": number, "contract_sha256": record.contract_sha256, "cutoff": record.cutoff}
            tick.tell(episode_id("contract", str(number)), kind="release", text=text, **details)
        seen = number
    return ticks.Seen(state=State(seen=seen, said=reason), reason=reason)


def event_of(product: str, number: int, record: Release) -> dg.AssetMaterialization:
    """Return the materialisation by which a release that no run made appears in the UI."""
    return dg.AssetMaterialization(
        asset_key=naming.asset_key(product, STAGE),
        description=record.why,
        metadata={
            "outcome": record.outcome,
            "release": number,
            "digest": record.digest,
            "cutoff": record.cutoff,
            "why": record.why,
            "by": record.by,
        },
    )


def _shown(instance: dg.DagsterInstance, product: str) -> set[int]:
    """Return the numbers of the releases that the newest events tell of."""
    found = instance.fetch_materializations(dg.AssetKey(naming.asset_key(product, STAGE)), limit=EVENTS_READ)
    numbers = (
        record.asset_materialization.metadata.get("release")
        for record in found.records
        if record.asset_materialization is not None
    )
    return {number.value for number in numbers if isinstance(number, dg.IntMetadataValue) and number.value is not None}
