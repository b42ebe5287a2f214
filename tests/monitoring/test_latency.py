"""Latency: one request in a thousand may be slow, and chance alone raises no alarm."""

from datetime import UTC, datetime, timedelta
from math import comb
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.monitoring import latency
from platform_assets.store.records.decisions import Latency

NOON = datetime(2020, 1, 11, 12, tzinfo=UTC)


def answers(*requests: tuple[float, float]) -> pl.DataFrame:
    """Return answers by (seconds after noon, milliseconds taken)."""
    moments = [NOON + timedelta(seconds=seconds) for seconds, _ in requests]
    latencies_us = [round(ms * 1_000) for _, ms in requests]
    return pl.DataFrame(
        {"answered_at_utc": moments, "latency_us": latencies_us},
        schema={"answered_at_utc": pl.Datetime("us", "UTC"), "latency_us": pl.Int64},
    )


def key(requests: int, slow: int = 0, *, stalls: int | None = None, limit_ms: float = 100.0) -> dict[str, Any]:
    return {"limit_ms": limit_ms, "requests": requests, "slow": slow, "stalls": slow if stalls is None else stalls}


def judge(*newest_first: dict[str, Any], limit_ms: float = 100.0) -> Latency | None:
    return latency.judge([(f"{9 - index}", counts) for index, counts in enumerate(newest_first)], limit_ms)


def test_a_list_is_one_request_and_slow_ones_of_one_second_are_one_stall() -> None:
    rows = answers((0, 5), *[(1.5, 100.001)] * 200, (1.6, 180), (2.0, 100.0), (3.2, 101))
    assert latency.count_requests(rows, 100.0) == {"limit_ms": 100.0, "requests": 5, "slow": 3, "stalls": 2}
    assert latency.count_requests(rows.clear(), 100.0) == {"limit_ms": 100.0, "requests": 0, "slow": 0, "stalls": 0}


@given(st.integers(1, 300), st.integers(0, 300), st.sampled_from([0.001, 0.01, 0.3]))
def test_the_probability_is_the_exact_binomial_one(of: int, count: int, share: float) -> None:
    count = min(count, of)
    exact = sum(comb(of, item) * share**item * (1 - share) ** (of - item) for item in range(count, of + 1))
    assert latency.at_least(count, of, share) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_few_slow_requests_in_a_million_are_within_chance() -> None:
    assert latency.at_least(5, 1_000_000, 0.001) == 1.0
    assert latency.at_least(1_200, 1_000_000, 0.001) < 1e-8


def test_fewer_than_a_thousand_requests_are_not_judged() -> None:
    result = judge(key(999, 500))
    assert result is not None
    assert (result.share, result.p_value, result.is_slow) == (None, None, None)
    assert "the 99.9th percentile needs 1,000" in latency.describe(result)
    assert judge() is None
    assert latency.describe(None).startswith("unknown")


@pytest.mark.parametrize(("slow", "is_slow"), [(7, False), (8, True)])
def test_the_alarm_begins_where_chance_ends(slow: int, is_slow: bool) -> None:
    result = judge(key(1_200, slow))
    assert result is not None
    assert result.is_slow is is_slow is (result.p_value < latency.CHANCE)
    assert f"of 1,200 requests on 9 took longer than 100 ms, in {slow} different seconds" in latency.describe(result)


def test_one_stall_raises_no_alarm_however_many_requests_it_delayed() -> None:
    result = judge(key(5_000, 400, stalls=2))
    assert result is not None
    assert (result.share, result.is_slow) == (0.08, False)


def test_earlier_keys_are_read_only_until_there_are_enough_requests() -> None:
    quick, slow = key(6_000), key(6_000, 600)
    result = judge(quick, quick, slow)
    assert result is not None
    assert (result.first, result.last, result.requests, result.is_slow) == ("8", "9", 12_000, False)
    result = judge(quick, slow, slow)
    assert result is not None
    assert (result.keys, result.is_slow) == (2, True)


def test_keys_counted_against_another_objective_end_the_window() -> None:
    result = judge(key(2_000), key(2_000, 900, limit_ms=50.0), key(2_000, 900))
    assert result is not None
    assert (result.keys, result.slow) == (1, 0)
    assert judge(key(2_000), limit_ms=99.0) is None
