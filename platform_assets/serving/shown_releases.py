"""Decide which releases Dagster must be shown, and which need a new Bento: the sensor `releases` does it."""

from collections.abc import Iterable
from dataclasses import dataclass

from platform_assets.evaluation import releases
from platform_assets.store.records.releases import Release


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
    is_settled, is_reported = True, False
    if number in in_ui:
        reason = f"release {number} is live"
    elif busy is not None and record.outcome != releases.ROLLED_BACK:
        is_settled, reason = False, f"release {number} waits for run {busy} to end"
    else:
        is_reported, reason = True, f"release {number} was not made by a run ({record.by}): event added"
    return Plan(is_settled=is_settled, is_reported=is_reported, needs_new_bento=needs_new_bento, reason=reason)
