"""Close keys: launch `advance__product` when the next keys' sources have landed or their deadline has passed.

Belongs here: which keys can be closed, what came late to closed ones, and over which range one run mends both. Does
not belong here: taking files in (the stages), or telling whether they are whole (`arriving`) and sound (`drift`).

A tick looks only at the next expected keys, at labels that the last closed keys still lack, and at the next request; on
S3 that is one listing per source folder (`landed_files`). It launches at most one run a product, and none while another
one advances it. The range goes from the oldest key with a changed input to the newest that can be closed, as far as one
run may go (`specs.planned`); a request on record names the key from which the others follow. What is done already costs
the run nothing. A run that fails or vanishes is tried again after growing pauses; when it is given up, a person is
told, and the same files are left alone until one of them changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.keys import Grain
from platform_assets.specs import planned
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.artifacts import canonical, sha256
from resources.alerts import AlertsResource, episode_id
from resources.store import StoreResource
from sensors import arriving, changes, closed_keys, episodes, landed_files, ticks

VERB = "advance"
MOST_KEYS = 400
"""How many keys a tick looks at; how many one run takes is `planned.keys_per_run`."""
MOST_ATTEMPTS = 8
PAUSES = (0, 1, 2, 4, 8, 16, 32)
"""How many ticks the next attempt waits after the first, second ... one failed."""
NOT_LANDED = changes.Unfinished("has not landed")
BUSY_VERBS = ("advance", "repair", "accept")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a tick found out about one product.

    Attributes:
        newest: the newest closed key; None when none is.
        ready: the keys after it that can be closed, in order.
        waits: why the key after those cannot be.
        late: labels that landed since their key was closed: the file's mark by key.
        requests: requests to advance keys again, that no run has answered: (number, record).
        marks: of the files of each ready key, in order.
        settled: of the run's tag, by key: see `arriving`.
    """

    newest: str | None
    ready: tuple[str, ...] = ()
    waits: str = ""
    late: Mapping[str, str] = field(default_factory=dict)
    requests: changes.Asked = ()
    marks: tuple[str, ...] = ()
    settled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The run that a product needs.

    Attributes:
        first, last: the range of its keys.
        episode: names the range and all that is new in it; the same files give the same one.
        why: one clause.
        late: marks of the labels that the run takes in, by key.
        takes: the number up to which requests are settled when the run has succeeded, 0 for none.
        follow: how many keys are left for the next runs.
        rest: the first of those, unless a request for it is open already.
    """

    first: str
    last: str
    episode: str
    why: str
    late: Mapping[str, str] = field(default_factory=dict)
    takes: int = 0
    follow: int = 0
    rest: str | None = None


def plan(grain: Grain, found: Found, most: int = MOST_KEYS) -> Plan | str:
    """Return the run that is needed, or why none is.

    Args:
        grain: the product's.
        found: what the tick found.
        most: how many keys one run takes at most.
    """
    last = found.ready[-1] if found.ready else found.newest
    if last is None:
        return found.waits
    end = grain.index(last)
    firsts = {number: record.first for number, record in found.requests if grain.contains(record.first)}
    asked = {number: key for number, key in firsts.items() if grain.index(key) <= end}
    late = {key: mark for key, mark in found.late.items() if grain.index(key) <= end}
    changed = [*found.ready[:1], *late, *asked.values()]
    if not changed:
        return found.waits
    first = min(changed, key=grain.index)
    stop = min(end, grain.index(first) + most - 1)
    last, follow = grain.key_at(stop), end - stop
    ready = tuple(key for key in found.ready if grain.index(key) <= stop)
    late = {key: mark for key, mark in late.items() if grain.index(key) <= stop}
    # What is asked for beyond this run stays open, or the request for the rest stands in for it.
    takes = max(
        (number for number, _ in found.requests if number not in asked or grain.index(asked[number]) <= stop), default=0
    )
    asked = {number: key for number, key in asked.items() if grain.index(key) <= stop}
    rest = grain.key_at(stop + 1) if follow else None
    is_open = any(number > takes and record.first == rest for number, record in found.requests)
    parts = []
    if ready:
        parts.append(f"{ready[0] if len(ready) == 1 else f'{ready[0]} to {ready[-1]}'} can be closed")
    if late:
        parts.append(f"labels of {', '.join(sorted(late, key=grain.index))} came late")
    parts += [f"request {number} asks for {key} again" for number, key in asked.items()]
    if follow:
        least = "at least " if len(found.ready) >= MOST_KEYS else ""
        parts.append(f"{least}{follow} {'key follows' if follow == 1 else 'keys follow'}")
    of_late = (f"{key} {mark}" for key, mark in sorted(late.items()))
    new = [first, last, *found.marks[: len(ready)], *of_late, *map(str, asked)]
    return Plan(
        first=first,
        last=last,
        episode=sha256(canonical(new))[:12],
        why="; ".join(parts),
        late=late,
        takes=takes,
        follow=follow,
        rest=None if is_open else rest,
    )


def can_be_closed(
    spec: ProductSpec,
    after: str | None,
    now: datetime,
    mark: changes.Mark,
    why_not: changes.WhyNot = changes.is_whole,
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the next keys that can be closed, why the one after them cannot, and the marks of their files.

    Args:
        spec: the product.
        after: the newest closed key.
        now: the product's moment.
        mark: looks for a landed file.
        why_not: says why one is not known to be whole; by default each is.
    """
    grain, ready, marks = spec.grain, list[str](), list[str]()
    start = 0 if after is None else grain.index(after) + 1
    for source in spec.sources:
        if source.is_slow:
            found = mark(source, naming.UNPARTITIONED)
            why = NOT_LANDED if found is None else why_not(source, naming.UNPARTITIONED, found)
            if why is not None:
                return (), f"{source.name} {why.why}, which every key needs", ()
    for place in range(start, start + MOST_KEYS):
        if grain.size is not None and place >= grain.size:
            return tuple(ready), f"{grain.last} is the last key and closed", tuple(marks)
        key = grain.key_at(place)
        of_key = []
        for source in spec.feature_sources:
            if source.is_slow:
                continue
            found = mark(source, key)
            why = NOT_LANDED if found is None else why_not(source, key, found)
            due_at = spec.due_at(source, key)
            if why is not None and (due_at is None or now < due_at or why.is_open):
                until = f", due {due_at.isoformat()} (it is {now.isoformat()})" if due_at else ""
                return tuple(ready), f"{source.name} of {key} {why.why}{until}", tuple(marks)
            of_key.append(f"{source.name} {key} {found if why is None else 'missing'}")
        ready.append(key)
        marks.append(", ".join(of_key))
    return tuple(ready), f"more than {MOST_KEYS} keys can be closed; the others follow", tuple(marks)


