"""Find the newest closed key (the newest with a decision on record) without listing, by probing keys in order."""

from collections.abc import Callable, Iterator

from platform_assets.base.keys import Grain
from platform_assets.store.history.reader import History
from platform_assets.store.records.decisions import Decision


def newest(history: History, grain: Grain, hint: str | None = None) -> str | None:
    """Return the newest closed key, or None when there is none. Keys close in order, from the grain's first.

    Args:
        hint: a key that was closed before.
    """
    return last_key(grain, history.is_decided, hint)


def following(grain: Grain, key: str | None, most: int) -> Iterator[str]:
    """Yield up to `most` keys after one, or from the first on when there is none."""
    start = grain.index(key) + 1 if key is not None and grain.contains(key) else 0
    end = start + most if grain.size is None else min(start + most, grain.size)
    return map(grain.key_at, range(start, end))


def decisions(history: History, grain: Grain, read: str | None, most: int) -> list[Decision]:
    """Return up to `most` decisions after the key `read`, in order; from the first key on when it is None."""
    records: list[Decision] = []
    for key in following(grain, read, most):
        decision = history.decision(key)
        if decision is None:
            break
        records.append(decision)
    return records


def last_key(grain: Grain, holds: Callable[[str], bool], hint: str | None = None) -> str | None:
    """Return the last key for which a condition holds that also holds for every key before it, or None.

    Costs two calls of `holds` with a good hint; without one, the end is found by doubling and halving.

    Args:
        grain: orders the keys.
        holds: tests the condition for a key.
        hint: a key to start at; ignored when the condition does not hold there.
    """

    def holds_at(index: int) -> bool:
        return (grain.size is None or index < grain.size) and holds(grain.key_at(index))

    low = grain.index(hint) if hint is not None and grain.contains(hint) else -1
    if low >= 0 and not holds_at(low):
        low = -1
    step = 1
    while holds_at(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds_at(middle) else (low, middle)
    return grain.key_at(low) if low >= 0 else None
