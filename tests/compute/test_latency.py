"""How fast answers were: one request in a thousand may be slow, and chance is no alarm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import comb
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.compute import latency
from platform_assets.records.decisions import Latency

NOON = datetime(2020, 1, 11, 12, tzinfo=UTC)


def answered(*each: tuple[float, float]) -> pl.DataFrame:
    """Return answers by (seconds after noon, milliseconds that they took)."""
    moments = [NOON + timedelta(seconds=seconds) for seconds, _ in each]
    took = [round(ms * 1_000) for _, ms in each]
    return pl.DataFrame(
        {"answered_at_utc": moments, "latency_us": took},
        schema={"answered_at_utc": pl.Datetime("us", "UTC"), "latency_us": pl.Int64},
    )


def key(requests: int, slow: int = 0, *, stalls: int | None = None, limit_ms: float = 100.0) -> dict[str, Any]:
    return {"limit_ms": limit_ms, "requests": requests, "slow": slow, "stalls": slow if stalls is None else stalls}


def judged(*newest_first: dict[str, Any], limit_ms: float = 100.0) -> Latency | None:
    return latency.judge([(f"{9 - place}", counts) for place, counts in enumerate(newest_first)], limit_ms)


def test_a_list_is_one_request_and_slow_ones_of_one_second_are_one_stall() -> None:
    rows = answered((0, 5), *[(1.5, 100.001)] * 200, (1.6, 180), (2.0, 100.0), (3.2, 101))
    assert latency.count_requests(rows, 100.0) == {"limit_ms": 100.0, "requests": 5, "slow": 3, "stalls": 2}
    assert latency.count_requests(rows.clear(), 100.0) == {"limit_ms": 100.0, "requests": 0, "slow": 0, "stalls": 0}


@given(st.integers(1, 300), st.integers(0, 300), st.sampled_from([0.001, 0.01, 0.3]))
def test_the_probability_is_the_exact_binomial_one(of: int, count: int, share: float) -> None:
    count = min(count, of)
    exact = sum(comb(of, each) * share**each * (1 - share) ** (of - each) for each in range(count, of + 1))
    assert latency.at_least(count, of, share) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_few_slow_requests_of_a_million_are_no_surprise() -> None:
    assert latency.at_least(5, 1_000_000, 0.001) == 1.0
    assert latency.at_least(1_200, 1_000_000, 0.001) < 1e-8


def test_fewer_than_a_thousand_requests_say_nothing() -> None:
    found = judged(key(999, 500))
    assert found is not None
    assert (found.share, found.p_value, found.is_slow) == (None, None, None)
    assert "the 99.9th percentile needs 1,000" in latency.describe(found)
    assert judged() is None
    assert latency.describe(None).startswith("unknown")


@pytest.mark.parametrize(("slow", "is_slow"), [(7, False), (8, True)])
def test_the_alarm_begins_where_chance_ends(slow: int, is_slow: bool) -> None:
    found = judged(key(1_200, slow))
    assert found is not None
    assert found.is_slow is is_slow is (found.p_value < latency.CHANCE)
    assert f"of 1,200 requests on 9 took longer than 100 ms, in {slow} different seconds" in latency.describe(found)


def test_one_stall_is_no_alarm_however_many_requests_it_held_up() -> None:
    found = judged(key(5_000, 400, stalls=2))
    assert found is not None
    assert (found.share, found.is_slow) == (0.08, False)


def test_earlier_keys_are_asked_only_until_there_are_enough() -> None:
    quick, slow = key(6_000), key(6_000, 600)
    found = judged(quick, quick, slow)
    assert found is not None
    assert (found.first, found.last, found.requests, found.is_slow) == ("8", "9", 12_000, False)
    found = judged(quick, slow, slow)
    assert found is not None
    assert (found.keys, found.is_slow) == (2, True)


def test_keys_that_were_counted_against_another_objective_are_not_mixed_in() -> None:
    found = judged(key(2_000), key(2_000, 900, limit_ms=50.0), key(2_000, 900))
    assert found is not None
    assert (found.keys, found.slow) == (1, 0)
    assert judged(key(2_000), limit_ms=99.0) is None