def build(specs: Iterable[ProductSpec], jobs: Sequence[Any]) -> dg.SensorDefinition:
    """Return the sensor.

    Args:
        specs: the products.
        jobs: `advance__product` of each.
    """
    products = tuple(specs)

    @dg.sensor(
        name="landings",
        jobs=list(jobs),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Closes each product's next keys when their files have landed or their deadline has passed.",
    )
    def watch(context: dg.SensorEvaluationContext, store: StoreResource, alerts: AlertsResource) -> dg.SensorResult:
        def look(spec: ProductSpec, state: ticks.State) -> ticks.Seen:
            return _look(spec, state, context.instance, store, alerts)

        return ticks.patiently(lambda: ticks.evaluate(context, products, look), store.settings.sensor_patience_s)

    return watch


def _look(
    spec: ProductSpec, state: ticks.State, instance: dg.DagsterInstance, store: StoreResource, alerts: AlertsResource
) -> ticks.Seen:
    busy = episodes.under_way(instance, [naming.job(verb, spec.name) for verb in BUSY_VERBS])
    if busy is not None:
        return ticks.Seen(state=state, reason=f"{busy.job_name} is {busy.status.value.lower()} (run {busy.run_id})")
    try:
        now = store.now(spec.name, is_live=spec.is_live)
    except LookupError as problem:
        return ticks.Seen(state=state, reason=str(problem))
    job = naming.job(VERB, spec.name)
    before = episodes.tries_of(instance, job, state["episode"]) if state.get("takes") else ()
    if any(item.status is dg.DagsterRunStatus.SUCCESS for item in before):
        changes.answer(store, spec.name, state["takes"], "advanced", now)
        state = {**state, "consumed": state["takes"], "takes": 0}
    found, state = _find(spec, state, now, store)
    wanted = plan(spec.grain, found, planned.keys_per_run(spec))
    if isinstance(wanted, str):
        return ticks.Seen(state=_idle(state), reason=wanted)
    if wanted.episode != state.get("episode"):
        state = {**_idle(state), "episode": wanted.episode}
    # A run that succeeded and left the same to do would do so for ever: it counts as one that failed.
    step = episodes.next_step(
        episodes.without_success(episodes.tries_of(instance, job, wanted.episode)),
        asked=state["asked"],
        ticks=state["ticks"],
        most=MOST_ATTEMPTS,
        pauses=PAUSES,
    )
    state = {**state, "ticks": step.ticks}
    if step.do == "launch":
        if wanted.rest is not None:
            # On record before the run, not in the cursor: late labels that the run takes in name the rest no longer.
            why = f"the keys after {wanted.last} follow in a run of their own"
            changes.ask(store.ledgers(spec.name), wanted.rest, why, now)
        told = f"{wanted.first} to {wanted.last}: {wanted.why} ({step.reason})"
        state = {**state, "asked": step.attempt, "takes": wanted.takes}
        tags = arriving.tags(spec.grain.span(wanted.first, wanted.last), found.settled, found.requests)
        return ticks.Seen(state=state, reason=told, requests=(_request(job, wanted, step.attempt, tags),))
    if step.do == "give_up" and not state.get("is_told"):
        text = f"{job} over {wanted.first} to {wanted.last} is given up: {step.reason}. {wanted.why}."
        details = {"first": wanted.first, "last": wanted.last, "attempts": step.attempt}
        alert_id = episode_id("advance", wanted.episode)
        alerts.tell(spec.name, alert_id, kind="gave_up", text=text, at=now, details=details)
        # What came late is left alone from now on, so that it does not keep new keys from being closed.
        given_up = {**state["given_up"], **wanted.late}
        # With the run its rest is given up too, so that trainings do not wait for it.
        takes = max((number for number, _ in found.requests), default=0)
        if takes:
            changes.answer(store, spec.name, takes, "given_up", now)
        state = {**state, "is_told": True, "given_up": given_up, "consumed": max(takes, state["consumed"])}
    return ticks.Seen(state=state, reason=f"{wanted.why}; {step.reason}")


