"""Intervals of any measure against closed forms and recomputation, and a model's expected loss."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from platform_assets.evaluation import clustered, paired
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Binary, MultiClass, Regression, probabilities

TASK = Binary()
MEASURES = measures_of(TASK)
ROW = st.tuples(st.booleans(), st.integers(1, 9), st.sampled_from("abcd"))
ROWS = st.lists(ROW, min_size=8, max_size=60)


def _arrays(rows):
    label, tenths, key = (np.array(column) for column in zip(*rows, strict=True))
    keys = np.unique(key)
    assume(keys.size >= paired.FEWEST_KEYS)
    assume(all(0 < label[key != one].sum() < (key != one).sum() for one in keys))
    return label, tenths / 10, key


def _recomputed(measure, label, probability, key):
    """Return value and standard error by dropping each key's rows and measuring again."""
    value, keys = measure(label, probability), np.unique(key)
    without = [measure(label[key != one], probability[key != one]) for one in keys]
    return value, math.sqrt((keys.size - 1) / keys.size * sum((other - value) ** 2 for other in without))


BY_NAME = {measure.name: measure for measure in MEASURES.every}


@pytest.mark.parametrize("name", BY_NAME)
@given(rows=ROWS)
def test_an_estimate_equals_dropping_each_key(name, rows):
    label, probability, key = _arrays(rows)
    keys = np.unique(key)
    assume(all((probability[key != one] >= 0.5).any() for one in keys))
    result = MEASURES.estimates(label, probability, key, confidence=0.95)[name]
    value, error = _recomputed(BY_NAME[name].value, *TASK.checked(label, probability), key)
    assert (result.value, result.standard_error) == pytest.approx((value, error), abs=1e-12)
    reach = paired.student_t_quantile(0.975, result.keys - 1) * error
    lowest, highest = BY_NAME[name].lowest, BY_NAME[name].highest or math.inf
    assert (result.low, result.high) == pytest.approx(
        (max(value - reach, lowest), min(value + reach, highest)), abs=1e-9
    )


@pytest.mark.parametrize("task", [Binary(), MultiClass(classes=("a", "b")), Regression(unit="F")], ids=repr)
@given(rows=ROWS)
def test_intervals_stay_within_the_range_of_their_measure(task, rows):
    label, tenths, key = _arrays(rows)
    answer = tenths if isinstance(task, Binary) else np.column_stack([1 - tenths, tenths])
    result = measures_of(task).estimates(label, answer, key, confidence=0.95)
    for measure in measures_of(task).every:
        if (estimate := result[measure.name]) is not None:
            assert measure.lowest is None or measure.lowest <= estimate.low
            assert measure.highest is None or estimate.high <= measure.highest
            assert estimate.low <= estimate.value <= estimate.high


@given(st.floats(0, 1))
def test_the_entropy_is_the_mean_of_the_two_possible_losses(probability):
    losses = probabilities.log_losses([1, 0], [probability, probability])
    expected = probability * losses[0] + (1 - probability) * losses[1]
    assert clustered.entropies([probability])[0] == pytest.approx(expected, abs=1e-12)


def test_measures_undefined_for_too_few_keys_are_none():
    label, probability, key = [1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], list("aabb")
    result = MEASURES.estimates(label, probability, key, confidence=0.95)
    assert [name for name, estimate in result.items() if estimate is None] == ["auc", "precision", "recall"]
    assert result["accuracy"].value == 1.0
    with pytest.raises(ValueError, match="AUC is not defined on the 4 labelled rows of 2 keys, or not without some"):
        MEASURES.difference(MEASURES.headline, label, probability, probability, key, confidence=0.95)


def test_input_that_cannot_be_measured_is_an_error_with_a_reason():
    with pytest.raises(ValueError, match="all rows are of key a; an interval needs at least 2 keys"):
        MEASURES.estimates([1, 0], [0.5, 0.5], ["a", "a"], confidence=0.95)
    with pytest.raises(ValueError, match="there are no labelled rows"):
        MEASURES.estimates([], [], [], confidence=0.95)
    with pytest.raises(ValueError, match="confidence is 95"):
        MEASURES.estimates([1, 0, 1], [0.5] * 3, list("abb"), confidence=95)
