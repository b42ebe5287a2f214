"""Execute decisions: launch `retrain__product` for a cutoff, or raise an alert, once per episode.

A training waits until no run advances keys and no request to advance them is open, so that the rows it reads follow
from the records alone. Decisions are read once, in order: a fault raises an alert at once; a training is
appended to the pending ones, of which the oldest runs until it has ended. A challenger that lost is a success and
raises no alert. `decision_alerts` finds the other alerts that decisions call for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from msgspec import field
from msgspec.structs import replace

from platform_assets.automation.alerting import episode_id
from platform_assets.automation.sensors import changes, closed_keys, decision_alerts, episodes, renewals, ticks
from platform_assets.base import naming
from platform_assets.base.keys import Grain
from platform_assets.evaluation import releases
from platform_assets.monitoring import policy
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.decisions import DecidedFault, Decision

VERB = "retrain"
FAULT = "fault"
MOST_DECISIONS = 400
"""How many recorded decisions one tick reads."""
PAUSES = (0, 2, 8, 32)
"""Ticks to wait after the first, second ... failed attempt; the last value repeats."""


class Training(ticks.State, frozen=True, kw_only=True):
    """A cutoff to train for, and the key of its decision."""

    key: str
    cutoff: str


class State(ticks.State, frozen=True, kw_only=True):
    """How far a product's decisions were followed.

    Attributes:
        read: the key of the last decision that was read.
        running: by kind, the alerts' episodes that go on.
        pending: trainings whose run has neither succeeded nor been given up, oldest first.
        requested, ticks: of the oldest one's episode, see `episodes.next_step`.
        failing: the last cutoff whose training was given up, until another one succeeds.
        older: id of the alert about keys of an earlier version that the oldest one waits for.
        reason: the reason while no training is pending.
    """

    read: str | None = None
    running: dict[str, decision_alerts.Episode] = field(default_factory=dict)
    pending: tuple[Training, ...] = ()
    requested: int = 0
    ticks: int = 0
    failing: str = ""
    older: str = ""
    reason: str = "no decision yet"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decisions ask for.

    Attributes:
        trainings: oldest first.
        alerts: decisions about a fault.
    """

    trainings: tuple[Training, ...]
    alerts: tuple[Decision, ...]


def plan(grain: Grain, decisions: Sequence[Decision], *, live_cutoff: str | None) -> Plan:
    """Return what to do about decisions.

    A training whose cutoff is not after the live model's is out of date: a sensor that lost its cursor reads it again.

    Args:
        decisions: in key order.
        live_cutoff: of the live release; None when there is none.
    """
    trainings, alerts, live = [], [], -1 if live_cutoff is None else grain.index(live_cutoff)
    for decision in decisions:
        cutoff = decision.cutoff
        if decision.action == policy.ALERT_FAULT:
            alerts.append(decision)
        elif decision.action == policy.RETRAIN and cutoff is not None and grain.index(cutoff) > live:
            trainings.append(Training(key=decision.key, cutoff=cutoff))
    return Plan(trainings=tuple(trainings), alerts=tuple(alerts))


def alert_of(decision: Decision) -> decision_alerts.Alert:
    """Return the alert about a fault; one id per episode."""
    fault = decision.fault or DecidedFault(episode=decision.key)
    parts = [part for part in (fault.source, fault.check) if part]
    alert_id, text = episode_id("fault", fault.episode, *parts), " ".join(decision.reasons)
    return decision_alerts.Alert(alert_id=alert_id, kind=FAULT, text=text, decision=decision)