def _request(job: str, wanted: Plan, attempt: int, tags: Mapping[str, str]) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{job}:{wanted.first}...{wanted.last}:{wanted.episode}:{attempt}",
        job_name=job,
        tags={
            "dagster/asset_partition_range_start": wanted.first,
            "dagster/asset_partition_range_end": wanted.last,
            **episodes.tags(wanted.episode, attempt),
            **tags,
        },
    )


def _idle(state: ticks.State) -> ticks.State:
    return {**state, "episode": "", "asked": 0, "ticks": 0, "takes": 0, "is_told": False}


def _find(spec: ProductSpec, state: ticks.State, now: datetime, store: StoreResource) -> tuple[Found, ticks.State]:
    history = store.history(spec.name)
    mark = landed_files.marks(store.settings.root, spec)
    newest = closed_keys.newest(history, spec.grain, state.get("closed"))
    watch = arriving.Watch(spec, store, mark, state.get("looks", {}))
    ready, waits, marks = can_be_closed(spec, newest, now, mark, watch.why_not)
    watch.look_ahead((ready or (newest,))[-1], MOST_KEYS)
    late, labelled = changes.late_labels(spec, newest, state, store, mark, watch.why_not)
    given_up = {key: value for key, value in state.get("given_up", {}).items() if late.get(key) == value}
    requests, consumed = changes.open_requests(history, max(state.get("consumed", 0), history.answered()))
    found = Found(
        newest=newest,
        ready=ready,
        waits="; ".join([waits, *watch.labels()]),
        late={key: value for key, value in late.items() if key not in given_up},
        requests=requests,
        marks=marks,
        settled=watch.settled,
    )
    seen = {"closed": newest, "labelled": labelled, "given_up": given_up, "consumed": consumed}
    return found, {**state, **seen, "looks": watch.looks}
