"""Tell stale data and a stale model: the newest key of each stage against the product's clock.

Belongs here: what the clock lets expect, and when being behind becomes an alert. Does not belong here: mending it
(`landings` closes keys, a decision trains), or the wall clock: Dagster's own policies know nothing else, and are
added to live products in `freshness_policies`.

A stage is behind when its newest key is older than the newest key whose every source is overdue. Work under way is
waited for. Once behind for long enough it is told, once an episode, and once more when it is mended. A model that is
older than its limit and one more decision asks for a decision, once a release.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.keys import Grain, KeyProblem
from platform_assets.specs.base import ProductSpec
from platform_assets.specs.monitoring import Retraining
from resources.alerts import AlertsResource, episode_id
from resources.store import StoreResource
from sensors import closed_keys, episodes, ticks

NAME = "freshness"
DECISION, OUTCOMES = "decision", "outcomes"
IDLE_TICKS = 4
"""For how many ticks without work under way a stage may be behind before it is told: runs take seconds to start."""
BUSY_TICKS = 240
"""And for how many in all: work that goes on for so long brings nothing."""
KEYS_BACK, KEYS_ON = 31, 8
"""Around the expected key the newest one is looked for so many keys back and on."""
REQUESTS_READ = 20


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something to tell: `stale` or `mended`, of which stage, with the alert's id and text."""

    kind: str
    stage: str
    alert_id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a tick found.

    Attributes:
        behind: the stages that are, by name: since which expected key, for how many ticks, whether it is told.
        notices: what is to be told now.
        reason: one clause.
    """

    behind: Mapping[str, Mapping[str, Any]]
    notices: tuple[Notice, ...]
    reason: str


def plan(
    grain: Grain,
    expected: Mapping[str, str],
    newest: Mapping[str, str | None],
    behind: Mapping[str, Mapping[str, Any]],
    *,
    is_busy: bool,
) -> Plan:
    """Say which stages are behind, and what is to be told.

    Args:
        grain: the product's.
        expected: by stage, the key that the clock lets expect.
        newest: by stage, the newest key that is there.
        behind: from the tick before.
        is_busy: whether a run is under way that may bring what is missing.
    """
    now_behind: dict[str, Mapping[str, Any]] = {}
    notices = []
    for stage, key in expected.items():
        there = newest.get(stage)
        before = behind.get(stage)
        if there is not None and grain.index(there) >= grain.index(key):
            if before and before["is_told"]:
                alert_id = episode_id("stale", stage, before["since"], "mended")
                notices.append(
                    Notice(
                        kind="mended", stage=stage, alert_id=alert_id, text=f"{stage} is fresh again, up to {there}."
                    )
                )
            continue
        entry = dict(before or {"since": key, "idle": 0, "ticks": 0, "is_told": False})
        entry["ticks"] += 1
        entry["idle"] = 0 if is_busy else entry["idle"] + 1
        if not entry["is_told"] and (entry["idle"] >= IDLE_TICKS or entry["ticks"] >= BUSY_TICKS):
            entry["is_told"] = True
            text = f"{stage} is stale: {key} is overdue, and the newest key is {there or 'none of the last'}."
            alert_id = episode_id("stale", stage, entry["since"])
            notices.append(Notice(kind="stale", stage=stage, alert_id=alert_id, text=text))
        now_behind[stage] = entry
    told = [f"{stage} lacks {expected[stage]}" for stage in now_behind]
    reason = "; ".join(told) or (f"every stage has {max(expected.values(), key=grain.index)}" if expected else "")
    return Plan(behind=now_behind, notices=tuple(notices), reason=reason)


def expected_keys(spec: ProductSpec, now: datetime, hints: Mapping[str, str]) -> dict[str, str]:
    """Return by stage the newest key whose every source is overdue: it must be there. Empty for batches.

    Args:
        spec: the product.
        now: its moment.
        hints: what this returned before.
    """
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
    found = dict.fromkeys(stages, data) | {OUTCOMES: labels}
    return {stage: key for stage, key in found.items() if key is not None}


def stale_model(grain: Grain, policy: Retraining, *, newest: str | None, live_cutoff: str | None) -> str | None:
    """Return why the live model is older than it may ever get, or None."""
    if newest is None or live_cutoff is None or newest == grain.last:
        return None
    age = grain.index(newest) + 1 - grain.index(live_cutoff)
    limit = policy.max_age + policy.decide_every
    if age <= limit:
        return None
    return (
        f"the live model is {age} keys old; {policy.max_age} is the limit, and a decision is due every "
        f"{policy.decide_every}."
    )


def build(specs: Iterable[ProductSpec]) -> dg.SensorDefinition:
    """Return the sensor."""
    products = tuple(specs)

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells stale data by the product's clock, and asks for a decision when the model is too old.",
    )
    def watch(context: dg.SensorEvaluationContext, store: StoreResource, alerts: AlertsResource) -> dg.SensorResult:
        def look(spec: ProductSpec, state: ticks.State) -> ticks.Seen:
            return _look(spec, state, context.instance, store, alerts)

        return ticks.evaluate(context, products, look)

    return watch


def _look(
    spec: ProductSpec, state: ticks.State, instance: dg.DagsterInstance, store: StoreResource, alerts: AlertsResource
) -> ticks.Seen:
    try:
        now = store.now(spec.name, is_live=spec.is_live)
    except LookupError as problem:
        return ticks.Seen(state=state, reason=str(problem))
    closed = closed_keys.newest(store.ledgers(spec.name), spec.grain, state.get("closed"))
    expected = expected_keys(spec, now, state.get("expected", {}))
    fresh = state.get("fresh", {})
    newest = {stage: _newest(spec, store, stage, key, closed, fresh.get(stage)) for stage, key in expected.items()}
    behind = state.get("behind", {})
    is_late = any(
        key is None or spec.grain.index(key) < spec.grain.index(expected[stage]) for stage, key in newest.items()
    )
    busy = episodes.under_way(instance, [naming.job("advance", spec.name)]) if is_late else None
    found = plan(spec.grain, expected, newest, behind, is_busy=busy is not None)
    for notice in found.notices:
        details = {"stage": notice.stage, "expected": expected[notice.stage], "newest": newest[notice.stage]}
        alerts.tell(spec.name, notice.alert_id, kind=notice.kind, text=notice.text, at=now, details=details)
    told, asked = _model(spec, store, closed, now, state.get("asked", 0))
    state = {
        "closed": closed,
        "expected": expected,
        "fresh": {stage: key for stage, key in newest.items() if stage not in found.behind},
        "behind": {stage: dict(entry) for stage, entry in found.behind.items()},
        "asked": asked,
    }
    nothing = (
        "the clock lets nothing be expected"
        if spec.grain.instant_after(spec.grain.first)
        else "batches come when they come"
    )
    return ticks.Seen(state=state, reason="; ".join(part for part in (found.reason or nothing, told) if part))


def _newest(
    spec: ProductSpec, store: StoreResource, stage: str, expected: str, closed: str | None, known: str | None
) -> str | None:
    """Return the newest key of a stage around the expected one; nothing is read when it is known to be there."""
    grain = spec.grain
    if stage == DECISION:
        return closed
    if known is not None and grain.contains(known) and grain.index(known) >= grain.index(expected):
        return known
    place = grain.index(expected)
    end = place + KEYS_ON if grain.size is None else min(place + KEYS_ON, grain.size - 1)
    keys = [grain.key_at(at) for at in range(max(0, place - KEYS_BACK), end + 1)]
    return max(store.tables(spec.name).records(stage, keys), key=grain.index, default=None)


def _model(spec: ProductSpec, store: StoreResource, closed: str | None, now: datetime, asked: int) -> tuple[str, int]:
    """Ask for a decision when the live model is too old, once a release; return what to say, and for which release."""
    ledgers = store.ledgers(spec.name)
    latest = ledgers.latest(naming.RELEASES)
    if latest is None:
        return "", asked
    why = stale_model(spec.grain, spec.retraining, newest=closed, live_cutoff=latest[1]["cutoff"])
    if why is None or asked == latest[0]:
        return why or "", asked
    before = [record.get("release") for _, record in ledgers.newest(naming.REQUESTS, REQUESTS_READ)]
    if latest[0] not in before:
        request = {"kind": "decision", "key": closed, "why": why, "by": NAME, "release": latest[0]}
        ledgers.append(naming.REQUESTS, {**request, "at_utc": now.isoformat()})
    return why, latest[0]