@ticks.Sensor(
    "retrain",
    ticks.PerProduct(State),
    about="Executes each product's decisions: trains for a cutoff, or raises an alert.",
    every_s=1,
    verb=VERB,
    is_patient=True,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Follow a product's decisions."""
    _ = tick.now  # there is nothing to follow while the clock of a recording is not set
    if decisions := closed_keys.decisions(tick.history, tick.spec.grain, state.read, MOST_DECISIONS):
        state = _follow(tick, state, decisions)
    if state.failing and episodes.is_succeeded(tick.instance, tick.job(VERB), _episode(state.failing)):
        tick.end_alert(episode_id("retrain", state.failing))
        state = replace(state, failing="")
    return _execute(tick, state) if state.pending else ticks.Result(state=state, reason=state.reason)


def _follow(tick: ticks.ProductTick, state: State, decisions: Sequence[Decision]) -> State:
    """Raise the alerts of decisions, and append their trainings to the pending ones."""
    latest = tick.history.live()
    work = plan(tick.spec.grain, decisions, live_cutoff=latest[1].cutoff if latest else None)
    outcome = decision_alerts.plan(tick.spec.name, decisions, state.running)
    for alert in (*map(alert_of, work.alerts), *outcome.alerts):
        fault = (
            alert.decision.fault.present(("source", "check")) if alert.kind == FAULT and alert.decision.fault else {}
        )
        details = {**fault, "decision": alert.decision.document()}
        tick.raise_alert(alert.alert_id, kind=alert.kind, text=alert.text, **details)
    for alert_id in outcome.ended:
        tick.end_alert(alert_id)
    last = decisions[-1]
    return replace(
        state,
        read=last.key,
        running=outcome.running,
        pending=(*state.pending, *work.trainings),
        reason=f"{last.key}: {last.action}, {last.reasons[0]}",
    )


def _execute(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Bring the oldest pending training one step further."""
    cutoff, spec = state.pending[0].cutoff, tick.spec
    job, episode = tick.job(VERB), _episode(cutoff)
    busy = tick.under_way(VERB)
    if busy is not None:
        return ticks.Result(state=state, reason=f"{cutoff}: {job} is {busy.status.value.lower()} (run {busy.run_id})")
    if unsettled := _unsettled(tick):
        return ticks.Result(state=state, reason=f"{cutoff}: waits until {unsettled}")
    wait_reason, older = renewals.reason_to_wait(tick, cutoff) or ("", "")
    if state.older not in ("", older):
        tick.end_alert(state.older)
    state = replace(state, older=older)
    if wait_reason:
        return ticks.Result(state=state, reason=f"{cutoff}: {wait_reason}")
    tries, most = episodes.tries_of(tick.instance, job, episode), spec.retraining.max_attempts
    step = episodes.next_step(tries, requested=state.requested, ticks=state.ticks, most=most, pauses=PAUSES)
    state = replace(state, ticks=step.ticks)
    reason = f"{cutoff}: {step.reason}"
    if step.action == "launch" and step.attempt == 1 and "evaluation" in _model_records(tick.product, cutoff):
        step = episodes.Step(action="done", attempt=0, reason="was trained and evaluated before")
    if step.action == "launch":
        run = dg.RunRequest(
            # Unique across products: the daemon compares run keys per sensor, whatever the job.
            run_key=f"{job}:{cutoff}:{step.attempt}",
            job_name=job,
            tags={
                "dagster/partition": cutoff,
                naming.TAG_KEYS: f"before {cutoff}",
                **episodes.tags(episode, step.attempt),
            },
        )
        return ticks.Result(state=replace(state, requested=step.attempt), reason=reason, requests=(run,))
    if step.action == "wait":
        return ticks.Result(state=state, reason=reason)
    if step.action == "give_up":
        text = (
            f"the training of {spec.name} for cutoff {cutoff} was given up: {step.reason}. Fix what that run shows; "
            f"then launch {job} for {cutoff}: it is not tried again by itself."
        )
        alert_id = episode_id("retrain", cutoff)
        tick.raise_alert(alert_id, kind="gave_up", text=text, job=job, cutoff=cutoff, attempts=step.attempt)
        if state.failing not in ("", cutoff):
            tick.end_alert(episode_id("retrain", state.failing))
        state = replace(state, failing=cutoff)
    else:
        reason = f"{cutoff}: {describe_result(tick.product, cutoff)}"
    state = replace(state, pending=state.pending[1:], requested=0, ticks=0, reason=reason)
    return ticks.Result(state=state, reason=reason)


def _episode(cutoff: str) -> str:
    return f"retrain:{cutoff}"


def _unsettled(tick: ticks.ProductTick) -> str | None:
    """Return what must happen before training, or None: otherwise the rows that it reads would depend on timing."""
    if (busy := tick.under_way("advance")) is not None:
        return f"{busy.job_name} has ended (run {busy.run_id})"
    requests, _ = changes.open_requests(tick.history)
    return f"request {requests[0][0]} is answered: {requests[0][1].why}" if requests else None


def describe_result(product: ProductStore, cutoff: str) -> str:
    """Return the result of a training that succeeded, from the records: released, or the champion kept and why."""
    history = product.history
    for number, record in history.newest_releases(3):
        if record.cutoff == cutoff and record.outcome == releases.RELEASED:
            return f"released as number {number}"
    sealed = _model_records(product, cutoff).get("onnx")
    verdict = history.verdict(sealed.content_digest) if sealed else None
    if verdict is None:
        return "trained; no verdict is on record"
    refusal = history.refusal()
    if refusal is not None and refusal.digest == verdict.digest:
        return f"champion kept: {refusal.reason}"
    return "was already live" if verdict.passed else f"champion kept: {' '.join(verdict.reasons)}"


def _model_records(product: ProductStore, cutoff: str) -> dict[str, PartitionRecord]:
    """Return the records of a cutoff's model stages that exist, by stage."""
    tables = product.tables
    records = {stage: tables.records(stage, [cutoff]).get(cutoff) for stage in ("onnx", "evaluation")}
    return {stage: record for stage, record in records.items() if record is not None}
