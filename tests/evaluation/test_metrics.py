"""Metrics of one model: closed-form numbers, and invariances."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from platform_assets.evaluation import metrics
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Binary, probabilities

SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=60)


def _arrays(scored: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    label, score = zip(*scored, strict=True)
    return np.array(label), np.array(score) / 20


@given(SCORED)
def test_auc_equals_the_count_over_all_pairs(scored):
    label, probability = _arrays(scored)
    assume(0 < label.sum() < label.size)
    gaps = probability[label][:, None] - probability[~label][None, :]
    assert metrics.auc(label, probability) == pytest.approx(float(((gaps > 0) + 0.5 * (gaps == 0)).mean()), abs=1e-12)


@given(SCORED)
def test_auc_depends_only_on_the_order_of_probabilities(scored):
    label, probability = _arrays(scored)
    assume(0 < label.sum() < label.size)
    value = metrics.auc(label, probability)
    assert metrics.auc(label, probability**3 / 2) == value
    assert metrics.auc(label, 1 - probability) == pytest.approx(1 - value, abs=1e-12)
    assert metrics.auc(label[::-1], probability[::-1]) == value


def test_log_loss_of_even_odds_is_the_logarithm_of_two():
    assert probabilities.log_losses([0, 1, 1], [0.5, 0.5, 0.5]).mean() == pytest.approx(math.log(2))
    assert probabilities.log_losses([1, 0], [0.25, 0.5]).mean() == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_log_loss_of_a_certain_mistake_is_finite():
    assert probabilities.log_losses([1, 0], np.array([0.0, 1.0], dtype=np.float32)).mean() == pytest.approx(
        -math.log(1e-7)
    )


def test_calibration_error_is_the_weighted_gap():
    label, probability = [0, 0, 1, 1, 1, 1], [0.2, 0.2, 0.2, 0.9, 0.9, 0.9]
    table = metrics.calibration_table(label, probability, bins=2)
    assert [row["rows"] for row in table] == [3, 3]
    assert [row["observed"] for row in table] == pytest.approx([1 / 3, 1])
    expected = (abs(0.2 - 1 / 3) + abs(0.9 - 1)) / 2
    assert metrics.expected_calibration_error(label, probability, bins=2) == pytest.approx(expected)


def test_calibration_error_of_a_constant_is_its_distance_from_the_rate():
    label = np.arange(100) % 4 == 0
    assert metrics.expected_calibration_error(label, np.full(100, 0.3)) == pytest.approx(0.05)


def test_calibration_bins_have_equal_mass():
    probability = np.random.default_rng(0).beta(1, 3, 1500)
    table = metrics.calibration_table(probability > 0.5, probability)
    assert [row["rows"] for row in table] == [100] * metrics.CALIBRATION_BINS
    assert all(low["high"] < high["low"] for low, high in pairwise(table))


@given(SCORED, st.integers(1, 20))
def test_calibration_counts_every_row_in_any_order(scored, bins):
    label, probability = _arrays(scored)
    table = metrics.calibration_table(label, probability, bins=bins)
    assert sum(row["rows"] for row in table) == label.size
    assert sum(row["rows"] * row["observed"] for row in table) == pytest.approx(label.sum())
    turned = metrics.calibration_table(label[::-1], probability[::-1], bins=bins)
    assert [row["rows"] for row in turned] == [row["rows"] for row in table]
    assert [row["low"] for row in turned] == [row["low"] for row in table]


def test_calibration_bias_of_a_perfect_model_agrees_with_the_docstring():
    random = np.random.default_rng(0)
    result = []
    for _ in range(20):
        label = random.random(12_000) < 0.24
        result.append(metrics.expected_calibration_error(label, 0.24 + random.normal(0, 1e-6, 12_000)))
    assert np.mean(result) == pytest.approx(math.sqrt(2 * 15 * 0.24 * 0.76 / (math.pi * 12_000)), rel=0.1)


def test_threshold_metrics_count_the_threshold_itself_as_positive():
    result = metrics.at_threshold([1, 1, 1, 0, 0], [0.9, 0.3, 0.1, 0.5, 0.2], 0.3)
    counts = ("true_positives", "false_positives", "false_negatives", "true_negatives")
    assert [result[name] for name in counts] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([], [], "no labelled rows"),
        ([0, 1], [0.5], "one of each per row"),
        ([0, 2], [0.5, 0.5], "expected only 0 and 1"),
        ([0.0, math.nan], [0.5, 0.5], "expected only 0 and 1"),
        ([0, 1], [0.5, math.nan], r"1 of 2 probabilities lie outside \[0, 1\], the first is nan in row 1"),
        ([0, 1], [math.inf, 0.5], "the first is inf in row 0"),
        ([0, 1], [0.5, -0.1], "the first is -0.1"),
        ([[0, 1]], [[0.5, 0.5]], "one of each per row"),
    ],
)
@pytest.mark.parametrize("measure", [probabilities.log_losses, metrics.expected_calibration_error, metrics.auc])
def test_input_without_a_metric_is_an_error(measure, label, probability, message):
    with pytest.raises(ValueError, match=message):
        measure(label, probability)


@pytest.mark.parametrize("only", [0, 1])
def test_auc_of_one_class_is_an_error(only):
    with pytest.raises(ValueError, match=f"all 3 labels are {only}; AUC needs both classes"):
        metrics.auc([only] * 3, [0.1, 0.2, 0.3])


@pytest.mark.parametrize("threshold", [0.0, 1.0, math.nan])
def test_a_threshold_lies_between_zero_and_one(threshold):
    with pytest.raises(ValueError, match="threshold is"):
        metrics.at_threshold([0, 1], [0.1, 0.9], threshold)


def test_a_calibration_table_needs_a_bin():
    with pytest.raises(ValueError, match="bins is 0"):
        metrics.calibration_table([0, 1], [0.1, 0.9], bins=0)


@given(arrays.arrays(np.float32, st.integers(2, 40), elements=st.floats(0, 1, width=32)))
def test_every_probability_a_model_can_answer_has_finite_numbers(probability):
    label = np.arange(probability.size) % 2
    assert all(
        math.isfinite(value) and value >= 0 for value in measures_of(Binary()).quality(label, probability).values()
    )
