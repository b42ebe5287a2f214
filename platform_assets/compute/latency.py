"""Judge how fast a service answers: whether more requests are slow than the objective of its product allows.

Belongs here: counting slow requests, and what chance makes of counts. Does not belong here: reading (`facts.latency`),
or time that a request waits before the service knows of it (the event loop's lag, a metric).

`Service.latency_ms` bounds the 99.9th percentile: at most one request in a thousand may be slower. Of fewer than a
thousand requests that percentile is not defined, and nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import polars as pl

from platform_assets.records.decisions import Latency
from platform_assets.records.notes import Requests

MOST_SLOW = 0.001
"""The share of requests that may be slow: what the 99.9th percentile leaves."""
LEAST = 1_000
"""With fewer requests nothing is judged."""
ENOUGH = 10_000
"""No earlier key is looked at once the newest ones have as many: .3 % of slow requests are found 84 times of 100."""
CHANCE = 1e-4
"""Slow requests are too many when a share of `MOST_SLOW` brings as many with this probability at most. It is small
because each key is judged: a service right at its objective gives a false alarm in 36 years of days or 2 of hours."""


def counted(rows: pl.DataFrame, limit_ms: float) -> Requests:
    """Count a key's requests and those that took longer than the objective.

    Rows of one list are one request: they were answered at one moment. `stalls` counts the seconds in which a slow
    request was answered, because what holds up one request holds up those beside it.

    Args:
        rows: all answers of a key, with `answered_at_utc` and `latency_us`.
        limit_ms: the objective.
    """
    requests = rows.select("answered_at_utc", "latency_us").unique()
    slow = requests.filter(pl.col("latency_us") > limit_ms * 1_000)
    seconds = slow["answered_at_utc"].dt.truncate("1s").n_unique() if slow.height else 0
    return {"limit_ms": limit_ms, "requests": requests.height, "slow": slow.height, "stalls": seconds}


def judged(newest_first: Iterable[tuple[str, Requests]], limit_ms: float) -> Latency | None:
    """Judge the newest keys that together have `ENOUGH` requests, or all; None where none was counted.

    Args:
        newest_first: key and what `counted` returned of it.
        limit_ms: the objective; keys that were counted against another one end the window.
    """
    window: dict[str, Requests] = {}
    for key, counts in newest_first:
        if counts["limit_ms"] != limit_ms or sum(each["requests"] for each in window.values()) >= ENOUGH:
            break
        window[key] = counts
    if not window:
        return None
    keys, counted = list(window), window.values()
    requests, slow = sum(each["requests"] for each in counted), sum(each["slow"] for each in counted)
    stalls = sum(each["stalls"] for each in counted)
    is_judged = requests >= LEAST
    chance = at_least(stalls, requests, MOST_SLOW) if is_judged else None
    return Latency(
        first=keys[-1],
        last=keys[0],
        keys=len(keys),
        limit_ms=limit_ms,
        requests=requests,
        slow=slow,
        stalls=stalls,
        share=slow / requests if is_judged else None,
        p_value=chance,
        is_slow=None if chance is None else chance < CHANCE,
    )


def at_least(count: int, of: int, share: float) -> float:
    """Return the probability of `count` or more among `of` independent requests of which each is slow by `share`."""
    if count <= 0:
        return 1.0
    if count <= of * share:
        return max(0.0, 1.0 - _tail(count - 1, of, share, -1))
    return min(1.0, _tail(count, of, share, 1))


def _tail(count: int, of: int, share: float, step: int) -> float:
    """Add up binomial probabilities from `count` on, away from the mean: each is smaller than the one before."""
    log_term = math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)
    term = math.exp(log_term + count * math.log(share) + (of - count) * math.log1p(-share))
    total, odds = 0.0, share / (1 - share)
    while 0 <= count <= of and term > total * 1e-17:
        total += term
        term *= odds * (of - count) / (count + 1) if step > 0 else count / (odds * (of - count + 1))
        count += step
    return total


def words(found: Latency | None) -> str:
    """Return a judgement in one clause."""
    if found is None:
        return "unknown: no answer of the newest keys was counted"
    span = found.last if found.keys == 1 else f"{found.first} to {found.last}"
    requests, slow = f"{found.requests:,} requests on {span}", f"took longer than {found.limit_ms:g} ms"
    if found.share is None:
        return f"unknown: {requests}, of which {found.slow:,} {slow}; the 99.9th percentile needs {LEAST:,}"
    verdict = "too many" if found.is_slow else "within what the objective allows"
    return (
        f"{found.share:.2%} of {requests} {slow}, in {found.stalls:,} different seconds; {MOST_SLOW:.1%} may: {verdict}"
    )
