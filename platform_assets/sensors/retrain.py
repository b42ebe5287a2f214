"""Execute decisions: launch `retrain__product` for a cutoff, or raise an alert, once per episode.

A training waits until no run advances keys and no request to advance them is open, so that the rows it reads follow
from the records alone. Decisions are read once, in order: their alerts are raised at once; a training is appended to
the pending ones, of which the oldest runs until it has ended. A challenger that lost is a success and raises no alert.
"""

import dagster as dg
import msgspec
from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.data import closed_keys, key_changes
from platform_assets.launch import renewals
from platform_assets.monitoring import decision_alerts, retraining
from platform_assets.sensors import episodes, ticks

VERB = "retrain"
MOST_DECISIONS = 400
"""How many recorded decisions one tick reads."""
PAUSES_S = (0, 10, 40, 160)
"""How long to wait after the first, second ... failed attempt; the last value repeats."""


class State(episodes.Retried, frozen=True, kw_only=True):
    """How far a product's decisions were followed.

    Attributes:
        read: the key of the last decision that was read.
        running: by kind, the alerts' episodes that go on.
        pending: trainings whose run has neither succeeded nor been given up, oldest first.
        older: id of the alert about keys of an earlier version that the oldest one waits for.
        reason: the reason while no training is pending.
    """

    read: str | None = None
    running: dict[str, decision_alerts.Episode] = msgspec.field(default_factory=dict)
    pending: tuple[retraining.Training, ...] = ()
    older: str = ""
    reason: str = "no decision yet"


@ticks.Sensor("retrain", ticks.PerProduct(State), every_s=1, jobs=VERB, is_patient=True)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Follow a product's decisions."""
    _ = tick.now  # there is nothing to follow while the clock of a recording is not set
    spec, history = tick.spec, tick.history
    if decisions := closed_keys.decisions(history, spec.grain, state.read, MOST_DECISIONS):
        live, last = history.live(), decisions[-1]
        trainings = retraining.plan(spec.grain, decisions, live_cutoff=live[1].cutoff if live else None)
        outcome = decision_alerts.plan(spec.name, decisions, state.running)
        for alert in outcome.alerts:
            tick.raise_alert(alert)
        for alert_id in outcome.ended:
            tick.end_alert(alert_id)
        state = replace(
            state,
            read=last.key,
            running=outcome.running,
            pending=(*state.pending, *trainings),
            reason=f"{last.key}: {last.action}, {last.reasons[0]}",
        )
    state = episodes.end_failing(tick, state, VERB, f"{VERB}:{state.failing}")
    return _execute(tick, state) if state.pending else ticks.Result(state=state, reason=state.reason)


def _execute(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Bring the oldest pending training one step further."""
    cutoff, job = state.pending[0].cutoff, tick.job(VERB)
    if (busy := tick.under_way(VERB)) is not None:
        reason = f"{cutoff}: {job} is {busy.status.value.lower()} (run {busy.run_id})"
        return ticks.Result(state=replace(state, since_s=None), reason=reason)
    # Otherwise the rows that it reads would depend on timing.
    if (busy := tick.under_way("advance")) is not None:
        reason = f"{cutoff}: waits until {busy.job_name} has ended (run {busy.run_id})"
        return ticks.Result(state=state, reason=reason)
    requests, _ = key_changes.open_requests(tick.history)
    if requests:
        number, request = requests[0]
        return ticks.Result(state=state, reason=f"{cutoff}: waits until request {number} is answered: {request.why}")
    wait = renewals.reason_to_wait(tick.product, cutoff)
    if wait and wait.alert:
        tick.raise_alert(wait.alert)
    older = wait.alert.id if wait and wait.alert else ""
    if state.older not in ("", older):
        tick.end_alert(state.older)
    state = replace(state, older=older)
    if wait:
        return ticks.Result(state=state, reason=f"{cutoff}: {wait.reason}")
    episode, most = f"{VERB}:{cutoff}", tick.spec.retraining.max_attempts
    tries = episodes.tries_of(tick, VERB, episode)
    step = episodes.next_step(
        tries, requested=state.requested, since_s=state.since_s, now_s=tick.at_s, most=most, pauses_s=PAUSES_S
    )
    state, reason = replace(state, since_s=step.since_s), f"{cutoff}: {step.reason}"
    # A first attempt at a model that is there is none: a sensor without its cursor reads old decisions again.
    if step.action == "launch" and not (
        step.attempt == 1 and cutoff in tick.product.tables.records("evaluation", [cutoff])
    ):
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
            f"the training of {tick.spec.name} for cutoff {cutoff} was given up: {step.reason}. Fix what that run "
            f"shows; then launch {job} for {cutoff}: it is not tried again by itself."
        )
        state = episodes.give_up(tick, state, VERB, cutoff, text, cutoff=cutoff, attempts=step.attempt)
    else:
        reason = f"{cutoff}: {retraining.describe_result(tick.product, cutoff)}"
    state = replace(state, pending=state.pending[1:], requested=0, since_s=None, reason=reason)
    return ticks.Result(state=state, reason=reason)
