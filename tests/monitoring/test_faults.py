"""Each hard check by hand: what makes it fail, what does not, and the order of checks."""

from functools import cache
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from platform_assets.monitoring import faults, sketch
from platform_assets.product.monitoring import CrossRule, Monitors
from platform_assets.store.records.sketches import Moments, RuleCount, SourceSketch

MONITORS = Monitors(record_keys=10, min_record_keys=3, season=2)
ROWS = 100


def rows(seed: int, height: int = ROWS) -> pl.DataFrame:
    stream = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "id": [f"i{number}" for number in range(height)],
            "place": [("here", "there", "far")[number % 3] for number in range(height)],
            **{name: stream.normal(size=height) for name in ("a", "b", "c")},
        }
    )


def of(frame: pl.DataFrame, quarantined: int = 0, repeated: int = 0) -> SourceSketch:
    return sketch.of_source(frame, unique=("id",), quarantined=quarantined, repeated=repeated)


PAST = [faults.Past(phase=number % 2, sources={"s": of(rows(number))}) for number in range(6)]
BEFORE = [past.sources for past in PAST]


def failing_checks(sketch: SourceSketch, **options: Any) -> list[tuple[str, str, str | None]]:
    return [(item.source, item.check, item.column) for item in failing(sketch, **options)]


def failing(sketch: SourceSketch, **options: Any) -> list[faults.Check]:
    arguments = {"phase": 0, "record": PAST, "before": BEFORE, "monitors": MONITORS, **options}
    return faults.failing(faults.check({"s": sketch}, {}, **arguments))


def test_a_sound_key_passes_and_lists_every_check() -> None:
    checks = faults.check({"s": of(rows(9))}, {}, phase=0, record=PAST, before=[], monitors=MONITORS)
    assert not faults.failing(checks)
    assert {item.check for item in checks} == set(faults.ORDER) - {
        "missing_delivery",
        "unreadable_delivery",
        "cross_rule",
        "overlap",
        "shifted_statistics",
    }


def test_missing_and_empty_deliveries_fail() -> None:
    empty = of(rows(9).clear())
    assert failing_checks(replace(empty, is_missing=True)) == [("s", "missing_delivery", None)]
    assert failing_checks(replace(empty, unreadable="cut short.")) == [("s", "unreadable_delivery", None)]
    assert failing_checks(empty) == [("s", "empty_delivery", None)]
    assert failing_checks(empty, record=[]) == [("s", "empty_delivery", None)]
    usual = [*PAST, faults.Past(phase=0, sources={"s": empty})]
    assert failing_checks(empty, record=usual) == []


@pytest.mark.parametrize(("bad", "fails"), [(1, False), (2, True)])
def test_a_quarantined_share_above_the_limit_fails(bad: int, fails: bool) -> None:
    assert failing_checks(of(rows(9, ROWS - bad), quarantined=bad)) == [("s", "quarantined_share", None)] * fails


def test_repeated_rows_are_not_counted_as_quarantined_too() -> None:
    assert failing_checks(of(rows(9), quarantined=ROWS, repeated=ROWS)) == [
        ("s", "repeated_rows", None),
        ("s", "volume", None),
    ]


@cache
def again(seed: int) -> SourceSketch:
    """Sketch the content of an earlier key under new ids."""
    return of(rows(seed).with_columns(pl.col("id").str.replace("i", "j")))


@pytest.mark.parametrize("keys_back", [1, 2, 3, 5, 6])
def test_a_stale_file_is_named_with_the_key_it_repeats(keys_back: int) -> None:
    checks = faults.check({"s": again(6 - keys_back)}, {}, phase=0, record=PAST, before=BEFORE, monitors=MONITORS)
    (failed,) = faults.failing(checks)
    which_key = "the previous key" if keys_back == 1 else f"the key {keys_back} keys back"
    assert (failed.check, failed.came) == ("overlap", f"100% of the rows' content was already in {which_key}")
    assert failed.expected == "at most 50%"
    assert failing_checks(again(6 - keys_back), before=[]) == []


def test_a_file_repeated_from_a_held_key_is_stale_too() -> None:
    """Earlier keys count whether accepted or not; only the usual overlap comes from accepted ones."""
    earlier = [*BEFORE[:3], {"s": of(rows(77))}, *BEFORE[4:]]
    assert failing_checks(again(77), before=earlier) == [("s", "overlap", None)]
    assert failing_checks(again(77)) == []


