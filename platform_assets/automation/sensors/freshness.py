"""Detect stale data and a stale model by the product's clock.

A stage is behind when it lacks a key up to the newest one whose every source is overdue; a gap in the middle counts.
Work under way is waited for. A stage that stays behind long enough raises one alert per episode, which ends when no key
is missing any more. Labels that were given up are no longer missing. Landed files that changed after their key was
closed raise alerts too (`changed_files`).
When the live model is older than its limit plus one decision interval, a decision is requested, once per release.

Dagster's own freshness policies know only the wall clock, so only live products get them (`freshness_policies`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from platform_assets.automation.alerting import episode_id
from platform_assets.automation.sensors import changed_files, closed_keys, ticks
from platform_assets.automation.sensors.gaps import DECISION, OUTCOMES, Gaps, find
from platform_assets.base import naming
from platform_assets.base.keys import Grain, KeyProblem
from platform_assets.base.wording import counted
from platform_assets.product.monitoring import Retraining
from platform_assets.product.spec import Product
from platform_assets.store.records.requests import REQUESTS, DecisionRequest

NAME = "freshness"
IDLE_TICKS = 4
"""Ticks without work under way before a stage that is behind raises an alert: runs take seconds to start."""
BUSY_TICKS = 240
"""Ticks in all before it does: work that goes on for so long produces nothing."""
REQUESTS_READ = 20


class Behind(ticks.State, frozen=True, kw_only=True):
    """A stage that is behind.

    Attributes:
        since: the first missing key.
        idle: ticks without work under way.
        ticks: ticks in all.
        is_alerted: whether an alert was raised.
    """

    since: str
    idle: int = 0
    ticks: int = 0
    is_alerted: bool = False


class State(ticks.State, frozen=True, kw_only=True):
    """What was learned about a product.

    Attributes:
        closed: the newest closed key.
        expected: by stage, the newest key that must be there.
        fresh: by stage, the last key up to which nothing is missing.
        behind: by name, the stages that are behind.
        requested: the release for which a decision was requested.
        files: those that changed.
    """

    closed: str | None = None
    expected: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    behind: dict[str, Behind] = field(default_factory=dict)
    requested: int = 0
    files: changed_files.State = changed_files.State()


@dataclass(frozen=True, kw_only=True)
class Notice:
    """An alert `stale` to raise, with its stage, id and text."""

    stage: str
    alert_id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows from a tick.

    Attributes:
        behind: by name, the stages that are behind.
        notices: the alerts to raise now.
        ended: ids of alerts about stages that lack nothing any more.
        reason: one clause.
    """

    behind: dict[str, Behind]
    notices: tuple[Notice, ...]
    ended: tuple[str, ...]
    reason: str


def plan(
    grain: Grain,
    expected: Mapping[str, str],
    stages: Mapping[str, Gaps],
    behind: Mapping[str, Behind],
    *,
    is_busy: bool,
) -> Plan:
    """Return which stages are behind, and the alerts to raise.

    Args:
        expected: by stage, the newest key that must be there.
        stages: by stage, what is there and what is missing.
        behind: of the previous tick.
        is_busy: whether a run is under way that may produce what is missing.
    """
    now_behind: dict[str, Behind] = {}
    notices, ended = list[Notice](), list[str]()
    for stage in expected:
        gaps, before = stages[stage], behind.get(stage)
        if not gaps.missing:
            if before and before.is_alerted:
                ended.append(episode_id("stale", stage, before.since))
            continue
        entry = before or Behind(since=gaps.missing[0])
        entry = replace(entry, ticks=entry.ticks + 1, idle=0 if is_busy else entry.idle + 1)
        if not entry.is_alerted and (entry.idle >= IDLE_TICKS or entry.ticks >= BUSY_TICKS):
            entry = replace(entry, is_alerted=True)
            alert_id = episode_id("stale", stage, entry.since)
            notices.append(Notice(stage=stage, alert_id=alert_id, text=_stale(stage, gaps)))
        now_behind[stage] = entry
    clauses = [f"{stage} lacks {_range(stages[stage].missing)}" for stage in now_behind]
    reason = "; ".join(clauses) or (f"every stage has {max(expected.values(), key=grain.index)}" if expected else "")
    return Plan(behind=now_behind, notices=tuple(notices), ended=tuple(ended), reason=reason)


