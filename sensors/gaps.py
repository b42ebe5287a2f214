"""Find the keys that a stage lacks, up to the newest one that must be there.

Belongs here: bounded reading; a gap in the middle counts like a missing newest key. Does not belong here: what the
clock lets expect, or telling a person (`freshness`).
"""

from dataclasses import dataclass

from platform_assets.facts import unlabelled
from platform_assets.handle import Product
from platform_assets.keys import Grain

KEYS_BACK, KEYS_ON = 31, 8
"""How many keys around the expected one are looked at; of labels those too that are still waited for."""
DECISION, OUTCOMES = "decision", "outcomes"


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """What a stage has and lacks.

    Attributes:
        newest: the newest key that is there, as far as was looked; None when none is.
        missing: the expected keys that are not there, in order; keys whose labels were given up count as settled, but
            for the newest ones.
        given_up: keys since the first that was missing before, whose labels were given up and have not come.
        whole: the last key up to which nothing is missing, at the expected one or later; None when something is.
    """

    newest: str | None
    missing: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    whole: str | None = None


def find(
    product: Product, stage: str, expected: str, *, closed: str | None, whole: str | None, since: str | None
) -> Gaps:
    """Return what a stage lacks up to the expected key; nothing is read while it is known to be whole.

    Args:
        product: the product.
        stage: which one.
        expected: the newest key that must be there.
        closed: the newest closed key: keys close in order, so no decision is missing before it.
        whole: up to which key nothing was missing before.
        since: the first key that was missing before.
    """
    spec = product.spec
    if stage == DECISION:
        return _undecided(spec.grain, expected, closed)
    grain, place = spec.grain, spec.grain.index(expected)
    if whole is not None and grain.contains(whole) and grain.index(whole) >= place:
        return Gaps(newest=whole, whole=whole)
    starts = [place - KEYS_BACK - (spec.label_delay + spec.label_patience if stage == OUTCOMES else 0)]
    starts += [grain.index(key) for key in (since, whole) if key is not None and grain.contains(key)]
    end = place + KEYS_ON if grain.size is None else min(place + KEYS_ON, grain.size - 1)
    keys = [grain.key_at(at) for at in range(max(0, min(starts)), end + 1)]
    tables = product.tables
    there = set(tables.records(stage, keys))
    last = keys.index(expected)
    lacking = [key for key in keys[: last + 1] if key not in there]
    settled = unlabelled.missing(tables, lacking) if stage == OUTCOMES and lacking else {}
    tail = last + 1
    while tail > 0 and keys[tail - 1] not in there:
        tail -= 1
    # Given up or not, a stage that lacks its newest keys is stale.
    missing = tuple(key for key in lacking if key not in settled or key in keys[tail:])
    while last + 1 < len(keys) and keys[last + 1] in there:
        last += 1
    return Gaps(
        newest=max(there, key=grain.index, default=None),
        missing=missing,
        given_up=tuple(key for key in settled if since is not None and grain.index(key) >= grain.index(since)),
        whole=None if missing else keys[last],
    )


def _undecided(grain: Grain, expected: str, closed: str | None) -> Gaps:
    place, first = grain.index(expected), 0 if closed is None else grain.index(closed) + 1
    missing = tuple(grain.key_at(at) for at in range(max(first, place - KEYS_BACK), place + 1))
    return Gaps(newest=closed, missing=missing, whole=None if missing else closed)
