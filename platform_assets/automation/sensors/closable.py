"""Find the keys that can be closed: their files are there and complete, or their deadline has passed.

Only the next keys are looked at. `arriving` checks whether a file is complete; `landings` launches the run.
"""

from datetime import datetime

from platform_assets.automation.sensors import changes, closed_keys
from platform_assets.automation.sensors.source_calls import SourceProblem
from platform_assets.base import naming
from platform_assets.product import planned
from platform_assets.product.spec import Product, Source

MOST_KEYS = 400
"""How many keys a tick looks at most; `planned.keys_per_run` limits how many one run takes."""
NOT_LANDED = changes.Incomplete("has not landed")


def most_keys(spec: Product) -> int:
    """Return how many keys a tick looks at: where a channel may take its time, what a run takes and one more."""
    are_landed = all(source.is_landed for source in spec.sources)
    return MOST_KEYS if are_landed else min(MOST_KEYS, planned.keys_per_run(spec) + 1)


def find(
    spec: Product, after: str | None, now: datetime, mark: changes.Mark, check: changes.Check
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the next keys that can be closed, why the key after them cannot, and the marks of their files.

    Args:
        after: the newest closed key.
        now: the product's moment.
        mark: looks for a landed file.
        check: checks whether a file is complete.
    """
    ready, marks, most = list[str](), list[str](), most_keys(spec)

    def check_over(source: Source, key: str, landed: str) -> changes.Incomplete | None:
        """Check a delivery once its key's period is over: until then rows may be added to it, however still it is."""
        opens_at = spec.taken_from(source, key)
        if opens_at is not None and now < opens_at:
            reason = f"has landed, and is taken in when its period is over, from {opens_at.isoformat()} on"
            return changes.Incomplete(reason, is_open=True)
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
    source: Source, key: str, mark: changes.Mark, check: changes.Check
) -> tuple[str | None, changes.Incomplete | None]:
    """Return a delivery's mark, and why it cannot be taken in. What a source does not answer keeps the key open."""
    try:
        landed = mark(source, key)
        return landed, NOT_LANDED if landed is None else check(source, key, landed)
    except SourceProblem as problem:
        return None, changes.Incomplete(str(problem), is_open=True)
