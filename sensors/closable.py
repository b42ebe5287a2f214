"""Find the keys that can be closed: their files are there and complete, or their deadline has passed.

Only the next keys are looked at. `arriving` checks whether a file is complete; `landings` launches the run.
"""

from collections.abc import Callable
from datetime import datetime

from platform_assets import naming
from platform_assets.specs.base import ProductSpec
from sensors import changes, closed_keys

MOST_KEYS = 400
"""How many keys a tick looks at; `planned.keys_per_run` limits how many one run takes."""
NOT_LANDED = changes.Incomplete("has not landed")


def find(
    spec: ProductSpec, after: str | None, now: datetime, mark: changes.Mark, check: changes.Check
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the next keys that can be closed, why the key after them cannot, and the marks of their files.

    Args:
        after: the newest closed key.
        now: the product's moment.
        mark: looks for a landed file.
        check: checks whether a file is complete.
    """
    ready, marks = list[str](), list[str]()
    for source in spec.sources:
        if source.is_slow:
            landed = mark(source, naming.UNPARTITIONED)
            problem = NOT_LANDED if landed is None else check(source, naming.UNPARTITIONED, landed)
            if problem is not None:
                return (), f"{source.name}, which every key needs, {problem.reason}", ()
    for key in closed_keys.following(spec.grain, after, MOST_KEYS):
        files = []
        for source in spec.feature_sources:
            if source.is_slow:
                continue
            landed = mark(source, key)
            problem = NOT_LANDED if landed is None else check(source, key, landed)
            due_at = spec.due_at(source, key)
            if problem is not None and (due_at is None or now < due_at or problem.is_open):
                until = f"; due {due_at.isoformat()}, now {now.isoformat()}" if due_at else ""
                return tuple(ready), f"{source.name} of {key} {problem.reason}{until}", tuple(marks)
            files.append(f"{source.name} {key} {landed if problem is None else 'missing'}")
        ready.append(key)
        marks.append(", ".join(files))
    if len(ready) == MOST_KEYS:
        return tuple(ready), f"at least {MOST_KEYS} keys can be closed; later runs take the rest", tuple(marks)
    return tuple(ready), f"the last key, {spec.grain.last}, is closed", tuple(marks)


def until_waiting(
    ready: tuple[str, ...], wait_reason: str, marks: tuple[str, ...], reason_to_wait: Callable[[str], str]
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return what `find` returned, up to the first key that waits for answers.

    Args:
        reason_to_wait: returns why a key waits, "" if it does not.
    """
    for place, key in enumerate(ready):
        if reason := reason_to_wait(key):
            return ready[:place], reason, marks[:place]
    return ready, wait_reason, marks
