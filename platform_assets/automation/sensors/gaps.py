"""Find the keys that a stage lacks, up to the newest one that must be there.

Reading is bounded. A gap in the middle counts as much as a missing newest key.
"""

from dataclasses import dataclass

from platform_assets.data import unlabelled
from platform_assets.store.product_store import ProductStore

KEYS_BACK, KEYS_ON = 31, 8
"""How many keys before and after the expected one are looked at; for labels, plus those that are still waited for."""
DECISION, OUTCOMES = "decision", "outcomes"


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """What a stage has and lacks.

    Attributes:
        newest: the newest key that is there, among those looked at; None when there is none.
        missing: the expected keys that are not there, in order. Keys whose labels were given up do not count, except
            the newest ones.
        given_up: keys after the first one that was missing before, whose labels were given up and have not arrived.
        whole: the last key up to which nothing is missing, at the expected one or later; None when something is.
    """

    newest: str | None
    missing: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    whole: str | None = None


def find(
    product: ProductStore, stage: str, expected: str, *, closed: str | None, whole: str | None, since: str | None
) -> Gaps:
    """Return what a stage lacks up to the expected key; reads nothing while the stage is known to be complete.

    Args:
        expected: the newest key that must be there.
        closed: the newest closed key: keys close in order, so no decision before it is missing.
        whole: the key up to which nothing was missing before.
        since: the first key that was missing before.
    """
    spec, grain = product.spec, product.spec.grain
    position = grain.index(expected)
    if stage == DECISION:
        first = max(0 if closed is None else grain.index(closed) + 1, position - KEYS_BACK)
        undecided = tuple(map(grain.key_at, range(first, position + 1)))
        return Gaps(newest=closed, missing=undecided, whole=None if undecided else closed)
    if whole is not None and grain.contains(whole) and grain.index(whole) >= position:
        return Gaps(newest=whole, whole=whole)
    starts = [position - KEYS_BACK - (spec.label_delay + spec.label_patience if stage == OUTCOMES else 0)]
    starts += [grain.index(key) for key in (since, whole) if key is not None and grain.contains(key)]
    end = position + KEYS_ON if grain.size is None else min(position + KEYS_ON, grain.size - 1)
    keys = [grain.key_at(index) for index in range(max(0, min(starts)), end + 1)]
    tables = product.tables
    present = set(tables.records(stage, keys))
    last = keys.index(expected)
    lacking = [key for key in keys[: last + 1] if key not in present]
    settled = unlabelled.missing(tables, lacking) if stage == OUTCOMES and lacking else {}
    tail = last + 1
    while tail > 0 and keys[tail - 1] not in present:
        tail -= 1
    # Given up or not, a stage that lacks its newest keys is stale.
    missing = tuple(key for key in lacking if key not in settled or key in keys[tail:])
    while last + 1 < len(keys) and keys[last + 1] in present:
        last += 1
    return Gaps(
        newest=max(present, key=grain.index, default=None),
        missing=missing,
        given_up=tuple(key for key in settled if since is not None and grain.index(key) >= grain.index(since)),
        whole=None if missing else keys[last],
    )