def of_period(period: int, number: int) -> SourceSketch:
    """Sketch a key of a plan that repeats after `period` keys."""
    return again(number % period)


def test_a_plan_that_repeats_every_season_is_not_stale() -> None:
    """Four accepted keys show that content repeats two keys later, so only a file from another phase is stale."""
    record = [faults.Past(phase=number % 2, sources={"s": of_period(2, number)}) for number in range(4)]
    before = [past.sources for past in record]
    assert failing_checks(of_period(2, 4), record=record, before=before) == []
    other = [*before[:-1], {"s": of(rows(50))}]
    assert failing_checks(of_period(2, 5), record=record, before=other) == [("s", "overlap", None)]


@given(period=st.integers(2, 9), season=st.integers(1, 7), keys=st.integers(3, 30))
def test_a_periodic_plan_never_fails_whatever_the_period(period: int, season: int, keys: int) -> None:
    """Each key of a periodic plan is judged against those before it; the first repeat may be a surprise."""
    monitors = Monitors(record_keys=30, min_record_keys=3, season=season, max_volume_log_ratio=9)
    record = [faults.Past(phase=number % season, sources={"s": of_period(period, number)}) for number in range(keys)]
    before = [past.sources for past in record]
    has_repeated = keys >= period + 1
    if has_repeated:
        delivered = of_period(period, keys)
        assert failing_checks(delivered, record=record, before=before, phase=keys % season, monitors=monitors) == []


def test_the_usual_overlap_is_not_a_repetition() -> None:
    """Rows with few possible values repeat from key to key; only more than usual would be suspicious."""
    alike = of(rows(1).select("id", "place"))
    record = [faults.Past(phase=0, sources={"s": alike})] * 4
    assert failing_checks(alike, record=record, before=[{"s": alike}]) == []


def test_vanished_and_unknown_categories_fail() -> None:
    vanished = rows(9).filter(pl.col("place") != "far")
    assert failing_checks(of(vanished)) == [("s", "vanished_categories", "place")]
    new = rows(9).with_columns(pl.col("place").replace("far", "moon"))
    assert failing_checks(of(new)) == [("s", "vanished_categories", "place"), ("s", "unknown_categories", "place")]
    rare = rows(9).with_columns(
        pl.when(pl.int_range(pl.len()) < 2).then(pl.lit("moon")).otherwise("place").alias("place")
    )
    assert failing_checks(of(rare)) == [], "two rows of a hundred are not a recoding"


def test_categories_missing_because_of_quarantine_are_reported_as_quarantine() -> None:
    """The 33 rows of `far` were delivered, and refused: the rows in quarantine are the cause."""
    far = rows(9).filter(pl.col("place") != "far")
    refused = ROWS - far.height
    assert failing_checks(of(far, quarantined=refused)) == [
        ("s", "quarantined_share", None),
        ("s", "vanished_categories", "place"),
    ]
    checks = faults.check({"s": of(far, quarantined=refused)}, {}, phase=0, record=PAST, before=[], monitors=MONITORS)
    assert "33 of 100 rows in quarantine (33.0%)" in checks[0].came
    assert "is_in_quarantine" not in checks[1].to_record().document()


@pytest.mark.parametrize(("quarantined", "primary"), [(5, "vanished"), (24, "vanished"), (25, "quarantined")])
def test_too_few_quarantined_rows_do_not_explain_a_vanished_category(quarantined: int, primary: str) -> None:
    """33 % of the usual rows have `far`. Of 67 good and n refused rows, 1.25 n (the margin) must reach .33 (67 + n)."""
    delivered = of(rows(9).filter(pl.col("place") != "far"), quarantined=quarantined)
    assert failing_checks(delivered)[0][1].startswith(primary)


def test_repeated_rows_do_not_explain_a_vanished_category() -> None:
    delivered = of(rows(9).filter(pl.col("place") != "far"), quarantined=40, repeated=38)
    names = [check for _, check, _ in failing_checks(delivered)]
    assert names == ["repeated_rows", "vanished_categories", "quarantined_share"]


def test_an_unrelated_quarantine_keeps_its_rank() -> None:
    """A third of the rows has a new value and 5 other rows are refused: the recoding is the cause."""
    new = rows(9).with_columns(pl.col("place").replace("far", "moon"))
    assert [check for _, check, _ in failing_checks(of(new, quarantined=5))] == [
        "vanished_categories",
        "unknown_categories",
        "quarantined_share",
    ]


