"""Find how many keys back `features` reads: build keys from histories of different length and compare the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise

import polars as pl

from platform_assets.base.keys import DailyGrain, Grain, HourlyGrain
from platform_assets.base.wording import counted, span
from platform_assets.check import same
from platform_assets.check.messages import fix_in
from platform_assets.product.spec import Product

RECENT, RECENT_HOURS = 7, 24
"""How many of the last keys are tried: every day of a week, every hour of a day, in any time zone."""
MONTHS = 2
"""How many ends of months are tried: of two consecutive months, one has 31 days or is followed by one that does."""
MOST_KEYS = 400
"""Length of the longer history, where that many keys are available: more than a year of days."""
TOLERANCE = 1e-9
"""Relative, for floats: a running sum that starts at another row rounds differently without reading other rows."""


def farthest_reaching(grain: Grain, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys at which features reach back farthest, in order.

    A join by day, week or month reaches farthest at its last key, so the ends of the last seven days and of the last
    two months are included.

    Args:
        keys: contiguous, in order.
    """
    recent = RECENT_HOURS if isinstance(grain, HourlyGrain) else RECENT
    chosen = set(keys[-recent:])
    if isinstance(grain, DailyGrain | HourlyGrain):
        starts = [grain.instant(key).astimezone(grain.zone) for key in keys]
        chosen.update(_ends(keys, starts, "%Y-%m-%d")[-RECENT:])
        chosen.update(_ends(keys, starts, "%Y-%m")[-MONTHS:])
    return tuple(key for key in keys if key in chosen)


def check_reach(spec: Product, build: Callable[[str, int], pl.DataFrame], keys: tuple[str, ...]) -> str | None:
    """Compare keys built from `lookback` keys with the same keys built from a longer history.

    Args:
        build: `(key, count) -> rows` of the key alone, from `count` keys before it.
        keys: contiguous, in order; a key may be built from all keys before it.

    Returns:
        A summary; None when no key has a longer history.

    Raises:
        Problem: names how many keys back the features read, and a cell that differs.
    """
    lookback, before = spec.lookback, {key: index for index, key in enumerate(keys)}
    chosen = [key for key in farthest_reaching(spec.grain, keys) if before[key] > lookback]
    worst, reached = None, lookback
    for key in chosen:
        full = build(key, before[key])
        if not _are_same(build(key, reached), full):
            worst, reached = key, needed(partial(_is_enough, build, key, full), least=reached, most=before[key])
    if not chosen:
        return None
    if worst is None:
        return (
            f"{counted(len(chosen), 'key')} built alone ({span(chosen)}): the same rows from "
            f"{counted(lookback, 'key')} before each as from up to {before[chosen[-1]]:,}"
        )
    is_all = reached == before[chosen[-1]]  # the last key has the longest history; a shorter reach is a bound
    more, bound = (" or more", ", or bound what it reads if no lookback is enough") if is_all else ("", "")
    message = (
        f"features() of {spec.name} reads {counted(reached, 'key')} back{more}; raise lookback (it is {lookback}) to "
        f"{reached}{bound}. Built from {counted(lookback, 'key')} before it, not {before[worst]}, {worst} differs"
    )
    full, short = build(worst, before[worst]), build(worst, lookback)
    same.check_same(full, short, message, fix_in(spec), differ=changed)
    return None


def needed(is_same: Callable[[int], bool], *, least: int, most: int) -> int:
    """Return the shortest history, in keys, that gives the same rows as the longest.

    Takes a logarithmic number of builds, and assumes that a longer history is never worse than a shorter one.

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
    """Return for each row whether two columns of one type differ; floats may differ by rounding."""
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
    """Return the keys after which another day or month begins; the last key is left out, its successor is unknown."""
    periods = zip(keys, [start.strftime(period) for start in starts], strict=True)
    return [key for (key, current), (_, following) in pairwise(periods) if current != following]
