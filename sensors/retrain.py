"""Do what was decided: launch `retrain__product` for a cutoff, or call a person; once an episode.

Belongs here: following the recorded decisions in key order, and trying a training again. Does not belong here: deciding
(`compute.policy`), or judging and releasing (the run does both).

A training waits until no run advances keys and no request to advance them is open, so that the rows it sees follow from
the records alone. Decisions are read once, in order: a fault or a suspicion is told at once, a training joins those
that are pending, of which the oldest is under way until its run has ended. A challenger that lost is a success and
calls nobody. What else a decision says to a person is in `decision_alerts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from msgspec import field
from msgspec.structs import replace

from platform_assets.compute import policy, releases
from platform_assets.handle import Product
from platform_assets.history.reader import History
from platform_assets.keys import Grain
from platform_assets.records.decisions import DecidedFault, Decision
from platform_assets.storage.records import PartitionRecord
from resources.alerts import episode_id
from sensors import changes, closed_keys, decision_alerts, episodes, ticks

VERB = "retrain"
MOST_DECISIONS = 400
"""How many recorded decisions one tick reads."""
PAUSES = (0, 2, 8, 32)
"""How many ticks the next attempt waits after the first, second ... one failed."""


class Training(ticks.State, frozen=True, kw_only=True):
    """A cutoff to train for, and the key of its decision."""

    key: str
    cutoff: str


class State(ticks.State, frozen=True, kw_only=True):
    """How far a product's decisions were followed.

    Attributes:
        read: the key of the last decision that was read.
        running: what decisions tell a person: the episodes that go on, by kind.
        pending: trainings whose run has not ended well or been given up, oldest first.
        asked, ticks: of the oldest one's episode, see `episodes.next_step`.
        said: the reason while no training is pending.
    """

    read: str | None = None
    running: dict[str, decision_alerts.Episode] = field(default_factory=dict)
    pending: tuple[Training, ...] = ()
    asked: int = 0
    ticks: int = 0
    said: str = "nothing was decided yet"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the decisions that were read ask for.

    Attributes:
        trainings: oldest first.
        alerts: decisions about a fault or a suspicion.
    """

    trainings: tuple[Training, ...]
    alerts: tuple[Decision, ...]


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
            trainings.append(Training(key=decision.key, cutoff=cutoff))
    return Plan(trainings=tuple(trainings), alerts=tuple(alerts))


def _is_after(grain: Grain, cutoff: str, live_cutoff: str | None) -> bool:
    return live_cutoff is None or grain.index(cutoff) > grain.index(live_cutoff)


def alert_of(decision: Decision) -> decision_alerts.Alert:
    """Return the alert about a fault or a suspicion; one id an episode."""
    fault = decision.fault or DecidedFault(episode=decision.key)
    kind = "fault" if decision.action == policy.ALERT_FAULT else "suspect"
    parts = [part for part in (fault.source, fault.check) if part]
    alert_id, text = episode_id(kind, fault.episode, *parts), " ".join(decision.reasons)
    return decision_alerts.Alert(alert_id=alert_id, kind=kind, text=text, decision=decision)


