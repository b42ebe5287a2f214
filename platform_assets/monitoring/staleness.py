"""Decide which stages and which model are stale by the product's clock: the sensor `freshness` raises the alerts.

A stage is behind when it lacks a key up to the newest one whose every source is overdue; a gap in the middle counts.
Work under way is waited for. A stage that stays behind long enough raises one alert per episode, which ends when no key
is missing any more. Labels that were given up are no longer missing. Reading is bounded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.base.keys import Grain, KeyProblem
from platform_assets.base.wording import counted
from platform_assets.data import closed_keys, unlabelled
from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id
from platform_assets.product.monitoring import Retraining
from platform_assets.product.spec import Product
from platform_assets.store.product_store import ProductStore

KEYS_BACK, KEYS_ON = 31, 8
"""How many keys before and after the expected one are looked at; for labels, plus those that are still waited for."""
DECISION, OUTCOMES = "decision", "outcomes"
IDLE_S = 40.0
"""How long no work is under way before a stage that is behind raises an alert: runs take seconds to start."""
BUSY_S = 2400.0
"""How long it is behind in all before it does: work that goes on for so long produces nothing."""


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """What a stage has and lacks.

    Attributes:
        newest: the newest key that is there, among those looked at; None when there is none.
        missing: the expected keys that are not there, in order. Keys whose labels were given up do not count, except
            the newest ones.
        given_up: keys after the first one that was missing before, whose labels were given up and have not arrived.
        whole: the last key up to which nothing is missing, at the expected one or later; None when something is.
    """

    newest: str | None
    missing: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    whole: str | None = None


def find(
    product: ProductStore, stage: str, expected: str, *, closed: str | None, whole: str | None, since: str | None
) -> Gaps:
    """Return what a stage lacks up to the expected key; reads nothing while the stage is known to be complete.

    Args:
        expected: the newest key that must be there.
        closed: the newest closed key: keys close in order, so no decision before it is missing.
        whole: the key up to which nothing was missing before.
        since: the first key that was missing before.
    """
    spec, grain = product.spec, product.spec.grain
    position = grain.index(expected)
    if stage == DECISION:  # the newest one says it all, and no table is read
        first = max(0 if closed is None else grain.index(closed) + 1, position - KEYS_BACK)
        undecided = tuple(map(grain.key_at, range(first, position + 1)))
        return Gaps(newest=closed, missing=undecided, whole=None if undecided else closed)
    if whole is not None and grain.contains(whole) and grain.index(whole) >= position:
        return Gaps(newest=whole, whole=whole)
    starts = [position - KEYS_BACK - (spec.label_delay + spec.label_patience if stage == OUTCOMES else 0)]
    starts += [grain.index(key) for key in (since, whole) if key is not None and grain.contains(key)]
    end = position + KEYS_ON if grain.size is None else min(position + KEYS_ON, grain.size - 1)
    keys = [grain.key_at(index) for index in range(max(0, min(starts)), end + 1)]
    tables = product.tables
    present = set(tables.records(stage, keys))
    last = keys.index(expected)
    lacking = [key for key in keys[: last + 1] if key not in present]
    settled = unlabelled.missing(tables, lacking) if stage == OUTCOMES and lacking else {}
    tail = last + 1
    while tail > 0 and keys[tail - 1] not in present:
        tail -= 1
    # Given up or not, a stage that lacks its newest keys is stale.
    missing = tuple(key for key in lacking if key not in settled or key in keys[tail:])
    while last + 1 < len(keys) and keys[last + 1] in present:
        last += 1
    return Gaps(
        newest=max(present, key=grain.index, default=None),
        missing=missing,
        given_up=tuple(key for key in settled if since is not None and grain.index(key) >= grain.index(since)),
        whole=None if missing else keys[last],
    )


class Behind(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that is behind.

    Attributes:
        since: the first missing key.
        since_s: when it was found behind, by the wall clock.
        idle_since_s: when it was, or when work was under way last.
        is_alerted: whether an alert was raised.
    """

    since: str
    since_s: float = math.inf
    idle_since_s: float = math.inf
    is_alerted: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows from a tick.

    Attributes:
        behind: by name, the stages that are behind.
        alerts: to raise now.
        ended: ids of alerts about stages that lack nothing any more.
        reason: one clause.
    """

    behind: dict[str, Behind]
    alerts: tuple[Alert, ...]
    ended: tuple[str, ...]
    reason: str


def plan(
    grain: Grain,
    expected: Mapping[str, str],
    stages: Mapping[str, Gaps],
    behind: Mapping[str, Behind],
    *,
    is_busy: bool,
    now_s: float,
) -> Plan:
    """Return which stages are behind, and the alerts to raise.

    Args:
        expected: by stage, the newest key that must be there.
        stages: by stage, what is there and what is missing.
        behind: of the previous tick.
        is_busy: whether a run is under way that may produce what is missing.
        now_s: the moment by the wall clock.
    """
    now_behind: dict[str, Behind] = {}
    alerts, ended = list[Alert](), list[str]()
    for stage, key in expected.items():
        gaps, before = stages[stage], behind.get(stage)
        if not gaps.missing:
            if before and before.is_alerted:
                ended.append(episode_id("stale", stage, before.since))
            continue
        entry = before or Behind(since=gaps.missing[0])
        # Not later than now: the clock may have been set back.
        idle_since_s = now_s if is_busy else min(entry.idle_since_s, now_s)
        entry = replace(entry, since_s=min(entry.since_s, now_s), idle_since_s=idle_since_s)
        is_late = now_s - entry.idle_since_s >= IDLE_S or now_s - entry.since_s >= BUSY_S
        if is_late and not entry.is_alerted:
            entry = replace(entry, is_alerted=True)
            are = "is" if len(gaps.missing) == 1 else "are"
            newest = f"the newest key is {gaps.newest}" if gaps.newest else "none of the latest keys is there"
            text = f"{stage} is stale: {_range(gaps.missing)} {are} overdue, and {newest}."
            if stage == OUTCOMES:
                text += " Deliver the labels; after label_patience keys, models train without them."
            details = {"stage": stage, "expected": key, "newest": gaps.newest, "missing": list(gaps.missing)}
            alert_id = episode_id("stale", stage, entry.since)
            alerts.append(Alert(id=alert_id, kind=Kind.STALE, text=text, details=details))
        now_behind[stage] = entry
    clauses = [f"{stage} lacks {_range(stages[stage].missing)}" for stage in now_behind]
    reason = "; ".join(clauses) or (f"every stage has {max(expected.values(), key=grain.index)}" if expected else "")
    return Plan(behind=now_behind, alerts=tuple(alerts), ended=tuple(ended), reason=reason)


def _range(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more up to {keys[-1]}"


def expected_keys(spec: Product, now: datetime, hints: Mapping[str, str], closed: str | None = None) -> dict[str, str]:
    """Return, by stage, the newest key whose every source is overdue: it must be there.

    Batches have no deadline. Their labels are expected once the batch after the one they were due with is closed.

    Args:
        now: the product's moment.
        hints: what the previous call returned.
        closed: the newest closed key.
    """
    if spec.grain.instant_after(spec.grain.first) is None:
        due = -1 if closed is None else spec.grain.index(closed) - spec.label_delay - 1
        return {OUTCOMES: spec.grain.key_at(due)} if due >= 0 else {}
    keyed = [source for source in spec.feature_sources if not source.is_slow]

    def is_due(key: str) -> bool:
        moments = [spec.due_at(source, key) for source in keyed]
        return all(moment is not None and moment <= now for moment in moments)

    def is_labelled(key: str) -> bool:
        try:
            due_at = spec.due_at(spec.label_source, spec.grain.shift(key, spec.label_delay))
        except KeyProblem:
            return False
        return due_at is not None and due_at <= now

    data = closed_keys.last_key(spec.grain, is_due, hints.get(DECISION))
    labels = closed_keys.last_key(spec.grain, is_labelled, hints.get(OUTCOMES))
    stages = [*(naming.stage("validated", source.name) for source in keyed), "features", "predictions", DECISION]
    newest = dict.fromkeys(stages, data) | {OUTCOMES: labels}
    return {stage: key for stage, key in newest.items() if key is not None}


def stale_model(grain: Grain, policy: Retraining, *, newest: str | None, live_cutoff: str | None) -> str | None:
    """Return why the live model is older than the policy allows, or None."""
    if newest is None or live_cutoff is None or newest == grain.last:
        return None
    age = grain.index(newest) + 1 - grain.index(live_cutoff)
    limit = policy.max_age + policy.decide_every
    if age <= limit:
        return None
    return (
        f"the live model is {counted(age, 'key')} old; max_age is {policy.max_age} and a decision is due every "
        f"{counted(policy.decide_every, 'key')}."
    )
