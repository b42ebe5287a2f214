"""Find how many keys back `features` reads, by building keys from histories of different length.

Belongs here: which keys are tried, and the search for the shortest history that gives the same rows. Does not belong
here: building rows (`trial`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise

import polars as pl

from platform_assets.checking import same
from platform_assets.checking.told import counted, mend_of
from platform_assets.keys import DailyGrain, Grain, HourlyGrain
from platform_assets.specs.base import ProductSpec

RECENT, RECENT_HOURS = 7, 24
"""How many of the last keys are tried: each day of a week, each hour of a day, in whatever time zone."""
MONTHS = 2
"""How many ends of months are tried: of two months in a row one has 31 days, or is followed by one that has."""
MOST_KEYS = 400
"""How long the longer history is, at least where there are as many keys: more than a year of days."""
TOLERANCE = 1e-9
"""Relative, of floats: a running sum that begins elsewhere rounds otherwise, and reads no other rows for that."""


def tried(grain: Grain, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys at which features reach back farthest, in order.

    What is joined by day, week or month reaches farthest at the last key of one, so the ends of the last seven days and
    of the last two months are among them.

    Args:
        grain: of the product.
        keys: contiguous, in order.
    """
    recent = RECENT_HOURS if isinstance(grain, HourlyGrain) else RECENT
    chosen = set(keys[-recent:])
    if isinstance(grain, DailyGrain | HourlyGrain):
        starts = [grain.instant(key).astimezone(grain.zone) for key in keys]
        chosen.update(_ends(keys, starts, "%Y-%m-%d")[-RECENT:])
        chosen.update(_ends(keys, starts, "%Y-%m")[-MONTHS:])
    return tuple(key for key in keys if key in chosen)


def check_reach(spec: ProductSpec, build: Callable[[str, int], pl.DataFrame], keys: tuple[str, ...]) -> str | None:
    """Compare keys that are built from `lookback` keys with what a longer history makes of them.

    Args:
        spec: of the product.
        build: `(key, count) -> rows` of the key alone, from `count` keys before it.
        keys: contiguous, in order; each may be built from all those before it.

    Returns:
        What to tell; None when no key has a longer history.

    Raises:
        Problem: with the reach that was found, and a cell that differs.
    """
    lookback, before = spec.lookback, {key: place for place, key in enumerate(keys)}
    chosen = [key for key in tried(spec.grain, keys) if before[key] > lookback]
    worst, found = None, lookback
    for key in chosen:
        full = build(key, before[key])
        if not _are_same(build(key, found), full):
            worst, found = key, needed(partial(_is_enough, build, key, full), least=found, most=before[key])
    if worst is None:
        longest = before[chosen[-1]] if chosen else 0
        return (
            None
            if not chosen
            else (
                f"{counted(len(chosen), 'key')} alone, {chosen[0]} to {chosen[-1]}, are the same from "
                f"{counted(lookback, 'key')} before each as from up to {longest:,}"
            )
        )
    is_all = found == before[chosen[-1]]  # the last key has the longest history; with less it would be bounded
    more, bound = (" or more", ", or bound what it reads if no lookback is enough") if is_all else ("", "")
    words = (
        f"features() of {spec.name} reads {counted(found, 'key')} back{more}; raise lookback (it is {lookback}) to "
        f"{found}{bound}. Built from {counted(lookback, 'key')} before it, not {before[worst]}, {worst} is different"
    )
    full, short = build(worst, before[worst]), build(worst, lookback)
    same.check_columns(full, short, words, mend_of(spec))
    same.check_cells(full, short, words, mend_of(spec), changed)
    return None


def needed(is_same: Callable[[int], bool], *, least: int, most: int) -> int:
    """Return the shortest history, in keys, that gives the same rows as the longest.

    Costs a logarithm of builds. A longer history is taken to be as good as a shorter one.

    Args:
        is_same: whether a history of so many keys gives the rows that `most` gives.
        least: a history that does not.
        most: the longest history.
    """
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if is_same(middle) else (middle, most)
    return most


def changed(one: pl.Series, other: pl.Series) -> pl.Series:
    """Return for each row whether two columns of one type say something else; floats may differ by rounding."""
    differs = one.ne_missing(other)
    if one.dtype.is_float() and differs.any():
        size = pl.max_horizontal(pl.col("one").abs(), pl.col("other").abs())
        pair = pl.DataFrame({"one": one, "other": other})
        is_close = ((pl.col("one") - pl.col("other")).abs() <= TOLERANCE * size).fill_null(False)
        differs = differs & ~pair.select(is_close).to_series()
    return differs


def _is_enough(build: Callable[[str, int], pl.DataFrame], key: str, full: pl.DataFrame, count: int) -> bool:
    return _are_same(build(key, count), full)


def _are_same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    return (
        one.schema == other.schema
        and one.height == other.height
        and not any(changed(one[name], other[name]).any() for name in one.columns)
    )


def _ends(keys: Sequence[str], starts: Sequence[datetime], period: str) -> list[str]:
    """Return the keys after which another day or month begins; the last key is unknown."""
    named = zip(keys, [start.strftime(period) for start in starts], strict=True)
    return [key for (key, own), (_, following) in pairwise(named) if own != following]