@ticks.Sensor(
    "retrain",
    ticks.PerProduct(State),
    about="Executes each product's decisions: trains for a cutoff, or calls a person.",
    every_s=1,
    needs=("store", "alerts"),
    verb=VERB,
    is_patient=True,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Seen[State]:
    """Follow a product's decisions."""
    tick.wait_for_clock()
    if decisions := _decisions(tick.history, tick.spec.grain, state.read):
        state = _follow(tick, state, decisions)
    return _execute(tick, state) if state.pending else ticks.Seen(state=state, reason=state.said)


def _follow(tick: ticks.ProductTick, state: State, decisions: Sequence[Decision]) -> State:
    """Tell what decisions tell, and put their trainings among those that are pending."""
    latest = tick.history.live()
    found = plan(tick.spec.grain, decisions, live_cutoff=latest[1].cutoff if latest else None)
    told = decision_alerts.plan(tick.spec.name, decisions, state.running)
    for alert in (*map(alert_of, found.alerts), *told.alerts):
        tick.tell(alert.alert_id, kind=alert.kind, text=alert.text, decision=alert.decision.document())
    last = decisions[-1]
    return replace(
        state,
        read=last.key,
        running=told.running,
        pending=(*state.pending, *found.trainings),
        said=f"{last.key}: {last.action}, {last.reasons[0]}",
    )


def _execute(tick: ticks.ProductTick, state: State) -> ticks.Seen[State]:
    """Bring the oldest pending training one step further."""
    cutoff, spec = state.pending[0].cutoff, tick.spec
    job, episode = tick.job(VERB), f"retrain:{cutoff}"
    busy = tick.under_way(VERB)
    if busy is not None:
        return ticks.Seen(state=state, reason=f"{cutoff}: {job} is {busy.status.value.lower()} (run {busy.run_id})")
    if unsettled := _unsettled(tick):
        return ticks.Seen(state=state, reason=f"{cutoff}: waits until {unsettled}")
    tries, most = episodes.tries_of(tick.instance, job, episode), spec.retraining.max_attempts
    step = episodes.next_step(tries, asked=state.asked, ticks=state.ticks, most=most, pauses=PAUSES)
    state = replace(state, ticks=step.ticks)
    told = f"{cutoff}: {step.reason}"
    if step.do == "launch" and step.attempt == 1 and "evaluation" in _recorded(tick.product, cutoff):
        step = episodes.Step(do="done", attempt=0, reason="was trained and judged before")
    if step.do == "launch":
        run = dg.RunRequest(
            # Unique among all products: the daemon knows the run keys of a sensor, whatever their job.
            run_key=f"{job}:{cutoff}:{step.attempt}",
            job_name=job,
            tags={"dagster/partition": cutoff, **episodes.tags(episode, step.attempt)},
        )
        return ticks.Seen(state=replace(state, asked=step.attempt), reason=told, requests=(run,))
    if step.do == "wait":
        return ticks.Seen(state=state, reason=told)
    if step.do == "give_up":
        text = f"the training of {spec.name} for cutoff {cutoff} is given up: {step.reason}."
        alert_id = episode_id("retrain", cutoff)
        tick.tell(alert_id, kind="gave_up", text=text, cutoff=cutoff, attempts=step.attempt)
    else:
        told = f"{cutoff}: {outcome(tick.product, cutoff)}"
    return ticks.Seen(state=replace(state, pending=state.pending[1:], asked=0, ticks=0, said=told), reason=told)


def _unsettled(tick: ticks.ProductTick) -> str | None:
    """Return what still changes rows that a training would read, or None: which rows it sees is no matter of luck."""
    if (busy := tick.under_way("advance")) is not None:
        return f"{busy.job_name} has ended (run {busy.run_id})"
    asked, _ = changes.open_requests(tick.history)
    return f"request {asked[0][0]} was answered: {asked[0][1].why}" if asked else None


def outcome(product: Product, cutoff: str) -> str:
    """Return what became of a training that succeeded, from the records: released, or the champion kept and why."""
    history = product.history
    for number, record in history.newest_releases(3):
        if record.cutoff == cutoff and record.outcome == releases.RELEASED:
            return f"released as number {number}"
    sealed = _recorded(product, cutoff).get("onnx")
    verdict = history.verdict(sealed.content_digest) if sealed else None
    if verdict is None:
        return "trained; there is no verdict on record"
    return "was live already" if verdict.passed else f"kept_champion: {' '.join(verdict.reasons)}"


def _recorded(product: Product, cutoff: str) -> dict[str, PartitionRecord]:
    """Return the records of a cutoff's model stages by stage, as far as they are there."""
    tables = product.tables
    found = {stage: tables.records(stage, [cutoff]).get(cutoff) for stage in ("onnx", "evaluation")}
    return {stage: record for stage, record in found.items() if record is not None}


def _decisions(history: History, grain: Grain, read: str | None) -> list[Decision]:
    """Return the decisions after a key, in order, as far as one tick reads."""
    found: list[Decision] = []
    for key in closed_keys.following(grain, read, MOST_DECISIONS):
        decision = history.decision(key)
        if decision is None:
            break
        found.append(decision)
    return found
