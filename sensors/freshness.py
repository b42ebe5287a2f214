"""Tell stale data and a stale model: the keys of each stage against the product's clock.

Belongs here: what the clock lets expect, and when being behind becomes an alert. Does not belong here: finding what is
missing (`gaps`), mending it (`landings` closes keys, a decision trains), or the wall clock: Dagster's own policies know
nothing else, and are added to live products in `freshness_policies`.

A stage is behind when it lacks a key up to the newest one whose every source is overdue, also one in the middle. Work
under way is waited for. Once behind for long enough it is told, once an episode, and once more when no key is missing.
Landed files that changed after their key was closed are told too (`changed_files`).
Labels that were given up are missed no longer, and an episode that ends so is not told to be mended. A model that is
older than its limit and one more decision asks for a decision, once a release.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.keys import Grain, KeyProblem
from platform_assets.product.monitoring import Retraining
from platform_assets.records.asked import REQUESTS, DecisionRequest
from platform_assets.specs.base import ProductSpec
from resources.alerts import AlertsResource, episode_id
from resources.store import StoreResource
from sensors import changed_files, closed_keys, episodes, ticks
from sensors.gaps import DECISION, OUTCOMES, Gaps, find

NAME = "freshness"
IDLE_TICKS = 4
"""For how many ticks without work under way a stage may be behind before it is told: runs take seconds to start."""
BUSY_TICKS = 240
"""And for how many in all: work that goes on for so long brings nothing."""
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
        behind: the stages that are, by name: since which key, for how many ticks, whether it is told.
        notices: what is to be told now.
        reason: one clause.
    """

    behind: Mapping[str, Mapping[str, Any]]
    notices: tuple[Notice, ...]
    reason: str


def plan(
    grain: Grain,
    expected: Mapping[str, str],
    found: Mapping[str, Gaps],
    behind: Mapping[str, Mapping[str, Any]],
    *,
    is_busy: bool,
) -> Plan:
    """Say which stages are behind, and what is to be told.

    Args:
        grain: the product's.
        expected: by stage, the key that the clock lets expect.
        found: by stage, what is there and what is missing.
        behind: from the tick before.
        is_busy: whether a run is under way that may bring what is missing.
    """
    now_behind: dict[str, Mapping[str, Any]] = {}
    notices = []
    for stage in expected:
        gaps, before = found[stage], behind.get(stage)
        if not gaps.missing:
            # Labels that were given up end an episode without a word here: the decision that did so told it.
            if before and before["is_told"] and not gaps.given_up:
                alert_id = episode_id("stale", stage, before["since"], "mended")
                text = f"{stage} is fresh again, up to {gaps.newest}."
                notices.append(Notice(kind="mended", stage=stage, alert_id=alert_id, text=text))
            continue
        entry = dict(before or {"since": gaps.missing[0], "idle": 0, "ticks": 0, "is_told": False})
        entry["ticks"] += 1
        entry["idle"] = 0 if is_busy else entry["idle"] + 1
        if not entry["is_told"] and (entry["idle"] >= IDLE_TICKS or entry["ticks"] >= BUSY_TICKS):
            entry["is_told"] = True
            alert_id = episode_id("stale", stage, entry["since"])
            notices.append(Notice(kind="stale", stage=stage, alert_id=alert_id, text=_stale(stage, gaps)))
        now_behind[stage] = entry
    told = [f"{stage} lacks {_named(found[stage].missing)}" for stage in now_behind]
    reason = "; ".join(told) or (f"every stage has {max(expected.values(), key=grain.index)}" if expected else "")
    return Plan(behind=now_behind, notices=tuple(notices), reason=reason)


def _stale(stage: str, gaps: Gaps) -> str:
    are = "is" if len(gaps.missing) == 1 else "are"
    text = f"{stage} is stale: {_named(gaps.missing)} {are} overdue, and the newest key is "
    text += f"{gaps.newest or 'none of the last'}."
    return text + (
        " Deliver the labels; after label_patience keys trainings go on without." if stage == OUTCOMES else ""
    )


def _named(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more up to {keys[-1]}"


def expected_keys(
    spec: ProductSpec, now: datetime, hints: Mapping[str, str], closed: str | None = None
) -> dict[str, str]:
    """Return by stage the newest key whose every source is overdue: it must be there.

    Batches have no deadline. Their labels are expected when the batch after the one that they were due with was closed.

    Args:
        spec: the product.
        now: its moment.
        hints: what this returned before.
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
    closed = closed_keys.newest(store.history(spec.name), spec.grain, state.get("closed"))
    expected = expected_keys(spec, now, state.get("expected", {}), closed)
    fresh, behind = state.get("fresh", {}), state.get("behind", {})
    gaps = {
        stage: find(
            spec,
            store,
            stage,
            key,
            closed=closed,
            whole=fresh.get(stage),
            since=behind[stage]["since"] if stage in behind else None,
        )
        for stage, key in expected.items()
    }
    is_late = any(each.missing for each in gaps.values())
    busy = episodes.under_way(instance, [naming.job("advance", spec.name)]) if is_late else None
    found = plan(spec.grain, expected, gaps, behind, is_busy=busy is not None)
    for notice in found.notices:
        of_stage = gaps[notice.stage]
        details = {
            "stage": notice.stage,
            "expected": expected[notice.stage],
            "newest": of_stage.newest,
            "missing": list(of_stage.missing),
        }
        alerts.tell(spec.name, notice.alert_id, kind=notice.kind, text=notice.text, at=now, details=details)
    jobs = [naming.job(verb, spec.name) for verb in ("advance", "repair")]
    changed, files = changed_files.tell(
        spec,
        store,
        alerts,
        closed,
        now,
        state.get("files", {}),
        is_busy=lambda: episodes.under_way(instance, jobs) is not None,
    )
    told, asked = _model(spec, store, closed, now, state.get("asked", 0))
    state = {
        "closed": closed,
        "expected": expected,
        "fresh": {stage: each.whole for stage, each in gaps.items() if each.whole is not None},
        "behind": {stage: dict(entry) for stage, entry in found.behind.items()},
        "asked": asked,
        "files": files,
    }
    nothing = (
        "the clock lets nothing be expected"
        if spec.grain.instant_after(spec.grain.first)
        else "batches come when they come"
    )
    return ticks.Seen(state=state, reason="; ".join(part for part in (found.reason or nothing, changed, told) if part))


def _model(spec: ProductSpec, store: StoreResource, closed: str | None, now: datetime, asked: int) -> tuple[str, int]:
    """Ask for a decision when the live model is too old, once a release; return what to say, and for which release."""
    history = store.history(spec.name)
    latest = history.live()
    if latest is None:
        return "", asked
    why = stale_model(spec.grain, spec.retraining, newest=closed, live_cutoff=latest[1].cutoff)
    if closed is None or why is None or asked == latest[0]:
        return why or "", asked
    if not any(
        isinstance(request, DecisionRequest) and request.release == latest[0]
        for _, request in history.newest_requests(REQUESTS_READ)
    ):
        at_utc = now.isoformat()
        store.ledgers(spec.name).of(REQUESTS).append(
            DecisionRequest(key=closed, why=why, by=NAME, release=latest[0], at_utc=at_utc)
        )
    return why, latest[0]
