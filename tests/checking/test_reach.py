"""A feature that reads farther back than `lookback` is reported with its reach, however it reads."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets import check as checking
from platform_assets.base.keys import BatchGrain, DailyGrain, HourlyGrain
from platform_assets.base.settings import Settings
from platform_assets.check import deliveries, reach
from platform_assets.check.messages import line_of
from platform_assets.check.trial import Trial
from platform_assets.product.spec import Field, History, Monitors, Product, Tables, Window
from tests.doubles import recorded
from tests.doubles.products import hourly_temperature

pytestmark = pytest.mark.slow

LAST = "2020-04-20"
"""A Monday; among the keys of the recording are the ends of January, February and March."""


def daily(tables: Tables) -> pl.DataFrame:
    """Return one row per available day, in order: `day`, and a `value` that is unique per day."""
    days = tables["readings"].select("key").unique().sort("key")
    day = pl.col("key").str.to_date()
    return days.with_columns(day=day, value=(day.dt.epoch("d") ** 2 % 9_973).cast(pl.Float64))


def before(days: pl.DataFrame, period: str, back: int) -> pl.DataFrame:
    """Return for each day the mean of the calendar period `back` periods before its own."""
    start = pl.col("day").dt.truncate(period)
    means = days.group_by(start.alias("period")).agg(extra=pl.col("value").mean())
    return days.with_columns(period=start.dt.offset_by(f"-{back}{period[1:]}")).join(means, on="period", how="left")


def with_extra(lookback: int, extra: Callable[[pl.DataFrame], Any], **changes: Any) -> Product:
    """Return the daily product with a field `extra` computed from one row per day."""

    def features(tables: Tables, window: Window) -> pl.DataFrame:
        days, computed = daily(tables), extra(daily(tables))
        days = days.with_columns(extra=computed) if isinstance(computed, pl.Expr) else computed
        return recorded.SPEC.features(tables, window).join(
            days.select("key", pl.col("extra").cast(pl.Float64)), on="key", how="left", maintain_order="left"
        )

    field = Field(name="extra", dtype="float", description="Planted.", is_nullable=True)
    return replace(
        recorded.SPEC,
        grain=DailyGrain(start="2020-01-01", end="2020-12-31"),
        history=History(deliver=recorded.deliver, demo_first="2020-01-01", demo_last=LAST),
        monitors=Monitors(max_quarantined_share=0.1),
        lookback=lookback,
        features=features,
        fields=(*recorded.SPEC.fields, field),
        **changes,
    )


def line(spec: Product, check: str) -> checking.Line:
    return next(item for item in checking.of_product(spec) if item.check == check)


VALUE = pl.col("value")


@cache
def rows_of_all_keys() -> Mapping[str, pl.DataFrame]:
    """Read the good rows of all keys once: the planted features differ, their sources do not."""
    spec = with_extra(109, lambda days: VALUE)
    trial = Trial(spec, deliveries.locate(spec, Settings.from_environment()))
    for source in spec.feature_sources:
        trial.source(source)
    return trial.tables


def lookback_of(spec: Product) -> checking.Line:
    """Return the line of the check of the reach alone."""
    trial = Trial(spec, deliveries.locate(spec, Settings.from_environment()))
    trial.tables = trial.longer = dict(rows_of_all_keys())
    trial.features()
    return line_of(spec, "lookback", trial.alone)


PLANTED: dict[str, tuple[int, Callable[[pl.DataFrame], Any]]] = {
    "rolling mean of 10 days": (9, lambda days: VALUE.rolling_mean(10, min_samples=1)),
    "rolling median of 31 days": (30, lambda days: VALUE.rolling_quantile(0.5, window_size=31, min_samples=1)),
    "rolling sum by time": (13, lambda days: VALUE.rolling_sum_by("day", "14d")),
    "shift by a week": (7, lambda days: VALUE.shift(7)),
    "shift by 60 days": (60, lambda days: VALUE.shift(60)),
    "the same weekday, four weeks": (28, lambda days: VALUE.shift(7) + VALUE.shift(28)),
    "join by week: so far": (6, lambda days: VALUE.cum_sum().over(pl.col("day").dt.truncate("1w"))),
    "join by week: the one before": (13, lambda days: before(days, "1w", 1)),
    "join by month: so far": (30, lambda days: VALUE.first().over(pl.col("day").dt.truncate("1mo"))),
    "join by month: the one before": (59, lambda days: before(days, "1mo", 1)),
}  # fmt: skip
CUMULATIVE: dict[str, Callable[[pl.DataFrame], Any]] = {
    "cumulative sum": lambda days: VALUE.cum_sum(),
    "days since the first": lambda days: (pl.col("day") - pl.col("day").min()).dt.total_days(),
}


@pytest.mark.costly
@pytest.mark.parametrize("name", PLANTED)
def test_a_reach_error_is_named_with_the_reach(name: str) -> None:
    keys, extra = PLANTED[name]
    for lookback in {1, keys - 1} if keys < 14 else {keys - 1}:
        result = lookback_of(with_extra(lookback, extra))
        assert result.state == "problem"
        assert f"reads {keys} keys back; raise lookback (it is {lookback}) to {keys}. Built from" in result.message
        assert "'extra' changes in 4 of 4 rows" in result.message
    assert lookback_of(with_extra(keys, extra)).state == "ok"


@pytest.mark.parametrize("name", CUMULATIVE)
def test_a_feature_that_reads_all_history_must_be_bounded(name: str) -> None:
    """The recording ends with the key of April 19th, 109 keys after its first one."""
    for lookback in (1, 30):
        result = lookback_of(with_extra(lookback, CUMULATIVE[name]))
        assert result.state == "problem"
        assert (
            f"raise lookback (it is {lookback}) to 109, or bound what it reads if no lookback is enough"
            in result.message
        )
        assert "reads 109 keys back or more" in result.message


@pytest.mark.costly
def test_an_hourly_feature_that_is_all_null_when_built_alone_is_detected() -> None:
    """A reported case: 167 keys back with a lookback of 30."""
    spec = hourly_temperature.SPEC

    def features(tables: Tables, window: Window) -> pl.DataFrame:
        built = spec.features(tables, window)
        at = pl.col("observed_at_utc") + timedelta(hours=167)
        then = tables["observations"].select("station", service_time=at, then="temperature_f")
        joined = built.join(then, on=["station", "service_time"], how="left", maintain_order="left")
        return joined.with_columns(temperature_day_ago_f=pl.col("then")).drop("then")

    result = line(replace(spec, lookback=30, features=features), "lookback")
    assert (result.state, "reads 167 keys back; raise lookback (it is 30) to 167." in result.message) == (
        "problem",
        True,
    )
    assert line(replace(spec, lookback=167, features=features), "lookback").state == "ok"


def test_floats_that_differ_only_by_rounding_are_equal() -> None:
    one = pl.Series([0.1 + 0.2, 1.0, None, 1.0, 0.0, 1e300])
    other = pl.Series([0.3, 1.0 + 1e-6, None, None, 1e-12, 1e300])
    assert reach.changed(one, other).to_list() == [False, True, False, True, True, False]
    assert reach.changed(pl.Series([1, 2]), pl.Series([1, 3])).to_list() == [False, True]


def test_without_a_longer_history_the_reach_is_skipped() -> None:
    result = line(with_extra(109, lambda days: VALUE.shift(109)), "lookback")
    assert result.state == "skipped"
    assert "cannot be tried, because no available key has more before it" in result.message


@pytest.mark.costly
def test_a_null_on_a_single_day_is_detected() -> None:
    """Neither of the two sampled keys has a null."""
    spec = with_extra(0, lambda days: pl.when(pl.col("key") != "2020-02-12").then(VALUE))
    spec = replace(spec, fields=(*spec.fields[:-1], replace(spec.fields[-1], is_nullable=False)), lookback=1)
    assert line(spec, "features").state == "ok"
    result = line(spec, "all keys")
    assert result.state == "problem"
    assert "field 'extra' is null in 4 of 64 rows and not nullable, first in 2020-02-12" in result.message


@pytest.mark.costly
def test_a_value_out_of_range_on_the_first_day_is_detected() -> None:
    spec = with_extra(1, lambda days: VALUE.shift(1).fill_null(-1.0))
    spec = replace(spec, fields=(*spec.fields[:-1], replace(spec.fields[-1], low=0)))
    assert "field 'extra' is -1.0 in one of 4 rows outside" in line(spec, "all keys").message


def test_keys_at_the_ends_of_days_and_months_are_tried() -> None:
    days = DailyGrain(start="2020-01-01", end="2020-12-31")
    assert reach.farthest_reaching(days, days.span("2020-01-01", "2020-04-19")) == (
        "2020-02-29",
        "2020-03-31",
        *days.span("2020-04-12", "2020-04-19"),
    )
    hours = HourlyGrain(start="2020-01-01T00", end="2020-12-31T00")
    chosen = reach.farthest_reaching(hours, hours.span("2020-01-20T00", "2020-02-10T05"))
    assert chosen[:2] == ("2020-01-31T23", "2020-02-03T23")
    assert len(chosen) == 1 + 7 - 1 + 24
    batches = BatchGrain(count=40)
    assert reach.farthest_reaching(batches, batches.span("0001", "0030")) == batches.span("0024", "0030")


@given(least=st.integers(0, 500), beyond=st.integers(1, 500), more=st.integers(0, 500))
def test_the_search_finds_the_shortest_history(least: int, beyond: int, more: int) -> None:
    answer = least + beyond
    tried = []
    result = reach.needed(lambda count: tried.append(count) or count >= answer, least=least, most=answer + more)
    assert result == answer
    assert len(tried) <= 11
