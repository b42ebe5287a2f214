"""Decide which keys can be closed, and which run does that: the sensor `landings` launches it.

A key can be closed when its files are there and complete, or their deadline has passed. Only the next keys are looked
at. One run both closes new keys and repairs closed ones whose inputs changed: it goes from the oldest key with a
changed input to the newest that can be closed, as far as one run may go (`product.planned`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from platform_assets.base import naming
from platform_assets.base.keys import Grain
from platform_assets.base.wording import counted
from platform_assets.data import closed_keys, key_changes
from platform_assets.data.source_calls import SourceProblem
from platform_assets.product import planned
from platform_assets.product.spec import Product, Source
from platform_assets.store.artifacts import canonical, sha256

MOST_KEYS = 400
"""How many keys a tick looks at most; `planned.keys_per_run` limits how many one run takes."""
NOT_LANDED = key_changes.Incomplete("has not landed")


def most_keys(spec: Product) -> int:
    """Return how many keys a tick looks at: where a channel may take its time, what a run takes and one more."""
    are_landed = all(source.is_landed for source in spec.sources)
    return MOST_KEYS if are_landed else min(MOST_KEYS, planned.keys_per_run(spec) + 1)


def find(
    spec: Product, after: str | None, now: datetime, mark: key_changes.Mark, check: key_changes.Check
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the next keys that can be closed, why the key after them cannot, and the marks of their files.

    Args:
        after: the newest closed key.
        now: the product's moment.
        mark: looks for a landed file.
        check: checks whether a file is complete.
    """
    ready, marks, most = list[str](), list[str](), most_keys(spec)

    def check_over(source: Source, key: str, landed: str) -> key_changes.Incomplete | None:
        """Check a delivery once its key's period is over: until then rows may be added to it, however still it is."""
        opens_at = spec.taken_from(source, key)
        if opens_at is not None and now < opens_at:
            reason = f"has landed, and is taken in when its period is over, from {opens_at.isoformat()} on"
            return key_changes.Incomplete(reason, is_open=True)
        return check(source, key, landed)

    for source in spec.sources:
        if source.is_slow:
            _, problem = _look(source, naming.UNPARTITIONED, mark, check)
            if problem is not None:
                return (), f"{source.name}, which every key needs, {problem.reason}", ()
    for key in closed_keys.following(spec.grain, after, most):
        files = []
        for source in spec.feature_sources:
            if source.is_slow:
                continue
            landed, problem = _look(source, key, mark, check_over)
            due_at = spec.due_at(source, key)
            if problem is not None and (due_at is None or now < due_at or problem.is_open):
                until = f"; due {due_at.isoformat()}, now {now.isoformat()}" if due_at else ""
                return tuple(ready), f"{source.name} of {key} {problem.reason}{until}", tuple(marks)
            files.append(f"{source.name} {key} {landed if problem is None else 'missing'}")
        opens_at = spec.closes_from(key)
        if opens_at is not None and now < opens_at:
            return tuple(ready), f"{key} is not over before {opens_at.isoformat()}; now {now.isoformat()}", tuple(marks)
        ready.append(key)
        marks.append(", ".join(files))
    if len(ready) == most:
        return tuple(ready), f"at least {most} keys can be closed; later runs take the rest", tuple(marks)
    return tuple(ready), f"the last key, {spec.grain.last}, is closed", tuple(marks)


def _look(
    source: Source, key: str, mark: key_changes.Mark, check: key_changes.Check
) -> tuple[str | None, key_changes.Incomplete | None]:
    """Return a delivery's mark, and why it cannot be taken in. What a source does not answer keeps the key open."""
    try:
        landed = mark(source, key)
        return landed, NOT_LANDED if landed is None else check(source, key, landed)
    except SourceProblem as problem:
        return None, key_changes.Incomplete(str(problem), is_open=True)


@dataclass(frozen=True, kw_only=True)
class Renewed:
    """The keys that a run makes again; `keys_left` is how many older ones follow, `id` names the present versions."""

    first: str
    last: str
    keys: int
    keys_left: int
    id: str


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
        looked_at: how many keys the tick looked at most; None for `MOST_KEYS`.
    """

    newest: str | None
    ready: tuple[str, ...] = ()
    wait_reason: str = ""
    late: Mapping[str, str] = field(default_factory=dict)
    requests: key_changes.OpenRequests = ()
    marks: tuple[str, ...] = ()
    settled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    older: Renewed | None = None
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


def plan(grain: Grain, findings: Findings, most: int = MOST_KEYS) -> Plan | str:
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
        least = "at least " if len(findings.ready) >= (findings.looked_at or MOST_KEYS) else ""
        parts.append(f"{least}{keys_left} {'key follows' if keys_left == 1 else 'keys follow'}")
    return "; ".join(parts)