def test_frozen_columns_fail() -> None:
    assert failing_checks(of(rows(9).with_columns(pl.col("a", "b").first()))) == []
    (check,) = failing(of(rows(9).with_columns(pl.col("a", "b", "c").first())))
    assert (check.source, check.check, check.column) == ("s", "frozen_columns", None)
    assert "frozen: a has 1 distinct value (usually " in check.came
    nulls = rows(9).with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in ("a", "b", "c"))
    assert failing_checks(of(nulls)) == [("s", "frozen_columns", None)]
    assert "frozen: a has no value (usually " in failing(of(nulls))[0].came
    groups = rows(9).with_columns(pl.col("a", "b", "c").first().over("place"))
    assert failing_checks(of(groups)) == [("s", "frozen_columns", None)], "frozen group by group"


def test_a_constant_column_never_counts_as_frozen() -> None:
    record = [faults.Past(phase=0, sources={"s": of(rows(number).with_columns(a=1.0, b=1.0))}) for number in range(4)]
    assert failing_checks(of(rows(9).with_columns(a=1.0, b=1.0, c=1.0)), record=record) == []


def test_fewer_rows_fail_volume_and_not_frozen_columns() -> None:
    assert failing_checks(of(rows(9, 61))) == []
    assert failing_checks(of(rows(9, 60))) == [("s", "volume", None)]
    assert failing_checks(of(rows(9, 20))) == [("s", "volume", None)]


def test_volume_is_compared_with_keys_of_the_same_phase() -> None:
    record = [
        faults.Past(phase=number % 2, sources={"s": of(rows(number, 100 if number % 2 else 20))}) for number in range(6)
    ]
    assert ("s", "volume", None) not in failing_checks(of(rows(9, 20)), record=record, phase=0)
    assert ("s", "volume", None) in failing_checks(of(rows(9, 20)), record=record, phase=1)


def test_nothing_is_compared_before_there_are_enough_accepted_keys() -> None:
    assert failing_checks(of(rows(9, 20)), record=PAST[:2]) == []
    assert failing_checks(of(rows(9, 20), quarantined=20), record=[]) == [("s", "quarantined_share", None)]


def test_a_broken_rule_counts_only_when_its_sources_have_rows() -> None:
    rule = CrossRule(
        name="each b is in a",
        sources=("a", "b"),
        broken=lambda tables: tables["b"].join(tables["a"], on="id", how="anti"),
    )
    monitors = Monitors(rules=(rule,))
    a, b = rows(1, 100), rows(2, 102)
    for height, fails in ((101, []), (102, [("a", "cross_rule")])):
        counted = sketch.of_rules(monitors.rules, {"a": a, "b": b.head(height)})
        assert counted == {"each b is in a": RuleCount(rows=height, broken=height - 100)}
        checks = faults.check({"a": of(a)}, counted, phase=0, record=[], before=[], monitors=monitors)
        assert [(item.source, item.check) for item in faults.failing(checks)] == fails
    assert sketch.of_rules(monitors.rules, {"a": a}) == sketch.of_rules(monitors.rules, {"a": a.clear(), "b": b}) == {}


@given(st.integers(0, 1_000))
def test_another_draw_from_the_same_distribution_never_fails(seed: int) -> None:
    assert failing_checks(of(rows(10_000 + seed))) == []


@given(st.permutations(range(ROWS)))
def test_the_order_of_rows_does_not_change_a_sketch(order: list[int]) -> None:
    """Except for the last digit of a mean: floats add up in the order of rows."""
    sketch_one, sketch_two = of(rows(3)), of(rows(3)[list(order)])
    assert sketch_one.content == sketch_two.content
    first, second = sketch_one.document(), sketch_two.document()
    for document in (first, second):
        for column in document["columns"].values():
            column["mean"] = pytest.approx(column["mean"]) if column.get("mean") else None
    assert first == second


def measured(seed: int, sharpness: float = 10.0, spread: float = 2.0, **more: Any) -> SourceSketch:
    """Sketch a key whose rows have exactly this mean and spread of sharpness, and another statistic."""
    wave = np.where(np.arange(ROWS) % 2, spread, -spread) + sharpness
    statistics = pl.DataFrame({"sharpness": wave, "other": np.random.default_rng(seed).normal(size=ROWS)})
    return sketch.of_source(rows(seed), unique=("id",), quarantined=0, repeated=0, statistics=statistics, **more)


MEASURED = [faults.Past(phase=number % 2, sources={"s": measured(number)}) for number in range(6)]


