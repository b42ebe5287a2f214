"""The vocabulary of a product file: what it refuses, and which keys are training and holdout keys."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base.keys import BatchGrain, DailyGrain, HourlyGrain
from platform_assets.engine import product_files
from platform_assets.product.modelling import LEAST_EPOCHS, LEAST_ROWS, LEAST_STEPS
from platform_assets.product.spec import Field, Monitors, Product, Retraining, Source, Training, Window
from platform_assets.training import checkpoint
from tests.doubles.built import built


def unused(*_: Any) -> Any:
    raise AssertionError("a spec calls none of its functions")


def source(name: str, **changes: Any) -> Source:
    return Source(**{"name": name, "description": "", "schema": unused, "known_at": "arrived_at_utc", **changes})


MEASURES, ANSWERS = source("measures"), source("answers", is_label=True)
TINY = Product(
    name="tiny",
    title="Tiny",
    description="Numbered batches of nothing.",
    grain=BatchGrain(count=40),
    sources=(MEASURES, ANSWERS),
    lookback=1,
    features=unused,
    fields=(Field(name="size", dtype="float", description=""), Field(name="kind", dtype="category", description="")),
    entity="thing",
    label=unused,
    label_delay=1,
    model=unused,
    holdout=3,
    min_keys=8,
)


def test_labels_end_before_the_cutoff_and_the_holdout_is_their_tail() -> None:
    training, holdout = TINY.split("0012")
    assert holdout == ("0008", "0009", "0010")
    assert training == tuple(f"{number:04d}" for number in range(1, 8))


def test_too_few_labelled_keys_are_refused_with_the_numbers() -> None:
    assert len(TINY.labelled_keys("0010")) == 8
    with pytest.raises(ValueError, match=r"tiny: cutoff 0009 has 7 labelled keys before it; min_keys is 8"):
        TINY.labelled_keys("0009")


@given(st.integers(10, 40), st.integers(0, 3), st.integers(2, 5), st.one_of(st.none(), st.integers(10, 30)))
def test_training_and_holdout_are_disjoint_contiguous_and_older_than_the_cutoff(
    index: int, delay: int, holdout: int, window: int | None
) -> None:
    monitors = Monitors(drift_window=1)
    spec = replace(TINY, label_delay=delay, holdout=holdout, window=window, min_keys=holdout + 1, monitors=monitors)
    cutoff = spec.grain.key_at(index - 1)
    training, holdout_keys = spec.split(cutoff)
    assert len(holdout_keys) == holdout
    assert spec.grain.span(training[0], holdout_keys[-1]) == training + holdout_keys
    assert spec.grain.index(holdout_keys[-1]) == spec.grain.index(cutoff) - delay - 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Tiny"}, "Product.name is 'Tiny'"),
        ({"sources": (MEASURES,)}, "sources with is_label=True: 0; expected exactly one"),
        ({"sources": (ANSWERS, replace(ANSWERS, name="more"))}, "sources with is_label=True: 2; expected exactly one"),
        ({"sources": (ANSWERS, ANSWERS)}, "no name twice"),
        ({"sources": ()}, "at least one"),
        ({"fields": ()}, "at least one"),
        ({"slices": ("colour",)}, r"slices name \['colour'\]"),
        ({"lookback": -1}, "lookback is -1"),
        ({"label_delay": -1}, "label_delay is -1"),
        ({"holdout": 1}, "holdout is 1"),
        ({"min_keys": 3}, "nothing would be left to train on"),
        ({"grain": DailyGrain(start="2013-01-01"), "is_live": False}, "state the last key"),
    ],
)
def test_a_wrong_spec_names_field_and_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_a_live_product_may_have_no_end() -> None:
    assert replace(TINY, grain=DailyGrain(start="2013-01-01"), is_live=True).grain.last is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 2.0, "high": 1.0}, "low=2.0 above high=1.0"),
        ({"dtype": "bool", "high": 1.0}, "takes no range"),
        ({"name": "Size"}, "Field.name"),
    ],
)
def test_a_wrong_field_is_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY.fields[0], **changes)


@pytest.mark.parametrize("name", ["threads", "epochs", "batch_size", "learning_rate"])
def test_training_settings_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"Training.{name} is 0"):
        Training(**{name: 0})


def test_an_unknown_profile_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="profile is 'moon'"):
        built(replace(TINY, training=Training(profile="moon")), checkpoint)


@pytest.mark.parametrize("budget", [-0.01, float("nan"), float("inf"), "5 USD"])
def test_a_budget_is_an_amount_of_money(budget: Any) -> None:
    with pytest.raises(ValueError, match=r"monthly_budget_usd is .*; expected a number(, at least 0,)? or None"):
        Retraining(monthly_budget_usd=budget)


def test_sources_are_found_by_name() -> None:
    assert TINY.source("measures") is MEASURES
    assert TINY.label_source is ANSWERS
    assert TINY.feature_sources == (MEASURES,)
    with pytest.raises(ValueError, match="tiny has no source 'moon'; it has measures, answers"):
        TINY.source("moon")


def test_a_window_is_contiguous() -> None:
    assert Window(grain=TINY.grain, keys=("0002", "0003")).keys == ("0002", "0003")
    for keys in ((), ("0002", "0004"), ("0003", "0002")):
        with pytest.raises(ValueError):  # noqa: PT011 - each case has a message of its own
            Window(grain=TINY.grain, keys=keys)


def test_discovery_finds_every_product_and_lists_them_for_an_unknown_one() -> None:
    result = product_files.load_all()
    assert [spec.name for spec in result] == sorted(spec.name for spec in result)
    assert all(product_files.load(spec.name) is spec for spec in result)
    with pytest.raises(ValueError, match="'moon' is not the name of a product"):
        product_files.load("moon")


@pytest.mark.parametrize("share", [-0.01, 1.01])
def test_the_least_share_of_equal_features_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"Monitors.min_equal_share is .*; expected a share from 0 to 1"):
        Monitors(min_equal_share=share)


@pytest.mark.parametrize("patience", [-1, 2.5, True, "a week"])
def test_a_patience_is_a_number_of_keys(patience: Any) -> None:
    with pytest.raises(
        ValueError, match=r"label_patience is .*; expected a (number of keys, at least 0,|whole number) or None"
    ):
        Retraining(label_patience=patience)


def test_label_patience_comes_from_the_product_or_its_grain() -> None:
    grains = (DailyGrain(start="2020-01-01", end="2020-01-31"), HourlyGrain(start="2020-01-01T00", end="2020-01-31T00"))
    assert [replace(TINY, grain=grain).label_patience for grain in grains] == [7, 48]
    assert TINY.label_patience == 5
    assert replace(TINY, retraining=Retraining(label_patience=0)).label_patience == 0


DAYS, HOURS = DailyGrain(start="2020-01-01", end="2020-12-31"), HourlyGrain(start="2020-01-01T00", end="2020-12-31T23")
ALL_DAYS = {"season": 7, "drift_window": 7, "min_record_keys": 14, "record_keys": 56, "repair_within": 3}
ALL_DAYS_OF_TRAINING = {"decide_every": 7, "cooldown": 7, "performance_window": 14, "max_age": 28}


@pytest.mark.parametrize("grain", [DAYS, BatchGrain(count=40)])
def test_defaults_of_days_and_batches_are_unchanged(grain: Any) -> None:
    spec = replace(TINY, grain=grain, monitors=Monitors(), retraining=Retraining())
    for rules, numbers in ((spec.monitors, ALL_DAYS), (spec.retraining, ALL_DAYS_OF_TRAINING)):
        assert {name: getattr(rules, name) for name in numbers} == numbers
    assert (spec.monitors, spec.retraining) == (Monitors(), Retraining())


def test_defaults_of_hours_span_the_same_time_as_those_of_days() -> None:
    spec = replace(TINY, grain=HOURS, monitors=Monitors(), retraining=Retraining())
    for rules, numbers in ((spec.monitors, ALL_DAYS), (spec.retraining, ALL_DAYS_OF_TRAINING)):
        for name, days in numbers.items():
            assert getattr(rules, name) == (24 * days if name != "record_keys" else 3 * 168), name


@given(st.sampled_from([DAYS, HOURS]), st.sampled_from([*ALL_DAYS, *ALL_DAYS_OF_TRAINING]), st.integers(15, 21))
def test_a_number_set_by_a_product_is_kept(grain: Any, name: str, number: int) -> None:
    of_monitors = name in ALL_DAYS
    stated = {"is_comparing": False, name: number} if of_monitors else {"cooldown": 0, "max_age": 700, name: number}
    spec = replace(
        TINY,
        grain=grain,
        monitors=Monitors(**stated) if of_monitors else Monitors(),
        retraining=Retraining() if of_monitors else Retraining(**stated),
    )
    assert getattr(spec.monitors if of_monitors else spec.retraining, name) == number
    assert type(replace(spec, title="Again").monitors.season) is int


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"monitors": Monitors(season=168, record_keys=56)},
            "season is 168 and record_keys is 56, which hold 0 keys of each phase; expected record_keys of at least",
        ),
        ({"monitors": Monitors(season=24)}, "record_keys is 56, which hold 2 keys of each phase"),
        ({"monitors": Monitors(record_keys=10)}, "min_record_keys is 14 and record_keys is 10, so no key would ever"),
        ({"retraining": Retraining(max_age=5)}, "cooldown is 7 and max_age is 5, at which the cooldown would forbid"),
        ({"window": 8}, "window is 8 and min_keys is 8, of which a window has at most 7 that are labelled"),
        ({"window": 11}, "trained on 7 of its keys (label_delay=1, holdout=3), and drift is ranked among more"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="tiny: ") as caught:
        replace(TINY, **changes)
    assert message in str(caught.value)


def test_comparisons_can_be_switched_off() -> None:
    ours = Monitors(is_comparing=False, record_keys=5, season=100)
    assert replace(TINY, monitors=ours).monitors.record_keys == 5
    assert replace(TINY, window=12).window == 12


@given(st.integers(1, 5_000_000), st.integers(1, 4_096))
def test_a_training_takes_as_many_steps_on_a_small_table_as_on_a_large_one(rows: int, batch: int) -> None:
    training = Training(batch_size=batch)
    batches = -(-rows // batch)
    epochs = training.epochs_of(rows)
    assert epochs >= LEAST_EPOCHS
    assert epochs * batches >= LEAST_STEPS
    assert epochs == LEAST_EPOCHS or (epochs - 1) * batches < LEAST_STEPS
    assert Training(epochs=2, batch_size=batch).epochs_of(rows) == 2
    assert Training(epochs=2).judged_of(rows) == 0
    assert training.judged_of(rows) == (rows // 10 if rows >= LEAST_ROWS else 0)