def _stale(stage: str, gaps: Gaps) -> str:
    are = "is" if len(gaps.missing) == 1 else "are"
    newest = f"the newest key is {gaps.newest}" if gaps.newest else "none of the latest keys is there"
    text = f"{stage} is stale: {_range(gaps.missing)} {are} overdue, and {newest}."
    return text + (
        " Deliver the labels; after label_patience keys, models train without them." if stage == OUTCOMES else ""
    )


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


@ticks.Sensor(
    NAME,
    ticks.PerProduct(State),
    about="Raises alerts about stale data by the product's clock; requests a decision when the model is too old.",
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Check a product's stages, files and model."""
    spec, now = tick.spec, tick.now
    closed = closed_keys.newest(tick.history, spec.grain, state.closed)
    expected = expected_keys(spec, now, state.expected, closed)
    gaps, stages = _check_stages(tick, state, expected, closed)
    files = changed_files.alert_changes(tick, closed, state.files)
    model, requested = _check_model(tick, closed, state.requested)
    nothing = "no key is due yet" if spec.grain.instant_after(spec.grain.first) else "batches have no deadline"
    fresh = {stage: gap.whole for stage, gap in gaps.items() if gap.whole is not None}
    state = State(closed=closed, expected=expected, fresh=fresh, behind=stages.behind, requested=requested, files=files)
    clauses = (stages.reason or nothing, files.message, model)
    return ticks.Result(state=state, reason="; ".join(clause for clause in clauses if clause))


def _check_stages(
    tick: ticks.ProductTick, state: State, expected: Mapping[str, str], closed: str | None
) -> tuple[dict[str, Gaps], Plan]:
    """Find what each stage lacks; raise alerts for those that are behind now, or no longer."""
    since = {stage: behind.since for stage, behind in state.behind.items()}
    gaps = {
        stage: find(tick.product, stage, key, closed=closed, whole=state.fresh.get(stage), since=since.get(stage))
        for stage, key in expected.items()
    }
    is_busy = any(gap.missing for gap in gaps.values()) and tick.under_way("advance") is not None
    result = plan(tick.spec.grain, expected, gaps, state.behind, is_busy=is_busy)
    for notice in result.notices:
        stage, newest, missing = notice.stage, gaps[notice.stage].newest, list(gaps[notice.stage].missing)
        details = {"stage": stage, "expected": expected[stage], "newest": newest, "missing": missing}
        tick.raise_alert(notice.alert_id, kind="stale", text=notice.text, **details)
    for alert_id in result.ended:
        tick.end_alert(alert_id)
    return gaps, result


def _check_model(tick: ticks.ProductTick, closed: str | None, requested: int) -> tuple[str, int]:
    """Request a decision when the live model is too old, once per release; return a reason and the release's number."""
    latest = tick.history.live()
    if latest is None:
        return "", requested
    reason = stale_model(tick.spec.grain, tick.spec.retraining, newest=closed, live_cutoff=latest[1].cutoff)
    if closed is None or reason is None or requested == latest[0]:
        return reason or "", requested
    if not any(
        isinstance(request, DecisionRequest) and request.release == latest[0]
        for _, request in tick.history.newest_requests(REQUESTS_READ)
    ):
        at_utc = tick.now.isoformat()
        tick.product.ledgers.of(REQUESTS).append(
            DecisionRequest(key=closed, why=reason, by=NAME, release=latest[0], at_utc=at_utc)
        )
    return reason, latest[0]
