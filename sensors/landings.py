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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
import msgspec
from msgspec.structs import replace

from platform_assets.keys import Grain
from platform_assets.specs import planned
from platform_assets.storage.artifacts import canonical, sha256
from resources.alerts import episode_id
from sensors import arriving, changes, closable, closed_keys, episodes, landed_files, ticks

VERB = "advance"
MOST_ATTEMPTS = 8
PAUSES = (0, 1, 2, 4, 8, 16, 32)
"""How many ticks the next attempt waits after the first, second ... one failed."""
BUSY_VERBS = ("advance", "repair", "accept")


class State(ticks.State, frozen=True, kw_only=True):
    """What is known of a product's keys, and of the run that was asked for last.

    Attributes:
        closed: the newest closed key.
        labelled: the last closed keys whose labels were taken in.
        given_up: marks of labels that are left alone, by key.
        consumed: the number up to which requests are settled.
        looks: at files that are not known to be whole.
        episode: of the run; empty when none is needed.
        asked, ticks: see `episodes.next_step`.
        takes: see `Plan`.
        is_told: whether a person was told that the run is given up.
    """

    closed: str | None = None
    labelled: tuple[str, ...] = ()
    given_up: dict[str, str] = msgspec.field(default_factory=dict)
    consumed: int = 0
    looks: dict[str, arriving.Look] = msgspec.field(default_factory=dict)
    episode: str = ""
    asked: int = 0
    ticks: int = 0
    takes: int = 0
    is_told: bool = False

    def of_episode(self, episode: str = "") -> "State":
        """Return it with another episode, which nothing was done about; by default none."""
        return replace(self, episode=episode, asked=0, ticks=0, takes=0, is_told=False)


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


def plan(grain: Grain, found: Found, most: int = closable.MOST_KEYS) -> Plan | str:
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
    of_late = (f"{key} {mark}" for key, mark in sorted(late.items()))
    new = [first, last, *found.marks[: len(ready)], *of_late, *map(str, asked)]
    return Plan(
        first=first,
        last=last,
        episode=sha256(canonical(new))[:12],
        why=_why(grain, found, ready, late, asked, follow),
        late=late,
        takes=takes,
        follow=follow,
        rest=None if is_open else rest,
    )


def _why(
    grain: Grain, found: Found, ready: Sequence[str], late: Collection[str], asked: Mapping[int, str], follow: int
) -> str:
    """Return what is new in a run, and how many keys it leaves to the next ones."""
    parts = []
    if ready:
        parts.append(f"{ready[0] if len(ready) == 1 else f'{ready[0]} to {ready[-1]}'} can be closed")
    if late:
        parts.append(f"labels of {', '.join(sorted(late, key=grain.index))} came late")
    parts += [f"request {number} asks for {key} again" for number, key in asked.items()]
    if follow:
        least = "at least " if len(found.ready) >= closable.MOST_KEYS else ""
        parts.append(f"{least}{follow} {'key follows' if follow == 1 else 'keys follow'}")
    return "; ".join(parts)


@ticks.Sensor(
    "landings",
    ticks.PerProduct(State),
    about="Closes each product's next keys when their files have landed or their deadline has passed.",
    every_s=1,
    needs=("store", "alerts"),
    verb=VERB,
    is_patient=True,
)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Seen[State]:
    """Launch the run that a product needs, unless one is under way."""
    busy = tick.under_way(*BUSY_VERBS)
    if busy is not None:
        return ticks.Seen(state=state, reason=f"{busy.job_name} is {busy.status.value.lower()} (run {busy.run_id})")
    job = tick.job(VERB)
    before = episodes.tries_of(tick.instance, job, state.episode) if state.takes else ()
    if any(item.status is dg.DagsterRunStatus.SUCCESS for item in before):
        changes.answer(tick.product, state.takes, "advanced", tick.now)
        state = replace(state, consumed=state.takes, takes=0)
    found, state = _find(tick, state)
    wanted = plan(tick.spec.grain, found, planned.keys_per_run(tick.spec))
    if isinstance(wanted, str):
        return ticks.Seen(state=state.of_episode(), reason=wanted)
    if wanted.episode != state.episode:
        state = state.of_episode(wanted.episode)
    # A run that succeeded and left the same to do would do so for ever: it counts as one that failed.
    tries = episodes.without_success(episodes.tries_of(tick.instance, job, wanted.episode))
    step = episodes.next_step(tries, asked=state.asked, ticks=state.ticks, most=MOST_ATTEMPTS, pauses=PAUSES)
    state = replace(state, ticks=step.ticks)
    if step.do == "launch":
        return _launch(tick, state, found, wanted, step)
    if step.do == "give_up" and not state.is_told:
        state = _give_up(tick, state, found, wanted, step)
    return ticks.Seen(state=state, reason=f"{wanted.why}; {step.reason}")


