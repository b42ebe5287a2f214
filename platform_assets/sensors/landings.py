"""Close keys: launch `advance__product` when the next keys' sources have landed or their deadline has passed.

`data.closing` decides which run that is. A tick looks only at the next keys, at labels that the last closed keys still
lack, and at the next request; on S3 that costs one listing per source folder (`data.landed_marks`). A source that hangs
or is slow is named, and delays no other product (`data.source_calls`). It launches at most one run per product, and
none while another run advances that product.
The rest of a range that one run may not take is requested on record. Work that is already done costs the run nothing.
On a cluster a key also waits until the services have sent its answers (`prediction_log.barrier`); a live model whose
service sent nothing in a closed key raises an alert. A run that fails or vanishes is retried after growing pauses. When
it is given up, an alert is raised, and the same files are ignored until one of them changes.
"""

import contextlib
import dataclasses

import dagster as dg
import msgspec
from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.base.wording import span, span_in_short
from platform_assets.data import arriving, closed_keys, closing, key_changes, landing_reports, source_calls
from platform_assets.data.landed_marks import Marks
from platform_assets.launch import renewals
from platform_assets.monitoring.alert_kinds import Alert
from platform_assets.prediction_log import silence
from platform_assets.prediction_log.barrier import reason_to_wait
from platform_assets.product import planned
from platform_assets.sensors import episodes, ticks

VERB = "advance"
MOST_ATTEMPTS = 8
PAUSES_S = (0, 5, 10, 20, 40, 80, 160)
"""How long to wait after the first, second ... failed attempt; the last value repeats."""


class State(episodes.Retried, frozen=True, kw_only=True):
    """What is known about a product's keys, and about the run that was requested last.

    Attributes:
        closed: the newest closed key.
        labelled: the last closed keys whose labels were taken in.
        given_up: by key, marks of labels that are ignored.
        consumed: the number up to which requests are settled.
        renewed: the number up to which renewals are over.
        looks: at files that are not known to be complete, see `arriving`.
        episode: of the run; empty when none is needed.
        takes: see `closing.Plan`.
        is_alerted: whether the alert that the run is given up was raised.
        heard: see `silence.follow`.
        landed: what was reported of files, see `landing_reports`.
        slow: slow sources on record, and whether each did not answer at all.
    """

    closed: str | None = None
    labelled: tuple[str, ...] = ()
    given_up: dict[str, str] = msgspec.field(default_factory=dict)
    consumed: int = 0
    renewed: int = 0
    looks: dict[str, arriving.Look] = msgspec.field(default_factory=dict)
    episode: str = ""
    takes: int = 0
    is_alerted: bool = False
    heard: silence.State = silence.State()
    landed: landing_reports.State = landing_reports.State()
    slow: dict[str, bool] = msgspec.field(default_factory=dict)

    def of_episode(self, episode: str = "") -> "State":
        """Return the state with another episode, not yet tried; by default none."""
        return replace(self, episode=episode, requested=0, since_s=None, takes=0, is_alerted=False)


