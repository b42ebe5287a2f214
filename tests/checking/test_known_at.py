"""What was known at a moment follows from declarations, never from names."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.check import known_at
from platform_assets.product.spec import Source
from tests.checking import leaks
from tests.checking.leaks import HONEST

pytestmark = pytest.mark.slow

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.sampled_from(["status", "status_known_at_utc", "known_at_utc_status", "dep_delay_min", "dep_known_at_utc"])


def at(hour: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hour)


def source(**declared: object) -> Source:
    return Source(**{"name": "facts", "description": "", "schema": dict, "known_at": "known_at_utc", **declared})  # type: ignore[arg-type]


@given(fact=NAMES, moment=NAMES, hours=st.lists(st.integers(0, 9) | st.none(), min_size=1), asked=st.integers(0, 9))
def test_facts_are_blanked_by_declaration_whatever_the_columns_are_called(
    fact: str, moment: str, hours: list[int | None], asked: int
) -> None:
    moments_of = [None if hour is None else at(hour) for hour in hours]
    table = pl.DataFrame(
        {"known_at_utc": [at(0)] * len(hours), fact: moments_of, moment: moments_of},
        schema=dict.fromkeys(("known_at_utc", fact, moment), leaks.MOMENT),
    )
    expected = [hour if hour is not None and hour <= asked else None for hour in hours]
    earlier = known_at.as_known(source(known_at_of={fact: moment}), table, at(asked))
    for name in (fact, moment):
        assert earlier[name].to_list() == [None if hour is None else at(hour) for hour in expected]
    for nothing in (None, {}, {fact: None}):
        assert known_at.as_known(source(known_at_of=nothing), table, at(asked)).equals(table)
    assert known_at.as_known(source(known_at=moment), table, at(asked)).height == len(expected) - expected.count(None)


def test_rows_vanish_at_their_known_at_and_a_moment_may_be_known_at_another_one() -> None:
    table = pl.DataFrame({"known_at_utc": [at(0), at(5), None], "a": [1] * 3, "b": [at(1)] * 3, "c": [at(3)] * 3})
    declared = source(known_at_of={"a": "b", "b": "c"})
    assert known_at.as_known(declared, table, at(2)).rows() == [(at(0), 1, None, None)]
    assert known_at.as_known(declared, table, at(4)).rows() == [(at(0), 1, at(1), at(3))]
    assert known_at.as_known(source(known_at=None, is_slow=True), table, at(0)).equals(table)


def test_a_fact_known_some_time_after_its_row_is_blanked_until_then() -> None:
    table = pl.DataFrame({"known_at_utc": [at(0), at(1), at(2)], "a": [1, 2, 3]})
    declared = source(known_at_of={"a": timedelta(hours=2)})
    assert known_at.as_known(declared, table, at(3)).rows() == [(at(0), 1), (at(1), 2), (at(2), None)]
    assert known_at.undeclared(declared, table, at(0)) == ""
    with pytest.raises(ValueError, match="and no known_at, after which that is"):
        source(known_at=None, is_slow=True, known_at_of={"a": timedelta(hours=2)})


@pytest.mark.parametrize(
    ("moment", "is_late"),
    [
        (pl.col("then"), True),
        (pl.col("then").dt.replace_time_zone(None), True),
        (pl.col("then").dt.date(), True),
        (pl.col("then").dt.strftime("%Y-%m-%d"), False),
    ],
)
def test_moments_of_each_type_are_looked_at(moment: pl.Expr, is_late: bool) -> None:
    rows = leaks.parcels(leaks.day("2026-01-05")).with_columns(key=pl.lit("2026-01-05"))
    late = rows.with_columns(then=pl.col("known_at_utc") + timedelta(days=2)).with_columns(then=moment)
    source = leaks.product(HONEST).source("parcels")
    assert bool(known_at.undeclared(source, late, rows["known_at_utc"][0])) == is_late
    assert known_at.undeclared(replace(source, known_at_of={"then": None}), late, rows["known_at_utc"][0]) == ""
    assert known_at.undeclared(source, late.head(0), rows["known_at_utc"][0]) == ""


def test_a_clock_that_runs_ahead_in_few_rows_or_within_a_second_is_no_moment_of_its_own() -> None:
    rows = pl.concat([leaks.parcels(leaks.day("2026-01-05"))] * 10)
    source, asked_at = leaks.product(HONEST).source("parcels"), rows["known_at_utc"][0]
    within = rows.with_columns(then=pl.col("known_at_utc") + timedelta(milliseconds=999))
    assert known_at.undeclared(source, within, asked_at) == ""
    ahead = pl.when(pl.int_range(pl.len()) < 2).then(pl.col("known_at_utc") + timedelta(hours=1))
    assert known_at.undeclared(source, rows.with_columns(then=ahead.otherwise("known_at_utc")), asked_at) == ""
    assert "in 2 of 240 rows" in known_at.undeclared(source, rows.with_columns(then=ahead), asked_at), "2 of 2 values"
