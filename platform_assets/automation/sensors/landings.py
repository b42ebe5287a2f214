"""Close keys: launch `advance__product` when the next keys' sources have landed or their deadline has passed.

One run both closes new keys and repairs closed ones whose inputs changed. A tick looks only at the next keys, at labels
that the last closed keys still lack, and at the next request; on S3 that costs one listing per source folder
(`landed_files`). A source that hangs or is slow is named, and delays no other product (`source_calls`). It launches at
most one run per product, and none while another run advances that product.
The range goes from the oldest key with a changed input to the newest that can be closed, as far as one run may go
(`product.planned`); the rest is requested on record. Work that is already done costs the run nothing.
On a cluster a key also waits until the services have sent its answers (`prediction_log.barrier`); a live model whose
service sent nothing in a closed key raises an alert. A run that fails or vanishes is retried after growing pauses. When
it is given up, an alert is raised, and the same files are ignored until one of them changes.
"""

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
import msgspec
from msgspec.structs import replace

from platform_assets.automation.alerting import episode_id
from platform_assets.automation.sensors import (
    arriving,
    changes,
    closable,
    closed_keys,
    episodes,
    landed_files,
    landing_events,
    renewals,
    silence,
    slow_sources,
    source_calls,
    ticks,
)
from platform_assets.base import naming
from platform_assets.base.keys import Grain
from platform_assets.base.wording import counted, span, span_in_short
from platform_assets.prediction_log.barrier import reason_to_wait
from platform_assets.product import planned
from platform_assets.store.artifacts import canonical, sha256

VERB = "advance"
MOST_ATTEMPTS = 8
PAUSES = (0, 1, 2, 4, 8, 16, 32)
"""Ticks to wait after the first, second ... failed attempt; the last value repeats."""
BUSY_VERBS = ("advance", "repair", "accept", "rebuild")


class State(ticks.State, frozen=True, kw_only=True):
    """What is known about a product's keys, and about the run that was requested last.

    Attributes:
        closed: the newest closed key.
        labelled: the last closed keys whose labels were taken in.
        given_up: by key, marks of labels that are ignored.
        consumed: the number up to which requests are settled.
        renewed: the number up to which renewals are over.
        looks: at files that are not known to be complete, see `arriving`.
        episode: of the run; empty when none is needed.
        requested, ticks: see `episodes.next_step`.
        takes: see `Plan`.
        is_alerted: whether the alert that the run is given up was raised.
        failing: the last episode whose run was given up, until another run succeeds.
        heard: see `silence.follow`.
        landed: what was reported of files, see `landing_events`.
        slow: slow sources on record, and whether each did not answer at all.
    """

    closed: str | None = None
    labelled: tuple[str, ...] = ()
    given_up: dict[str, str] = msgspec.field(default_factory=dict)
    consumed: int = 0
    renewed: int = 0
    looks: dict[str, arriving.Look] = msgspec.field(default_factory=dict)
    episode: str = ""
    requested: int = 0
    ticks: int = 0
    takes: int = 0
    is_alerted: bool = False
    failing: str = ""
    heard: silence.State = silence.State()
    landed: landing_events.State = landing_events.State()
    slow: dict[str, bool] = msgspec.field(default_factory=dict)

    def of_episode(self, episode: str = "") -> "State":
        """Return the state with another episode, not yet tried; by default none."""
        return replace(self, episode=episode, requested=0, ticks=0, takes=0, is_alerted=False)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a tick learned about one product.

    Attributes:
        newest: the newest closed key; None when there is none.
        ready: the keys after it that can be closed, in order.
        wait_reason: why the key after those cannot be closed.
        late: by key, the mark of labels that landed after their key was closed.
        requests: open requests to advance keys again.
        marks: of the files of each ready key, in order.
        settled: by key, the names for the run's tag, see `arriving.tags`.
        older: keys of an earlier version that are made again while nothing else is to do.
        looked_at: how many keys the tick looked at most; None for `closable.MOST_KEYS`.
    """

    newest: str | None
    ready: tuple[str, ...] = ()
    wait_reason: str = ""
    late: Mapping[str, str] = field(default_factory=dict)
    requests: changes.OpenRequests = ()
    marks: tuple[str, ...] = ()
    settled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    older: renewals.Chunk | None = None
    looked_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The run that a product needs.

    Attributes:
        first, last: the range of its keys.
        episode: digest of the range and of everything new in it: the same files give the same episode.
        reason: one clause.
        late: by key, marks of the labels that the run takes in.
        takes: the number up to which requests are settled when the run has succeeded, 0 for none.
        keys_left: how many keys are left for the next runs.
        rest: the first of those, unless a request for it is open already.
    """

    first: str
    last: str
    episode: str
    reason: str
    late: Mapping[str, str] = field(default_factory=dict)
    takes: int = 0
    keys_left: int = 0
    rest: str | None = None


