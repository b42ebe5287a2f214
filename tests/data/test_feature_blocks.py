"""Every block uses only facts known at that moment, to the second, and its numbers are exact."""

import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.data import feature_blocks
from platform_assets.data.feature_blocks import Timeline, cycle, if_known, minute_of_day, open_spans
from tests.volume import draws

NOON = datetime(2013, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOMENT = pl.Datetime("us", "UTC")


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def questions(*rows: tuple[str | None, float]) -> pl.DataFrame:
    return pl.DataFrame(
        [(group, at(minute)) for group, minute in rows], schema={"group": pl.String, "asked_at": MOMENT}, orient="row"
    )


FACTS = pl.DataFrame(
    [
        ("a", at(0), 10, True),
        ("b", at(5), 1000, True),
        ("a", at(30), 20, False),
        ("a", at(30), 25, True),
        ("a", None, 7, True),
        (None, at(20), 9, True),
        ("a", at(90), 40, True),
    ],
    schema={"group": pl.String, "known_at_utc": MOMENT, "delay": pl.Int64, "is_late": pl.Boolean},
    orient="row",
)


def test_the_option_is_strict_skips_facts_of_the_same_moment():
    line = Timeline(questions(("a", 30), ("a", 0)), FACTS, by=("group",))
    assert line.latest(["delay", "known_at_utc"], HOUR, is_strict=True).rows() == [(10, at(0)), (None, None)]


def test_counts_totals_and_means_cover_the_open_interval_before_the_question():
    line = Timeline(questions(("a", 60), ("a", 59), ("a", 95), ("c", 60), (None, 60)), FACTS, by=("group",))
    assert line.count(HOUR).to_list() == [2, 3, 1, 0, None]
    assert line.total("delay", HOUR).to_list() == [45, 55, 40, 0, None]
    assert line.mean("delay", HOUR).to_list() == [22.5, 55 / 3, 40.0, None, None]
    assert line.mean("is_late", HOUR).to_list() == [0.5, 2 / 3, 1.0, None, None]
    assert line.mean("delay", HOUR, least=2).to_list() == [22.5, 55 / 3, None, None, None]


def test_plans_ahead_are_counted_after_the_question():
    line = Timeline(questions(("a", 29), ("a", 30), ("a", -60)), FACTS, by=("group",))
    assert line.ahead(HOUR).to_list() == [2, 1, 1]


def test_without_groups_all_rows_are_one_group():
    assert Timeline(questions((None, 60)), FACTS).count(2 * HOUR).to_list() == [5]


def test_groups_may_be_of_several_columns_of_text_categories_and_integers():
    facts = FACTS.with_columns(
        pl.col("group").cast(pl.Categorical), hour=pl.col("known_at_utc").dt.hour().cast(pl.Int64)
    )
    rows = questions(("a", 100), ("b", 100)).with_columns(hour=pl.Series([13, 12]))
    assert Timeline(rows, facts, by=("group", "hour")).count(2 * HOUR).to_list() == [1, 1]


def test_many_groups_are_renumbered(monkeypatch: pytest.MonkeyPatch):
    rows = questions(("a", 60), ("b", 60), ("c", 60)).with_columns(line=pl.Series([2_000_000, 2_000_000, 7]))
    facts = FACTS.with_columns(line=pl.lit(2_000_000))
    expected = [2, 1, 0]
    assert Timeline(rows, facts, by=("group", "line", "line", "line")).count(HOUR).to_list() == expected
    monkeypatch.setattr(feature_blocks, "_MOST_GROUPS", 2)
    assert Timeline(rows, facts, by=("group", "line")).count(HOUR).to_list() == expected


def test_facts_round_up_and_questions_round_down_to_whole_seconds():
    facts = FACTS.head(1).with_columns(pl.col("known_at_utc") + timedelta(milliseconds=1))
    rows = pl.DataFrame({"group": ["a"] * 2, "asked_at": [NOON + timedelta(seconds=s) for s in (0.9, 1)]}).cast(
        {"asked_at": MOMENT}
    )
    assert Timeline(rows, facts, by=("group",)).count(HOUR).to_list() == [0, 1]


def test_empty_facts_and_questions_are_accepted():
    assert Timeline(questions(("a", 0)), FACTS.clear(), by=("group",)).latest(["delay"], HOUR)["delay"].to_list() == [
        None
    ]
    assert Timeline(questions(("a", 0)), FACTS.clear(), by=("group",)).mean("delay", HOUR).to_list() == [None]
    assert Timeline(questions(), FACTS, by=("group",)).count(HOUR).len() == 0


def test_sums_refuse_columns_that_are_not_exact():
    line = Timeline(questions(("a", 60)), FACTS.with_columns(pl.col("delay").cast(pl.Float64)), by=("group",))
    with pytest.raises(ValueError, match="'delay' is Float64; sums take integers"):
        line.total("delay", HOUR)
    holes = Timeline(questions(("a", 60)), FACTS.with_columns(pl.when(pl.col("is_late")).then("delay").alias("delay")))
    with pytest.raises(ValueError, match="has nulls in 1 facts"):
        holes.total("delay", HOUR)


SPANS = pl.DataFrame(
    [("a", at(0), at(50)), ("a", at(10), None), ("a", at(20), at(20)), ("a", at(30), at(25)), ("b", at(0), at(500))],
    schema={"group": pl.String, "due": MOMENT, "done": MOMENT},
    orient="row",
)


def test_open_spans_are_counted_with_their_age():
    rows = questions(("a", -1), ("a", 0), ("a", 40), ("a", 50), ("a", 69), ("a", 70), ("b", 59), ("b", 61), ("c", 0))
    result = open_spans(rows, SPANS, by=("group",), start="due", end="done", longest=HOUR)
    assert result["count"].to_list() == [0, 1, 2, 1, 1, 0, 1, 0, 0]
    assert result["age_min"].to_list() == [None, 0.0, 35.0, 40.0, 59.0, None, 59.0, None, None]


def test_small_expressions_have_closed_forms():
    row = pl.DataFrame({"known": [at(0)], "asked_at": [at(-0.5)], "fact": [3], "later": [at(61)]})
    assert row.select(if_known(pl.col("fact"), "known")).item() is None
    assert row.select(if_known(pl.col("fact"), "known", "later")).item() == 3
    assert row.select(feature_blocks.minutes_between("known", "later")).item() == 61
    assert row.select(feature_blocks.minutes_between("later", "known")).item() == -61
    assert row.select(minute_of_day("known", "America/New_York")).item() == 7 * 60
    sine, cosine = row.select(*cycle(pl.col("fact"), 12, "hand")).row(0)
    assert row.select(*cycle(pl.col("fact"), 12, "hand")).columns == ["hand_sin", "hand_cos"]
    assert (sine, cosine) == pytest.approx((1.0, math.cos(math.pi / 2)), abs=1e-12)


EVENT = st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 20), st.integers(-50, 50))


