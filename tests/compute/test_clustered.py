"""One model's interval and its test against itself: closed forms, recomputation, and whether the promise holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from platform_assets.compute import clustered, metrics, paired
from platform_assets.compute.tasks import Binary, measures

TASK = Binary()
ROW = st.tuples(st.booleans(), st.integers(1, 9), st.sampled_from("abcd"))
ROWS = st.lists(ROW, min_size=8, max_size=60)


def _arrays(rows):
    label, tenths, key = (np.array(column) for column in zip(*rows, strict=True))
    keys = np.unique(key)
    assume(keys.size >= paired.FEWEST_KEYS)
    assume(all(0 < label[key != one].sum() < (key != one).sum() for one in keys))
    return label, tenths / 10, key


def _excess(label, probability, key):
    return clustered.excess(metrics.log_losses(label, probability), clustered.entropies(probability), key)


def _recomputed(measure, label, probability, key):
    """Return value and standard error by dropping each key's rows and measuring anew."""
    value, keys = measure(label, probability), np.unique(key)
    without = [measure(label[key != one], probability[key != one]) for one in keys]
    return value, math.sqrt((keys.size - 1) / keys.size * sum((other - value) ** 2 for other in without))


MEASURES = {measure.name: measure for measure in TASK.shown}


@pytest.mark.parametrize("name", MEASURES)
@given(rows=ROWS)
def test_an_estimate_equals_dropping_each_key(name, rows):
    label, probability, key = _arrays(rows)
    keys = np.unique(key)
    assume(all((probability[key != one] >= 0.5).any() for one in keys))
    found = TASK.estimates(label, probability, key, confidence=0.95)[name]
    value, error = _recomputed(MEASURES[name].of, *TASK.checked(label, probability), key)
    assert (found.value, found.standard_error) == pytest.approx((value, error), abs=1e-12)
    reach = paired.student_t_quantile(0.975, found.keys - 1) * error
    assert (found.low, found.high) == pytest.approx((value - reach, value + reach), abs=1e-9)


@given(ROWS)
def test_auc_is_the_paired_difference_to_a_model_that_says_nothing(rows):
    label, probability, key = _arrays(rows)
    found = TASK.estimates(label, probability, key, confidence=0.95)["auc"]
    nothing = np.full(label.size, 0.3)
    for against in (
        paired.auc_difference(label, probability, nothing, key),
        TASK.difference(TASK.headline, label, probability, nothing, key, confidence=0.95),
    ):
        assert found.value == pytest.approx(against.value + 0.5, abs=1e-12)
        assert found.standard_error == pytest.approx(against.standard_error, abs=1e-12)


def test_with_keys_of_one_size_the_error_is_that_of_the_mean_of_means():
    values, key = np.array([1.0, 3.0, 2.0, 6.0, 5.0, 7.0]), list("aabbcc")
    itself = measures.mean("itself", "itself", lambda label, said: said)
    found = clustered.estimate(itself, np.zeros(6), values, key)
    means = np.array([2.0, 4.0, 6.0])
    assert found.value == 4.0
    assert found.standard_error == pytest.approx(means.std(ddof=1) / math.sqrt(3))
    assert found.high == pytest.approx(4.0 + 4.302652729696142 * 2 / math.sqrt(3))


def test_the_entropy_is_what_a_model_expects_to_lose():
    assert clustered.entropies([0.5, 0.25]) == pytest.approx([math.log(2), 0.25 * math.log(4) + 0.75 * math.log(4 / 3)])
    assert clustered.entropies([0.0, 1.0]) == pytest.approx([1e-7, 1e-7], rel=1e-3)


@given(st.floats(0, 1))
def test_the_entropy_is_exactly_the_mean_of_the_two_losses_that_may_come(probability):
    losses = metrics.log_losses([1, 0], [probability, probability])
    expected = probability * losses[0] + (1 - probability) * losses[1]
    assert clustered.entropies([probability])[0] == pytest.approx(expected, abs=1e-12)


