"""Judge a service's latency: are more requests slow than its objective allows?

Time a request waits before the service sees it (lag of the event loop) is a metric and not covered here.

`Service.latency_ms` bounds the 99.9th percentile: at most one request in a thousand may be slower. Below a thousand
requests that percentile is undefined, so nothing is judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import polars as pl

from platform_assets.store.records.decisions import Latency
from platform_assets.store.records.notes import Requests

MOST_SLOW = 0.001
"""The share of requests that may be slow, according to the 99.9th percentile."""
LEAST = 1_000
"""Below this many requests nothing is judged."""
ENOUGH = 10_000
"""Stop looking at earlier keys once the newest ones have this many requests: .3 % slow requests are then detected 84
times out of 100.
"""
CHANCE = 1e-4
"""Too many are slow when a service exactly at `MOST_SLOW` would show as many with at most this probability. It is small
because every key is judged: a service right at its objective gives one false alarm in 36 years of days, or 2 of hours.
"""


def count_requests(rows: pl.DataFrame, limit_ms: float) -> Requests:
    """Count a key's requests and the slow ones.

    Rows answered at one moment with one latency came from one request. `stalls` counts the distinct seconds in which a
    slow request was answered, because what delays one request delays its neighbours too.

    Args:
        rows: all answers of a key, with `answered_at_utc` and `latency_us`.
        limit_ms: the objective.
    """
    requests = rows.select("answered_at_utc", "latency_us").unique()
    slow = requests.filter(pl.col("latency_us") > limit_ms * 1_000)
    seconds = slow["answered_at_utc"].dt.truncate("1s").n_unique() if slow.height else 0
    return {"limit_ms": limit_ms, "requests": requests.height, "slow": slow.height, "stalls": seconds}


def judge(newest_first: Iterable[tuple[str, Requests]], limit_ms: float) -> Latency | None:
    """Judge the newest keys that together have `ENOUGH` requests, or all keys; None if nothing was counted.

    Args:
        newest_first: each key and its `count_requests`.
        limit_ms: the objective; a key counted against another one ends the window.
    """
    window: dict[str, Requests] = {}
    for key, counts in newest_first:
        if counts["limit_ms"] != limit_ms or sum(key_counts["requests"] for key_counts in window.values()) >= ENOUGH:
            break
        window[key] = counts
    if not window:
        return None
    keys, counts_of_keys = list(window), window.values()
    requests, slow = (
        sum(key_counts["requests"] for key_counts in counts_of_keys),
        sum(key_counts["slow"] for key_counts in counts_of_keys),
    )
    stalls = sum(key_counts["stalls"] for key_counts in counts_of_keys)
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
    """Return the probability that at least `count` of `of` independent requests are slow, each with chance `share`."""
    if count <= 0:
        return 1.0
    if count <= of * share:
        return max(0.0, 1.0 - _tail(count - 1, of, share, -1))
    return min(1.0, _tail(count, of, share, 1))


def _tail(count: int, of: int, share: float, step: int) -> float:
    """Add up binomial probabilities from `count` on, away from the mean, so that each is smaller than the last."""
    log_term = math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)
    term = math.exp(log_term + count * math.log(share) + (of - count) * math.log1p(-share))
    total, odds = 0.0, share / (1 - share)
    while 0 <= count <= of and term > total * 1e-17:
        total += term
        term *= odds * (of - count) / (count + 1) if step > 0 else count / (odds * (of - count + 1))
        count += step
    return total


def describe(latency: Latency | None) -> str:
    """Describe a judgement in one clause."""
    if latency is None:
        return "unknown: no answer of the newest keys was counted"
    span = latency.last if latency.keys == 1 else f"{latency.first} to {latency.last}"
    requests, slow = f"{latency.requests:,} requests on {span}", f"took longer than {latency.limit_ms:g} ms"
    if latency.share is None:
        return f"unknown: {requests}, of which {latency.slow:,} {slow}; the 99.9th percentile needs {LEAST:,}"
    verdict = "too many" if latency.is_slow else "within what the objective allows"
    return (
        f"{latency.share:.2%} of {requests} {slow}, in {latency.stalls:,} different seconds; {MOST_SLOW:.1%} may: "
        f"{verdict}"
    )