@given(facts=st.lists(EVENT, max_size=15), rows=st.lists(EVENT, max_size=8), within=st.integers(0, 12))
@settings(max_examples=draws(150))
def test_every_look_up_agrees_with_reading_all_facts(
    facts: list[tuple[str | None, int, int]], rows: list[tuple[str | None, int, int]], within: int
):
    table = pl.DataFrame(
        [(group, at(minute), value) for group, minute, value in facts],
        schema={"group": pl.String, "known_at_utc": MOMENT, "value": pl.Int64},
        orient="row",
    )
    line = Timeline(questions(*((group, minute) for group, minute, _ in rows)), table, by=("group",))
    length = timedelta(minutes=within)
    for index, (group, minute, _) in enumerate(rows):
        ours = [(moment, value) for name, moment, value in facts if name == group and group is not None]
        recent = [value for moment, value in ours if minute - within < moment <= minute]
        observed = sorted(
            (moment, order) for order, (moment, _) in enumerate(ours) if minute - within <= moment <= minute
        )
        is_known = group is not None
        assert line.count(length)[index] == (len(recent) if is_known else None)
        assert line.total("value", length)[index] == (sum(recent) if is_known else None)
        assert line.latest(["value"], length)["value"][index] == (ours[observed[-1][1]][1] if observed else None)
