"""Raise alerts about data that is late by the product's own clock, and ask for a decision when the model is too old.

`monitoring.staleness` decides which stages are behind, `data.changed_files` which landed files changed after their key
was closed: only the last closed keys are compared, and only now and then. A file in place of one that could not be
read is requested without a person, because nothing was taken in yet.
When the live model is older than its limit plus one decision interval, a decision is requested, once per release.

Dagster's own freshness policies know only the wall clock, so only live products get them (`freshness_policies`).
"""

import msgspec

from platform_assets.data import changed_files, closed_keys, key_changes, landed_marks, landing_reports
from platform_assets.monitoring import staleness
from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id
from platform_assets.sensors import ticks
from platform_assets.store.artifacts import sha256
from platform_assets.store.records.requests import REQUESTS, DecisionRequest

NAME = "freshness"
REQUESTS_READ = 20
LOOK_EVERY_S = 300.0
"""How often files are compared."""


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned about the files of a product's closed keys.

    Attributes:
        since_s: when all were compared last, by the wall clock; 0 for never.
        marks: the files whose mark differs.
        message: names those that changed.
    """

    since_s: float = 0.0
    marks: changed_files.Marks = msgspec.field(default_factory=dict)
    message: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
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
    expected: dict[str, str] = msgspec.field(default_factory=dict)
    fresh: dict[str, str] = msgspec.field(default_factory=dict)
    behind: dict[str, staleness.Behind] = msgspec.field(default_factory=dict)
    requested: int = 0
    files: Files = Files()


@ticks.Sensor(NAME, ticks.PerProduct(State), every_s=30)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Check a product's stages, files and model."""
    spec, now = tick.spec, tick.now
    closed = closed_keys.newest(tick.history, spec.grain, state.closed)
    expected = staleness.expected_keys(spec, now, state.expected, closed)
    since = {stage: behind.since for stage, behind in state.behind.items()}
    gaps = {
        stage: staleness.find(
            tick.product, stage, key, closed=closed, whole=state.fresh.get(stage), since=since.get(stage)
        )
        for stage, key in expected.items()
    }
    is_busy = any(gap.missing for gap in gaps.values()) and tick.under_way("advance") is not None
    stages = staleness.plan(spec.grain, expected, gaps, state.behind, is_busy=is_busy, now_s=tick.at_s)
    for alert in stages.alerts:
        tick.raise_alert(alert)
    for alert_id in stages.ended:
        tick.end_alert(alert_id)
    files = _compare_files(tick, closed, state.files)
    model, requested = _check_model(tick, closed, state.requested)
    nothing = "no key is due yet" if spec.grain.instant_after(spec.grain.first) else "batches have no deadline"
    fresh = {stage: gap.whole for stage, gap in gaps.items() if gap.whole is not None}
    state = State(closed=closed, expected=expected, fresh=fresh, behind=stages.behind, requested=requested, files=files)
    clauses = (stages.reason or nothing, files.message, model)
    return ticks.Result(state=state, reason="; ".join(clause for clause in clauses if clause))


def _compare_files(tick: ticks.ProductTick, closed: str | None, state: Files) -> Files:
    """Raise an alert per changed file until it is taken in; return the state for the next tick, with its message.

    Args:
        closed: the newest closed key.
        state: of the previous tick.
    """
    if closed is None or 0 <= tick.at_s - state.since_s < LOOK_EVERY_S:  # below 0: the clock was set back
        return state
    # A run under way may take files in.
    if tick.under_way("advance", "repair") is not None or key_changes.open_requests(tick.history)[0]:
        return state
    look = landed_marks.Marks(tick.product, tick.until_s, NAME)
    differences, marks, is_complete = changed_files.find(tick.product, closed, state.marks, look)
    for change in differences:
        source = tick.spec.source(change.source)
        landing_reports.observe(tick.context.instance, tick.spec, source, change.key, change.description)
        if change.is_gone:
            continue
        if change.is_first:
            reason = f"{change.source} of {change.key} was delivered again; the file before could not be read"
            key_changes.request(tick.product.ledgers, change.key, reason, tick.now)
            continue
        text = (
            f"{change.source} of {change.key} {change.description}. To take it in, launch "
            f"{tick.job('repair')} with the key and a reason."
        )
        alert_id, details = _alert_id(change.source, change.key, change.mark), {"source": change.source}
        tick.raise_alert(Alert(id=alert_id, kind=Kind.CHANGED, text=text, details={**details, "key": change.key}))
    for name, (before, is_other) in state.marks.items():
        if is_other and marks.get(name, ("",))[0] != before:  # taken in, changed again, or too old to look at
            source_name, _, key = name.partition(" ")
            tick.end_alert(_alert_id(source_name, key, before))
    names = [name for name, (_, is_other) in marks.items() if is_other]
    message = f"changed since they were taken in: {', '.join(names)}" if names else ""
    message = "; ".join([*filter(None, (message,)), *look.clauses(message)])
    return Files(since_s=tick.at_s if is_complete else state.since_s, marks=marks, message=message)


def _alert_id(source: str, key: str, mark: str) -> str:
    return episode_id("changed", source, key, sha256(mark.encode())[: changed_files.DIGITS])


def _check_model(tick: ticks.ProductTick, closed: str | None, requested: int) -> tuple[str, int]:
    """Request a decision when the live model is too old, once per release; return a reason and the release's number."""
    latest = tick.history.live()
    if latest is None:
        return "", requested
    reason = staleness.stale_model(tick.spec.grain, tick.spec.retraining, newest=closed, live_cutoff=latest[1].cutoff)
    if closed is None or reason is None or requested == latest[0]:
        return reason or "", requested
    if not any(
        isinstance(request, DecisionRequest) and request.release == latest[0]  # a cursor may be lost, a record not
        for _, request in tick.history.newest_requests(REQUESTS_READ)
    ):
        at_utc = tick.now.isoformat()
        tick.product.ledgers.of(REQUESTS).append(
            DecisionRequest(key=closed, why=reason, by=NAME, release=latest[0], at_utc=at_utc)
        )
    return reason, latest[0]
