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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from platform_assets import naming
from platform_assets.keys import Grain, KeyProblem
from platform_assets.product.monitoring import Retraining
from platform_assets.records.asked import REQUESTS, DecisionRequest
from platform_assets.specs.base import ProductSpec
from resources.alerts import episode_id
from sensors import changed_files, closed_keys, ticks
from sensors.gaps import DECISION, OUTCOMES, Gaps, find

NAME = "freshness"
IDLE_TICKS = 4
"""For how many ticks without work under way a stage may be behind before it is told: runs take seconds to start."""
BUSY_TICKS = 240
"""And for how many in all: work that goes on for so long brings nothing."""
REQUESTS_READ = 20


class Behind(ticks.State, frozen=True, kw_only=True):
    """A stage that is behind.

    Attributes:
        since: the first key that was missing.
        idle: for how many ticks without work under way.
        ticks: for how many ticks in all.
        is_told: whether a person was told.
    """

    since: str
    idle: int = 0
    ticks: int = 0
    is_told: bool = False


class State(ticks.State, frozen=True, kw_only=True):
    """What was found of a product.

    Attributes:
        closed: the newest closed key.
        expected: by stage, the key that the clock lets expect.
        fresh: by stage, the last key up to which nothing is missing.
        behind: the stages that are, by name.
        asked: the release for which a decision was asked for.
        files: of those that changed.
    """

    closed: str | None = None
    expected: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    behind: dict[str, Behind] = field(default_factory=dict)
    asked: int = 0
    files: changed_files.State = changed_files.State()


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
        behind: the stages that are, by name.
        notices: what is to be told now.
        reason: one clause.
    """

    behind: dict[str, Behind]
    notices: tuple[Notice, ...]
    reason: str


def plan(
    grain: Grain, expected: Mapping[str, str], found: Mapping[str, Gaps], behind: Mapping[str, Behind], *, is_busy: bool
) -> Plan:
    """Say which stages are behind, and what is to be told.

    Args:
        grain: the product's.
        expected: by stage, the key that the clock lets expect.
        found: by stage, what is there and what is missing.
        behind: from the tick before.
        is_busy: whether a run is under way that may bring what is missing.
    """
    now_behind: dict[str, Behind] = {}
    notices = []
    for stage in expected:
        gaps, before = found[stage], behind.get(stage)
        if not gaps.missing:
            # Labels that were given up end an episode without a word here: the decision that did so told it.
            if before and before.is_told and not gaps.given_up:
                alert_id = episode_id("stale", stage, before.since, "mended")
                text = f"{stage} is fresh again, up to {gaps.newest}."
                notices.append(Notice(kind="mended", stage=stage, alert_id=alert_id, text=text))
            continue
        entry = before or Behind(since=gaps.missing[0])
        entry = replace(entry, ticks=entry.ticks + 1, idle=0 if is_busy else entry.idle + 1)
        if not entry.is_told and (entry.idle >= IDLE_TICKS or entry.ticks >= BUSY_TICKS):
            entry = replace(entry, is_told=True)
            alert_id = episode_id("stale", stage, entry.since)
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


@ticks.Sensor(
    NAME,
    ticks.PerProduct(State),
    about="Tells stale data by the product's clock, and asks for a decision when the model is too old.",
    needs=("store", "alerts"),
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Seen[State]:
    """Look at a product's stages, files and model."""
    spec, now = tick.spec, tick.now
    closed = closed_keys.newest(tick.history, spec.grain, state.closed)
    expected = expected_keys(spec, now, state.expected, closed)
    gaps, found = _stages(tick, state, expected, closed)
    files = changed_files.tell(tick, closed, state.files)
    told, asked = _model(tick, closed, state.asked)
    nothing = (
        "the clock lets nothing be expected"
        if spec.grain.instant_after(spec.grain.first)
        else "batches come when they come"
    )
    fresh = {stage: each.whole for stage, each in gaps.items() if each.whole is not None}
    state = State(closed=closed, expected=expected, fresh=fresh, behind=found.behind, asked=asked, files=files)
    said = (found.reason or nothing, files.told, told)
    return ticks.Seen(state=state, reason="; ".join(part for part in said if part))


def _stages(
    tick: ticks.ProductTick, state: State, expected: Mapping[str, str], closed: str | None
) -> tuple[dict[str, Gaps], Plan]:
    """Find what each stage lacks, and tell those that are behind or are no longer."""
    since = {stage: each.since for stage, each in state.behind.items()}
    gaps = {
        stage: find(tick.product, stage, key, closed=closed, whole=state.fresh.get(stage), since=since.get(stage))
        for stage, key in expected.items()
    }
    is_busy = any(each.missing for each in gaps.values()) and tick.under_way("advance") is not None
    found = plan(tick.spec.grain, expected, gaps, state.behind, is_busy=is_busy)
    for notice in found.notices:
        stage, newest, missing = notice.stage, gaps[notice.stage].newest, list(gaps[notice.stage].missing)
        details = {"stage": stage, "expected": expected[stage], "newest": newest, "missing": missing}
        tick.tell(notice.alert_id, kind=notice.kind, text=notice.text, **details)
    return gaps, found


def _model(tick: ticks.ProductTick, closed: str | None, asked: int) -> tuple[str, int]:
    """Ask for a decision when the live model is too old, once a release; return what to say, and for which release."""
    latest = tick.history.live()
    if latest is None:
        return "", asked
    why = stale_model(tick.spec.grain, tick.spec.retraining, newest=closed, live_cutoff=latest[1].cutoff)
    if closed is None or why is None or asked == latest[0]:
        return why or "", asked
    if not any(
        isinstance(request, DecisionRequest) and request.release == latest[0]
        for _, request in tick.history.newest_requests(REQUESTS_READ)
    ):
        at_utc = tick.now.isoformat()
        tick.product.ledgers.of(REQUESTS).append(
            DecisionRequest(key=closed, why=why, by=NAME, release=latest[0], at_utc=at_utc)
        )
    return why, latest[0]