@ticks.Sensor("landings", ticks.PerProduct(State), every_s=1, jobs=VERB, is_patient=True)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Launch the run that a product needs, unless one is under way."""
    busy = tick.under_way("advance", "repair", "accept", "rebuild")
    if busy is not None:
        reason = f"{busy.job_name} is {busy.status.value.lower()} (run {busy.run_id})"
        return ticks.Result(state=replace(state, since_s=None), reason=reason)
    state = episodes.end_failing(tick, state, VERB, state.failing)
    before = episodes.tries_of(tick, VERB, state.episode) if state.takes else ()
    if any(item.status is dg.DagsterRunStatus.SUCCESS for item in before):
        key_changes.answer(tick.product, state.takes, "advanced", tick.now)
        state = replace(state, consumed=state.takes, takes=0)
    look = Marks(tick.product, tick.until_s, "landings")
    try:
        findings, state = _find(tick, state, look)
    except source_calls.OutOfTime as problem:
        state = replace(state, slow=look.note_slow(state.slow, tick.now, tick.context.log.warning))
        return ticks.Result(state=state, reason=f"goes on in the next tick: {problem}", is_complete=False)
    state = replace(state, slow=look.note_slow(state.slow, tick.now, tick.context.log.warning))
    if tick.store.settings.environment == "cluster":
        heard, changes = silence.follow(tick.product, state.heard, findings.newest)
        for change in changes:
            if isinstance(change, Alert):
                tick.raise_alert(change)
            else:
                tick.end_alert(change)
        state = replace(state, heard=heard)
    work = closing.plan(tick.spec.grain, findings, planned.keys_per_run(tick.spec))
    if isinstance(work, str):
        return ticks.Result(state=state.of_episode(), reason=work)
    if work.episode != state.episode:
        state = state.of_episode(work.episode)
    # A run that succeeded and left the same work would do so again and again: it counts as failed.
    ended = {dg.DagsterRunStatus.SUCCESS: dg.DagsterRunStatus.FAILURE}
    tries = [
        dataclasses.replace(item, status=ended.get(item.status, item.status))
        for item in episodes.tries_of(tick, VERB, work.episode)
    ]
    step = episodes.next_step(
        tries, requested=state.requested, since_s=state.since_s, now_s=tick.at_s, most=MOST_ATTEMPTS, pauses_s=PAUSES_S
    )
    state = replace(state, since_s=step.since_s)
    if step.action == "launch":
        return _launch(tick, state, findings, work, step)
    if step.action == "give_up" and not state.is_alerted:
        state = _give_up(tick, state, findings, work, step)
    return ticks.Result(state=state, reason=f"{work.reason}; {step.reason}")


def _launch(
    tick: ticks.ProductTick, state: State, findings: closing.Findings, work: closing.Plan, step: episodes.Step
) -> ticks.Result[State]:
    if work.rest is not None:
        # Requested before the run, not kept in the cursor: once the run took late labels in, they no longer lead here.
        reason = f"the keys after {work.last} follow in a run of their own"
        key_changes.request(tick.product.ledgers, work.rest, reason, tick.now)
    job, keys = tick.job(VERB), tick.spec.grain.span(work.first, work.last)
    run = dg.RunRequest(
        run_key=f"{job}:{work.first}...{work.last}:{work.episode}:{step.attempt}",
        job_name=job,
        tags={
            # One run for all keys: 365 of them take 5 s, and as runs of their own the daemon launches one per second.
            "dagster/asset_partition_range_start": work.first,
            "dagster/asset_partition_range_end": work.last,
            naming.TAG_KEYS: span_in_short(work.first, work.last),
            **episodes.tags(work.episode, step.attempt),
            **arriving.tags(keys, findings.settled, findings.requests),
        },
    )
    message = f"{span((work.first, work.last))}: {work.reason} ({step.reason})"
    state = replace(state, requested=step.attempt, takes=work.takes)
    return ticks.Result(state=state, reason=message, requests=(run,))


def _give_up(
    tick: ticks.ProductTick, state: State, findings: closing.Findings, work: closing.Plan, step: episodes.Step
) -> State:
    job, keys = tick.job(VERB), span((work.first, work.last))
    text = (
        f"{job} over {keys} was given up: {step.reason}. {work.reason}. Fix what that run shows; then launch {job} "
        f"over {keys}, or change a file of these keys."
    )
    details = {"first": work.first, "last": work.last, "attempts": step.attempt}
    state = episodes.give_up(tick, state, VERB, work.episode, text, **details)
    # The rest of the range is given up with the run, so that trainings do not wait for it.
    takes = max((number for number, _ in findings.requests), default=0)
    if takes:
        key_changes.answer(tick.product, takes, "given_up", tick.now)
    # The late labels are ignored from now on, so that they do not keep new keys from being closed.
    given_up = {**state.given_up, **work.late}
    return replace(state, is_alerted=True, given_up=given_up, consumed=max(takes, state.consumed))


def _find(tick: ticks.ProductTick, state: State, look: Marks) -> tuple[closing.Findings, State]:
    spec = tick.spec
    newest = closed_keys.newest(tick.history, spec.grain, state.closed)
    watch = arriving.Watch(tick.product, look, state.looks, look.fetch)
    ready, wait_reason, marks = closing.find(spec, newest, tick.now, look, watch.check)
    if tick.store.settings.environment == "cluster":
        for place, key in enumerate(ready):
            if reason := reason_to_wait(tick.product, key):
                ready, wait_reason, marks = ready[:place], reason, marks[:place]
                break
    watch.look_ahead((ready or (newest,))[-1], closing.MOST_KEYS)
    late, labelled, given_up = dict[str, str](), state.labelled, state.given_up
    with contextlib.suppress(source_calls.SourceProblem):  # `look.problems` names the source
        late, labelled = key_changes.late_labels(tick.product, newest, state.labelled, look, watch.check)
        given_up = {key: value for key, value in state.given_up.items() if late.get(key) == value}
    requests, consumed = key_changes.open_requests(tick.history, state.consumed)
    older, renewed = renewals.following(tick.product, state.renewed, planned.keys_per_run(spec))
    findings = closing.Findings(
        newest=newest,
        ready=ready,
        wait_reason="; ".join([wait_reason, *watch.labels(), *look.clauses(wait_reason)]),
        late={key: value for key, value in late.items() if key not in given_up},
        requests=requests,
        marks=marks,
        settled=watch.settled,
        older=older,
        looked_at=closing.most_keys(spec),
    )
    state = replace(
        state,
        renewed=renewed,
        closed=newest,
        labelled=labelled,
        given_up=given_up,
        consumed=consumed,
        looks=watch.looks,
        landed=landing_reports.follow(
            tick.context.instance, tick.product, state.landed, watch.complete, look, tick.until_s
        ),
    )
    return findings, state
