"""Find the keys that can be closed: their files are there and whole, or their deadline has passed.

Belongs here: looking at the next expected keys alone. Does not belong here: the run that closes them (`landings`), or
telling whether a file is whole (`arriving`).
"""

from datetime import datetime

from platform_assets import naming
from platform_assets.specs.base import ProductSpec
from sensors import changes, closed_keys

MOST_KEYS = 400
"""How many keys a tick looks at; how many one run takes is `planned.keys_per_run`."""
NOT_LANDED = changes.Unfinished("has not landed")


def find(
    spec: ProductSpec, after: str | None, now: datetime, mark: changes.Mark, why_not: changes.WhyNot
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the next keys that can be closed, why the one after them cannot, and the marks of their files.

    Args:
        spec: the product.
        after: the newest closed key.
        now: the product's moment.
        mark: looks for a landed file.
        why_not: says why one is not known to be whole.
    """
    ready, marks = list[str](), list[str]()
    for source in spec.sources:
        if source.is_slow:
            found = mark(source, naming.UNPARTITIONED)
            why = NOT_LANDED if found is None else why_not(source, naming.UNPARTITIONED, found)
            if why is not None:
                return (), f"{source.name} {why.why}, which every key needs", ()
    for key in closed_keys.following(spec.grain, after, MOST_KEYS):
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
    is_more = len(ready) == MOST_KEYS
    waits = f"more than {MOST_KEYS} keys can be closed; the others follow"
    return tuple(ready), waits if is_more else f"{spec.grain.last} is the last key and closed", tuple(marks)