def plan(grain: Grain, findings: Findings, most: int = closable.MOST_KEYS) -> Plan | str:
    """Return the run that is needed, or why none is.

    Args:
        most: how many keys one run takes at most.
    """
    last = findings.ready[-1] if findings.ready else findings.newest
    if last is None:
        return findings.wait_reason
    end = grain.index(last)
    firsts = {number: record.first for number, record in findings.requests if grain.contains(record.first)}
    requested = {number: key for number, key in firsts.items() if grain.index(key) <= end}
    late = {key: mark for key, mark in findings.late.items() if grain.index(key) <= end}
    changed = [*findings.ready[:1], *late, *requested.values()]
    if not changed and (older := findings.older) is not None:
        follow = f"; {counted(older.keys_left, 'older key')} left" if older.keys_left else ""
        verb = "was" if older.keys == 1 else "were"
        return Plan(
            first=older.first,
            last=older.last,
            episode=sha256(canonical(["renewal", older.first, older.last, older.id]))[:12],
            reason=f"{counted(older.keys, 'key')} {verb} made by an earlier version{follow}",
            keys_left=older.keys_left,
        )
    if not changed:
        return findings.wait_reason
    first = min(changed, key=grain.index)
    stop = min(end, grain.index(first) + most - 1)
    last, keys_left = grain.key_at(stop), end - stop
    ready = tuple(key for key in findings.ready if grain.index(key) <= stop)
    late = {key: mark for key, mark in late.items() if grain.index(key) <= stop}
    # Requests beyond this run stay open, or the request for the rest replaces them.
    takes = max(
        (
            number
            for number, _ in findings.requests
            if number not in requested or grain.index(requested[number]) <= stop
        ),
        default=0,
    )
    requested = {number: key for number, key in requested.items() if grain.index(key) <= stop}
    rest = grain.key_at(stop + 1) if keys_left else None
    is_open = any(number > takes and record.first == rest for number, record in findings.requests)
    of_late = (f"{key} {mark}" for key, mark in sorted(late.items()))
    new = [first, last, *findings.marks[: len(ready)], *of_late, *map(str, requested)]
    return Plan(
        first=first,
        last=last,
        episode=sha256(canonical(new))[:12],
        reason=_reason(grain, findings, ready, late, requested, keys_left),
        late=late,
        takes=takes,
        keys_left=keys_left,
        rest=None if is_open else rest,
    )


def _reason(
    grain: Grain,
    findings: Findings,
    ready: Sequence[str],
    late: Collection[str],
    requested: Mapping[int, str],
    keys_left: int,
) -> str:
    """Return what is new in a run, and how many keys it leaves to the next ones."""
    parts = []
    if ready:
        parts.append(f"{ready[0] if len(ready) == 1 else f'{ready[0]} to {ready[-1]}'} can be closed")
    if late:
        parts.append(f"labels of {', '.join(sorted(late, key=grain.index))} arrived late")
    parts += [f"request {number} asks to advance from {key} again" for number, key in requested.items()]
    if keys_left:
        least = "at least " if len(findings.ready) >= (findings.looked_at or closable.MOST_KEYS) else ""
        parts.append(f"{least}{keys_left} {'key follows' if keys_left == 1 else 'keys follow'}")
    return "; ".join(parts)