def _launch(
    tick: ticks.ProductTick, state: State, found: Found, wanted: Plan, step: episodes.Step
) -> ticks.Seen[State]:
    if wanted.rest is not None:
        # On record before the run, not in the cursor: late labels that the run takes in name the rest no longer.
        why = f"the keys after {wanted.last} follow in a run of their own"
        changes.ask(tick.product.ledgers, wanted.rest, why, tick.now)
    job, keys = tick.job(VERB), tick.spec.grain.span(wanted.first, wanted.last)
    run = dg.RunRequest(
        run_key=f"{job}:{wanted.first}...{wanted.last}:{wanted.episode}:{step.attempt}",
        job_name=job,
        tags={
            "dagster/asset_partition_range_start": wanted.first,
            "dagster/asset_partition_range_end": wanted.last,
            **episodes.tags(wanted.episode, step.attempt),
            **arriving.tags(keys, found.settled, found.requests),
        },
    )
    told = f"{wanted.first} to {wanted.last}: {wanted.why} ({step.reason})"
    return ticks.Seen(state=replace(state, asked=step.attempt, takes=wanted.takes), reason=told, requests=(run,))


def _give_up(tick: ticks.ProductTick, state: State, found: Found, wanted: Plan, step: episodes.Step) -> State:
    text = f"{tick.job(VERB)} over {wanted.first} to {wanted.last} is given up: {step.reason}. {wanted.why}."
    alert_id = episode_id("advance", wanted.episode)
    tick.tell(alert_id, kind="gave_up", text=text, first=wanted.first, last=wanted.last, attempts=step.attempt)
    # With the run its rest is given up too, so that trainings do not wait for it.
    takes = max((number for number, _ in found.requests), default=0)
    if takes:
        changes.answer(tick.product, takes, "given_up", tick.now)
    # What came late is left alone from now on, so that it does not keep new keys from being closed.
    given_up = {**state.given_up, **wanted.late}
    return replace(state, is_told=True, given_up=given_up, consumed=max(takes, state.consumed))


def _find(tick: ticks.ProductTick, state: State) -> tuple[Found, State]:
    spec = tick.spec
    mark = landed_files.marks(tick.product)
    newest = closed_keys.newest(tick.history, spec.grain, state.closed)
    watch = arriving.Watch(tick.product, mark, state.looks)
    ready, waits, marks = closable.find(spec, newest, tick.now, mark, watch.why_not)
    watch.look_ahead((ready or (newest,))[-1], closable.MOST_KEYS)
    late, labelled = changes.late_labels(tick.product, newest, state.labelled, mark, watch.why_not)
    given_up = {key: value for key, value in state.given_up.items() if late.get(key) == value}
    requests, consumed = changes.open_requests(tick.history, state.consumed)
    found = Found(
        newest=newest,
        ready=ready,
        waits="; ".join([waits, *watch.labels()]),
        late={key: value for key, value in late.items() if key not in given_up},
        requests=requests,
        marks=marks,
        settled=watch.settled,
    )
    state = replace(state, closed=newest, labelled=labelled, given_up=given_up, consumed=consumed, looks=watch.looks)
    return found, state