@pytest.mark.parametrize(("mean", "fails"), [(10.99, False), (11.01, True), (9.01, False), (8.99, True)])
def test_a_statistic_shifted_by_half_a_row_spread_fails(mean: float, fails: bool) -> None:
    delivered = measured(9, mean)
    assert failing_checks(delivered, record=MEASURED, before=[]) == [("s", "shifted_statistics", "sharpness")] * fails
    (check,) = [
        item
        for item in faults.check({"s": delivered}, {}, phase=0, record=MEASURED, before=[], monitors=MONITORS)
        if item.check == "shifted_statistics"
    ]
    assert f"the mean sharpness of 100 rows is {mean:.4g}, {abs(mean - 10) / 2:.2f} standard deviations" in check.came
    assert check.expected == "10 (median of 6 keys), plus or minus 0.5 standard deviations of 2"


def test_the_product_sets_the_limit_of_a_shift() -> None:
    wide = Monitors(record_keys=10, min_record_keys=3, season=2, max_statistic_shift=2.0)
    assert failing_checks(measured(9, 13.9), record=MEASURED, before=[], monitors=wide) == []
    assert failing_checks(measured(9, 14.1), record=MEASURED, before=[], monitors=wide) != []


def test_the_farthest_statistic_is_named_and_the_others_are_counted() -> None:
    delivered = measured(9, 13.0)
    delivered.statistics["other"] = replace(delivered.statistics["other"], mean=40.0)
    (check,) = faults.failing(
        faults.check({"s": delivered}, {}, phase=0, record=MEASURED, before=[], monitors=MONITORS)
    )
    assert check.column == "other"
    assert "; 1 other statistic moved too far" in check.came


def test_a_mean_that_is_not_a_number_is_a_shift() -> None:
    delivered = measured(9)
    delivered.statistics["sharpness"] = replace(delivered.statistics["sharpness"], mean=float("nan"))
    assert failing_checks(delivered, record=MEASURED, before=[]) == [("s", "shifted_statistics", "sharpness")]


def without_statistics(sketched: SourceSketch) -> SourceSketch:
    """Read a sketch as it was stored before statistics existed."""
    document = sketched.document()
    del document["statistics"]
    return msgspec.convert(document, SourceSketch)


def test_statistics_are_compared_with_enough_keys_that_have_them() -> None:
    delivered = measured(9, 20.0)
    assert failing_checks(delivered, record=MEASURED[:2], before=[]) == []
    assert failing_checks(delivered, record=[*PAST, *MEASURED[:2]], before=[]) == []
    assert failing_checks(delivered, record=[*PAST, *MEASURED[:3]], before=[]) == [
        ("s", "shifted_statistics", "sharpness")
    ]
    assert failing_checks(of(rows(9)), record=MEASURED, before=[]) == []
    older = [without_statistics(of(rows(seed))) for seed in range(5)]
    assert (
        failing_checks(delivered, record=[faults.Past(phase=0, sources={"s": item}) for item in older], before=[]) == []
    )


def test_one_odd_row_of_a_constant_statistic_passes_and_a_full_shift_fails() -> None:
    constant = [faults.Past(phase=0, sources={"s": measured(number, 0.1, 0.0)}) for number in range(4)]
    assert failing_checks(measured(9, 0.1, 0.0), record=constant, before=[]) == []
    assert failing_checks(measured(9, 0.1001, 0.0), record=constant, before=[]) == [
        ("s", "shifted_statistics", "sharpness")
    ]
    wave = np.full(ROWS, 0.1)
    wave[0] = 5.0
    one = measured(9)
    one.statistics["sharpness"] = Moments(mean=float(wave.mean()), std=float(wave.std()))
    assert failing_checks(one, record=constant, before=[]) == []
    zeros = [faults.Past(phase=0, sources={"s": measured(number, 0.0, 0.0)}) for number in range(4)]
    assert failing_checks(measured(9, 0.0, 0.0), record=zeros, before=[]) == []
    assert failing_checks(measured(9, 1e-3, 0.0), record=zeros, before=[]) == [("s", "shifted_statistics", "sharpness")]


def test_without_a_good_row_nothing_is_compared() -> None:
    delivered = sketch.of_source(
        rows(9).clear(), unique=("id",), quarantined=ROWS, repeated=0, statistics=pl.DataFrame({"sharpness": []})
    )
    assert failing_checks(delivered, record=MEASURED, before=[]) == [("s", "quarantined_share", None)]