@ticks.Sensor(
    "landings",
    ticks.PerProduct(State),
    about="Closes each product's next keys when their files have landed or their deadline has passed.",
    every_s=1,
    verb=VERB,
    is_patient=True,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Launch the run that a product needs, unless one is under way."""
    busy = tick.under_way(*BUSY_VERBS)
    if busy is not None:
        return ticks.Result(state=state, reason=f"{busy.job_name} is {busy.status.value.lower()} (run {busy.run_id})")
    job = tick.job(VERB)
    if state.failing and episodes.is_succeeded(tick.instance, job, state.failing):
        tick.end_alert(episode_id("advance", state.failing))
        state = replace(state, failing="")
    before = episodes.tries_of(tick.instance, job, state.episode) if state.takes else ()
    if any(item.status is dg.DagsterRunStatus.SUCCESS for item in before):
        changes.answer(tick.product, state.takes, "advanced", tick.now)
        state = replace(state, consumed=state.takes, takes=0)
    mark = landed_files.Marks(tick.product, tick.until_s, "landings")
    try:
        findings, state = _find(tick, state, mark)
    except source_calls.OutOfTime as problem:
        state = replace(state, slow=slow_sources.follow(tick, state.slow, mark))
        return ticks.Result(state=state, reason=f"goes on in the next tick: {problem}", is_complete=False)
    state = replace(state, slow=slow_sources.follow(tick, state.slow, mark))
    if tick.store.settings.environment == "cluster":
        state = replace(state, heard=silence.follow(tick, state.heard, findings.newest))
    work = plan(tick.spec.grain, findings, planned.keys_per_run(tick.spec))
    if isinstance(work, str):
        return ticks.Result(state=state.of_episode(), reason=work)
    if work.episode != state.episode:
        state = state.of_episode(work.episode)
    # A run that succeeded and left the same work would do so again and again: it counts as failed.
    ended = {dg.DagsterRunStatus.SUCCESS: dg.DagsterRunStatus.FAILURE}
    tries = [
        dataclasses.replace(item, status=ended.get(item.status, item.status))
        for item in episodes.tries_of(tick.instance, job, work.episode)
    ]
    step = episodes.next_step(tries, requested=state.requested, ticks=state.ticks, most=MOST_ATTEMPTS, pauses=PAUSES)
    state = replace(state, ticks=step.ticks)
    if step.action == "launch":
        return _launch(tick, state, findings, work, step)
    if step.action == "give_up" and not state.is_alerted:
        state = _give_up(tick, state, findings, work, step)
    return ticks.Result(state=state, reason=f"{work.reason}; {step.reason}")


def _launch(
    tick: ticks.ProductTick, state: State, findings: Findings, work: Plan, step: episodes.Step
) -> ticks.Result[State]:
    if work.rest is not None:
        # Requested before the run, not kept in the cursor: once the run took late labels in, they no longer lead here.
        reason = f"the keys after {work.last} follow in a run of their own"
        changes.request(tick.product.ledgers, work.rest, reason, tick.now)
    job, keys = tick.job(VERB), tick.spec.grain.span(work.first, work.last)
    run = dg.RunRequest(
        run_key=f"{job}:{work.first}...{work.last}:{work.episode}:{step.attempt}",
        job_name=job,
        tags={
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


def _give_up(tick: ticks.ProductTick, state: State, findings: Findings, work: Plan, step: episodes.Step) -> State:
    job, keys = tick.job(VERB), span((work.first, work.last))
    text = (
        f"{job} over {keys} was given up: {step.reason}. {work.reason}. Fix what that run shows; then launch {job} "
        f"over {keys}, or change a file of these keys."
    )
    details = {"job": job, "first": work.first, "last": work.last, "attempts": step.attempt}
    tick.raise_alert(episode_id("advance", work.episode), kind="gave_up", text=text, **details)
    # The rest of the range is given up with the run, so that trainings do not wait for it.
    takes = max((number for number, _ in findings.requests), default=0)
    if takes:
        changes.answer(tick.product, takes, "given_up", tick.now)
    # The late labels are ignored from now on, so that they do not keep new keys from being closed.
    given_up = {**state.given_up, **work.late}
    if state.failing not in ("", work.episode):
        tick.end_alert(episode_id("advance", state.failing))
    failing = work.episode
    return replace(state, is_alerted=True, failing=failing, given_up=given_up, consumed=max(takes, state.consumed))


def _find(tick: ticks.ProductTick, state: State, mark: landed_files.Marks) -> tuple[Findings, State]:
    spec = tick.spec
    newest = closed_keys.newest(tick.history, spec.grain, state.closed)
    watch = arriving.Watch(tick.product, mark, state.looks, mark.fetch)
    ready, wait_reason, marks = closable.find(spec, newest, tick.now, mark, watch.check)
    if tick.store.settings.environment == "cluster":
        for place, key in enumerate(ready):
            if reason := reason_to_wait(tick.product, key):
                ready, wait_reason, marks = ready[:place], reason, marks[:place]
                break
    watch.look_ahead((ready or (newest,))[-1], closable.MOST_KEYS)
    late, labelled, given_up = dict[str, str](), state.labelled, state.given_up
    with contextlib.suppress(source_calls.SourceProblem):  # `mark.problems` names the source
        late, labelled = changes.late_labels(tick.product, newest, state.labelled, mark, watch.check)
        given_up = {key: value for key, value in state.given_up.items() if late.get(key) == value}
    requests, consumed = changes.open_requests(tick.history, state.consumed)
    older, renewed = renewals.following(tick.product, state.renewed, planned.keys_per_run(spec))
    findings = Findings(
        newest=newest,
        ready=ready,
        wait_reason="; ".join([wait_reason, *watch.labels(), *mark.clauses(wait_reason)]),
        late={key: value for key, value in late.items() if key not in given_up},
        requests=requests,
        marks=marks,
        settled=watch.settled,
        older=older,
        looked_at=closable.most_keys(spec),
    )
    state = replace(
        state,
        renewed=renewed,
        closed=newest,
        labelled=labelled,
        given_up=given_up,
        consumed=consumed,
        looks=watch.looks,
        landed=landing_events.follow(tick, state.landed, watch.complete, mark),
    )
    return findings, state
