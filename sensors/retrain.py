"""Do what was decided: launch `retrain__product` for a cutoff, or call a person; once an episode.

Belongs here: following the recorded decisions in key order, and trying a training again. Does not belong here: deciding
(`compute.policy`), or judging and releasing (the run does both).

A training waits until no run advances keys and no request to advance them is open, so that the rows it sees follow from
the records alone. Decisions are read once, in order: a fault or a suspicion is told at once, a training joins those
that are pending, of which the oldest is under way until its run has ended. A challenger that lost is a success and
calls nobody. What else a decision says to a person is in `decision_alerts`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.compute import policy, releases
from platform_assets.history.reader import History
from platform_assets.keys import Grain
from platform_assets.records.decisions import DecidedFault, Decision
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.records import PartitionRecord
from resources.alerts import AlertsResource, episode_id
from resources.store import StoreResource
from sensors import changes, decision_alerts, episodes, ticks

VERB = "retrain"
MOST_DECISIONS = 400
"""How many recorded decisions one tick reads."""
PAUSES = (0, 2, 8, 32)
"""How many ticks the next attempt waits after the first, second ... one failed."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the decisions that were read ask for.

    Attributes:
        trainings: cutoffs to train for, oldest first, with the key of their decision.
        alerts: decisions about a fault or a suspicion.
        last: the newest decision that was read; None when there was none.
    """

    trainings: tuple[Mapping[str, str], ...]
    alerts: tuple[Decision, ...]
    last: Decision | None


def plan(grain: Grain, decisions: Sequence[Decision], *, live_cutoff: str | None) -> Plan:
    """Say what to do about decisions, oldest first.

    A training whose cutoff is not after the live model's is out of date: whoever lost the cursor reads it again.

    Args:
        grain: the product's.
        decisions: recorded ones, in key order.
        live_cutoff: of the live release; None when there is none.
    """
    trainings, alerts = [], []
    for decision in decisions:
        cutoff = decision.cutoff
        if decision.action in (policy.ALERT_FAULT, policy.SUSPECT):
            alerts.append(decision)
        elif decision.action == policy.RETRAIN and cutoff is not None and _is_after(grain, cutoff, live_cutoff):
            trainings.append({"key": decision.key, "cutoff": cutoff})
    return Plan(trainings=tuple(trainings), alerts=tuple(alerts), last=decisions[-1] if decisions else None)


def _is_after(grain: Grain, cutoff: str, live_cutoff: str | None) -> bool:
    return live_cutoff is None or grain.index(cutoff) > grain.index(live_cutoff)


def alert_of(decision: Decision) -> tuple[str, str, str]:
    """Return id, kind and text of the alert about a fault or a suspicion; one id an episode."""
    fault = decision.fault or DecidedFault(episode=decision.key)
    kind = "fault" if decision.action == policy.ALERT_FAULT else "suspect"
    parts = [part for part in (fault.source, fault.check) if part]
    return episode_id(kind, fault.episode, *parts), kind, " ".join(decision.reasons)


def build(specs: Iterable[ProductSpec], jobs: Sequence[Any]) -> dg.SensorDefinition:
    """Return the sensor.

    Args:
        specs: the products.
        jobs: `retrain__product` of each.
    """
    products = tuple(specs)

    @dg.sensor(
        name="retrain",
        jobs=list(jobs),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Executes each product's decisions: trains for a cutoff, or calls a person.",
    )
    def watch(context: dg.SensorEvaluationContext, store: StoreResource, alerts: AlertsResource) -> dg.SensorResult:
        def look(spec: ProductSpec, state: ticks.State) -> ticks.Seen:
            return _look(spec, state, context.instance, store, alerts)

        return ticks.patiently(lambda: ticks.evaluate(context, products, look), store.settings.sensor_patience_s)

    return watch


def _look(
    spec: ProductSpec, state: ticks.State, instance: dg.DagsterInstance, store: StoreResource, alerts: AlertsResource
) -> ticks.Seen:
    try:
        now = store.now(spec.name, is_live=spec.is_live)
    except LookupError as problem:
        return ticks.Seen(state=state, reason=str(problem))
    history = store.history(spec.name)
    decisions = _decisions(history, spec.grain, state.get("read"))
    if decisions:
        latest = history.live()
        found = plan(spec.grain, decisions, live_cutoff=latest[1].cutoff if latest else None)
        for decision in found.alerts:
            alert_id, kind, text = alert_of(decision)
            alerts.tell(spec.name, alert_id, kind=kind, text=text, at=now, details={"decision": decision.document()})
        told = decision_alerts.plan(spec.name, decisions, state.get("running", {}))
        for alert in told.alerts:
            details = {"decision": alert.decision.document()}
            alerts.tell(spec.name, alert.alert_id, kind=alert.kind, text=alert.text, at=now, details=details)
        assert found.last is not None
        state = {
            **state,
            "read": found.last.key,
            "running": {kind: dict(episode) for kind, episode in told.running.items()},
            "pending": [*state.get("pending", ()), *map(dict, found.trainings)],
            "said": f"{found.last.key}: {found.last.action}, {found.last.reasons[0]}",
        }
    if not state.get("pending"):
        return ticks.Seen(state=state, reason=state.get("said", "nothing was decided yet"))
    return _execute(spec, state, instance, store, alerts, now)


def _execute(
    spec: ProductSpec,
    state: ticks.State,
    instance: dg.DagsterInstance,
    store: StoreResource,
    alerts: AlertsResource,
    now: datetime,
) -> ticks.Seen:
    """Bring the oldest pending training one step further."""
    cutoff = state["pending"][0]["cutoff"]
    job, episode = naming.job(VERB, spec.name), f"retrain:{cutoff}"
    busy = episodes.under_way(instance, [job])
    if busy is not None:
        return ticks.Seen(state=state, reason=f"{cutoff}: {job} is {busy.status.value.lower()} (run {busy.run_id})")
    if unsettled := _unsettled(spec, instance, store):
        return ticks.Seen(state=state, reason=f"{cutoff}: waits until {unsettled}")
    step = episodes.next_step(
        episodes.tries_of(instance, job, episode),
        asked=state.get("asked", 0),
        ticks=state.get("ticks", 0),
        most=spec.retraining.max_attempts,
        pauses=PAUSES,
    )
    state = {**state, "ticks": step.ticks}
    told = f"{cutoff}: {step.reason}"
    if step.do == "launch" and step.attempt == 1 and "evaluation" in _recorded(store, spec.name, cutoff):
        step = episodes.Step(do="done", attempt=0, reason="was trained and judged before")
    if step.do == "launch":
        run = dg.RunRequest(
            # Unique among all products: the daemon knows the run keys of a sensor, whatever their job.
            run_key=f"{job}:{cutoff}:{step.attempt}",
            job_name=job,
            tags={"dagster/partition": cutoff, **episodes.tags(episode, step.attempt)},
        )
        return ticks.Seen(state={**state, "asked": step.attempt}, reason=told, requests=(run,))
    if step.do == "wait":
        return ticks.Seen(state=state, reason=told)
    if step.do == "give_up":
        text = f"the training of {spec.name} for cutoff {cutoff} is given up: {step.reason}."
        details = {"cutoff": cutoff, "attempts": step.attempt}
        alerts.tell(spec.name, episode_id("retrain", cutoff), kind="gave_up", text=text, at=now, details=details)
    else:
        told = f"{cutoff}: {outcome(store, spec.name, cutoff)}"
    rest = state["pending"][1:]
    return ticks.Seen(state={**state, "pending": rest, "asked": 0, "ticks": 0, "said": told}, reason=told)


def _unsettled(spec: ProductSpec, instance: dg.DagsterInstance, store: StoreResource) -> str | None:
    """Return what still changes rows that a training would read, or None: which rows it sees is no matter of luck."""
    job = naming.job("advance", spec.name)
    if (busy := episodes.under_way(instance, [job])) is not None:
        return f"{job} has ended (run {busy.run_id})"
    history = store.history(spec.name)
    asked, _ = changes.open_requests(history, history.answered())
    return f"request {asked[0][0]} was answered: {asked[0][1].why}" if asked else None


def outcome(store: StoreResource, product: str, cutoff: str) -> str:
    """Return what became of a training that succeeded, from the records: released, or the champion kept and why."""
    history = store.history(product)
    for number, record in history.newest_releases(3):
        if record.cutoff == cutoff and record.outcome == releases.RELEASED:
            return f"released as number {number}"
    sealed = _recorded(store, product, cutoff).get("onnx")
    verdict = history.verdict(sealed.content_digest) if sealed else None
    if verdict is None:
        return "trained; there is no verdict on record"
    return "was live already" if verdict.passed else f"kept_champion: {' '.join(verdict.reasons)}"


def _recorded(store: StoreResource, product: str, cutoff: str) -> dict[str, PartitionRecord]:
    """Return the records of a cutoff's model stages by stage, as far as they are there."""
    tables = store.tables(product)
    found = {stage: tables.records(stage, [cutoff]).get(cutoff) for stage in ("onnx", "evaluation")}
    return {stage: record for stage, record in found.items() if record is not None}


def _decisions(history: History, grain: Grain, read: str | None) -> list[Decision]:
    """Return the decisions after a key, in order, as far as one tick reads."""
    start = grain.index(read) + 1 if read is not None and grain.contains(read) else 0
    found: list[Decision] = []
    for place in range(start, start + MOST_DECISIONS):
        if grain.size is not None and place >= grain.size:
            break
        decision = history.decision(grain.key_at(place))
        if decision is None:
            break
        found.append(decision)
    return found
