"""Gather the facts of a decision from records: how a product stands at a key.

Belongs here: reading ledgers and partition records, a bounded number for a key. Does not belong here: concluding
anything (`compute.policy`).
"""

from collections.abc import Mapping
from datetime import datetime
from itertools import takewhile
from typing import Any

from platform_assets import naming
from platform_assets.compute import costs, policy, releases
from platform_assets.compute.holds import Hold
from platform_assets.specs.base import ProductSpec
from platform_assets.stages import holds, performance
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import PartitionRecord, TableStore

ATTEMPTS_READ = 200
REQUESTS_READ = 20


def of_key(
    spec: ProductSpec,
    tables: TableStore,
    ledgers: Ledgers,
    key: str,
    judged: PartitionRecord,
    *,
    now: datetime,
    has_newer: bool,
) -> policy.Facts:
    """Return the facts of a decision.

    Args:
        judged: the key's record of stage `drift`.
        now: the product's moment.
        has_newer: whether the same run closes a later key.
    """
    grain, place = spec.grain, spec.grain.index(key)
    cutoff = None if grain.size is not None and place + 1 >= grain.size else grain.key_at(place + 1)
    earlier = _earlier(spec, ledgers, place)
    trained = [grain.index(each) for each in tables.records("evaluation") if grain.index(each) <= place + 1]
    live = ledgers.latest(naming.RELEASES)
    window = () if cutoff is None else grain.window(cutoff, width=spec.window, label_delay=spec.label_delay)
    out = holds.out_of(tables, ledgers, window)
    labelled = tables.records("outcomes", window)
    attempts = [record for _, record in ledgers.newest(naming.ATTEMPTS, ATTEMPTS_READ)]
    return policy.Facts(
        key=key,
        place=place,
        cutoff=cutoff,
        superseded_at=None if cutoff is None else grain.instant_after(cutoff),
        has_newer=has_newer or (cutoff is not None and ledgers.read(naming.DECISIONS, cutoff) is not None),
        anchor=0 if spec.retraining.anchor is None else grain.index(spec.retraining.anchor),
        last_judged=next((at for at, record in earlier.items() if record["is_free"]), None),
        live_cutoff=None if live is None else grain.index(live[1]["cutoff"]),
        last_trained=max(trained, default=None),
        pending_cutoff=_pending(earlier, {grain.key_at(at) for at in trained}),
        usable_keys=sum(1 for each in window if each in labelled and each not in out),
        min_keys=spec.min_keys,
        unlabelled=tuple(each for each in window if each not in labelled and each not in out),
        held=tuple(each for each, hold in out.items() if hold.is_held),
        health=_health(judged, holds.of_key(ledgers, key)),
        performance=_performance(spec, tables, key, live),
        request=_request(ledgers, earlier),
        spent_usd=costs.total_usd(each for each in attempts if _month(spec, each) == f"{now:%Y-%m}"),
        next_usd=costs.next_usd(attempts),
    )


def _month(spec: ProductSpec, attempt: Mapping[str, Any]) -> str:
    """Return the month that an attempt is charged to: its cutoff's, or for batches the wall clock's."""
    cutoff = attempt["cutoff"]
    if spec.grain.instant_after(cutoff) is None:
        return str(attempt["started_at_utc"])[:7]
    return f"{spec.grain.instant(cutoff):%Y-%m}"


def _earlier(spec: ProductSpec, ledgers: Ledgers, place: int) -> dict[int, dict[str, Any]]:
    """Return the decisions of the keys before, the newest first, as far back as a decision may depend on them."""
    reach = max(spec.retraining.cooldown, 2 * spec.retraining.decide_every, 1)
    places = range(place - 1, max(-1, place - 1 - reach), -1)
    read = ((at, ledgers.read(naming.DECISIONS, spec.grain.key_at(at))) for at in places)
    return {at: record for at, record in takewhile(lambda item: item[1] is not None, read) if record is not None}


def _performance(
    spec: ProductSpec, tables: TableStore, key: str, live: tuple[int, dict[str, Any]] | None
) -> policy.Performance | None:
    """Return how the live model does against its own expectation, over the window of labelled keys up to this one."""
    if live is None:
        return None
    seen = performance.of_model(spec, tables, key, releases.live_digest(live[1]))
    if seen is None:
        return None
    return policy.Performance(
        keys=seen["keys"],
        log_loss=seen["log_loss"],
        expected=seen["expected_log_loss"],
        excess=seen["excess"],
        p_value=seen["p_value"],
    )


def _pending(earlier: Mapping[int, Mapping[str, Any]], trained: set[str]) -> str | None:
    """Return the cutoff of a training that was decided lately and has no verdict; older ones were given up."""
    decided = (record["cutoff"] for record in earlier.values() if record["action"] == policy.RETRAIN)
    return next((cutoff for cutoff in decided if cutoff not in trained), None)


def _health(judged: PartitionRecord, hold: Hold | None) -> policy.Health:
    notes = judged.notes
    index = notes.get("index") or {}
    fault = None
    if notes["verdict"] == policy.ALERT_FAULT:
        episode = hold.record.get("episode", judged.key) if hold else judged.key
        fault = {**(notes["primary"] or {}), "episode": episode}
    verdict = notes["verdict"] if hold is None or hold.is_held or not notes["is_faulty"] else "fine"
    return policy.Health(verdict=verdict, fault=fault, index=index.get("mean_psi"), percentile=index.get("percentile"))


def _request(ledgers: Ledgers, earlier: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the newest request for a decision that no recorded decision has answered."""
    answered = max((record["request"] or 0 for record in earlier.values()), default=0)
    for number, record in ledgers.newest(naming.REQUESTS, REQUESTS_READ):
        if number <= answered:
            return None
        if record["kind"] == "decision":
            return {**record, "number": number}
    return None