def test_the_excess_of_two_keys_follows_cauchy():
    label, probability, key = [1, 0, 1, 1], [0.8, 0.8, 0.8, 0.8], list("aabb")
    gap = math.log(4) / 2
    entropy = 0.8 * math.log(1.25) + 0.2 * math.log(5)
    first = (math.log(1.25) + math.log(5)) / 2 - entropy
    second = math.log(1.25) - entropy
    found = _excess(label, probability, key)
    assert first - second == pytest.approx(gap)
    assert found.value == pytest.approx((first + second) / 2)
    assert found.standard_error == pytest.approx(gap / 2)
    assert found.t == pytest.approx((first + second) / gap)
    assert found.p == pytest.approx(0.5 - math.atan(found.t) / math.pi)
    assert found.low < found.value < found.high


def test_a_model_that_always_says_a_half_is_never_wrong_about_itself():
    found = _excess([1, 0, 1, 1], [0.5] * 4, list("aabb"))
    assert (found.value, found.standard_error) == pytest.approx((0, 0), abs=1e-15)
    assert found.t is None or abs(found.value) < 1e-15


def test_no_error_gives_no_test():
    found = _excess([1, 0, 1, 0], [0.75] * 4, list("aabb"))
    assert found.value > 0
    assert (found.standard_error, found.t, found.p) == (0, None, None)


@given(ROWS)
def test_two_sides_of_the_test_add_up_to_one(rows):
    label, probability, key = _arrays(rows)
    found = _excess(label, probability, key)
    assume(found.p is not None)
    assert found.p == pytest.approx(1 - paired.student_t_cdf(found.t, found.keys - 1), abs=1e-12)
    assert (found.p < 0.5) is (found.t > 0) or found.t == 0


def _answered(random, keys: int, rows: int, shift: float):
    """Draw answers whose truth is `shift` logits above them; keys differ in how hard their rows are."""
    key = np.repeat(np.arange(keys), rows)
    logit = np.repeat(random.normal(-1, 0.6, keys), rows) + random.normal(0, 1.2, key.size)
    label = random.random(key.size) < 1 / (1 + np.exp(-logit - shift))
    return label, 1 / (1 + np.exp(-logit)), key


def test_a_model_whose_probabilities_are_right_is_accused_as_often_as_the_test_says():
    random = np.random.default_rng(20130301)
    rounds = 800
    found = [_excess(*_answered(random, 14, 200, 0.0)) for _ in range(rounds)]
    assert sum(each.p < 0.05 for each in found) / rounds == pytest.approx(0.05, abs=0.02)
    assert sum(each.low <= 0 <= each.high for each in found) / rounds == pytest.approx(0.95, abs=0.02)


def test_a_model_whose_world_has_moved_is_found_out():
    random = np.random.default_rng(7)
    found = [_excess(*_answered(random, 14, 800, 0.5)) for _ in range(20)]
    assert all(each.p < 0.01 and each.value > 0.01 for each in found)


def test_what_too_few_keys_can_say_is_left_out():
    label, probability, key = [1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], list("aabb")
    found = TASK.estimates(label, probability, key, confidence=0.95)
    assert [name for name, estimate in found.items() if estimate is None] == ["auc", "precision", "recall"]
    assert found["accuracy"].value == 1.0
    with pytest.raises(ValueError, match="AUC is not defined on the 4 labelled rows of 2 keys, or not without some"):
        TASK.difference(TASK.headline, label, probability, probability, key, confidence=0.95)


def test_what_cannot_be_measured_is_said():
    with pytest.raises(ValueError, match="all rows are of key a; an interval needs at least 2 keys"):
        TASK.estimates([1, 0], [0.5, 0.5], ["a", "a"], confidence=0.95)
    with pytest.raises(ValueError, match="there are no labelled rows"):
        clustered.excess([], [], [])
    with pytest.raises(ValueError, match="confidence is 95"):
        TASK.estimates([1, 0, 1], [0.5] * 3, list("abb"), confidence=95)
