"""Paired differences: closed forms, symmetry, and the coverage of the interval."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from platform_assets.evaluation import metrics, paired
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Binary, probabilities

TASK = Binary()
MEASURES = measures_of(TASK)
ROW = st.tuples(st.booleans(), st.integers(0, 10), st.integers(0, 10), st.sampled_from("abcd"))


def auc_difference(*rows, confidence=0.95):
    return MEASURES.difference(MEASURES.headline, *rows, confidence=confidence)


def log_loss_difference(*rows, confidence=0.95):
    return MEASURES.difference(MEASURES.compared[1], *rows, confidence=confidence)


def _arrays(rows):
    label, first, second, key = (np.array(column) for column in zip(*rows, strict=True))
    codes = np.unique(key)
    assume(codes.size >= paired.FEWEST_KEYS)
    assume(all(0 < label[key != code].sum() < (key != code).sum() for code in codes))
    return label, first / 10, second / 10, key


@given(st.lists(ROW, min_size=8, max_size=60))
def test_without_each_key_equals_dropping_its_rows(rows):
    label, first, second, key = _arrays(rows)
    result = auc_difference(label, first, second, key)
    value = metrics.auc(label, first) - metrics.auc(label, second)
    keys = np.unique(key)
    without = [
        metrics.auc(label[key != one], first[key != one]) - metrics.auc(label[key != one], second[key != one])
        for one in keys
    ]
    error = math.sqrt((keys.size - 1) / keys.size * sum((other - value) ** 2 for other in without))
    assert result.value == pytest.approx(value, abs=1e-12)
    assert result.standard_error == pytest.approx(error, abs=1e-12)
    assert result.keys == keys.size


@given(st.lists(ROW, min_size=8, max_size=60))
def test_swapping_the_models_swaps_the_sign(rows):
    label, first, second, key = _arrays(rows)
    for compare in (auc_difference, log_loss_difference):
        forth, back = compare(label, first, second, key), compare(label, second, first, key)
        assert back.value == -forth.value
        assert back.standard_error == pytest.approx(forth.standard_error, abs=1e-12)
        assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=1e-12)


@given(st.lists(ROW, min_size=8, max_size=60))
def test_a_model_does_not_differ_from_itself(rows):
    label, first, _, key = _arrays(rows)
    for compare in (auc_difference, log_loss_difference):
        result = compare(label, first, first, key)
        assert (result.value, result.standard_error, result.low, result.high) == (0, 0, 0, 0)
        assert result.power(0.01, 0.0) is None
        assert result.detectable(0.0) is None


def test_log_loss_of_keys_of_one_size_is_a_t_interval_over_their_means():
    random = np.random.default_rng(0)
    key = np.repeat(np.arange(8), 50)
    label = random.random(400) < 0.3
    first, second = random.uniform(0.05, 0.95, (2, 400))
    gap = probabilities.log_losses(label, first) - probabilities.log_losses(label, second)
    means = gap.reshape(8, 50).mean(axis=1)
    error = means.std(ddof=1) / math.sqrt(8)
    result = log_loss_difference(label, first, second, key)
    assert result.value == pytest.approx(means.mean())
    assert result.standard_error == pytest.approx(error)
    assert result.high - result.value == pytest.approx(2.3646242515927849 * error)


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    [
        (0.975, 1, 12.706204736432095),
        (0.975, 2, 4.302652729696142),
        (0.975, 3, 3.182446305284263),
        (0.975, 13, 2.160368656461013),
        (0.95, 30, 1.697260886593957),
        (0.8, 4, 0.940964577),
        (0.025, 13, -2.160368656461013),
        (0.5, 7, 0.0),
    ],
)
def test_student_t_has_the_tables_values(probability, freedom, value):
    assert paired.student_t_quantile(probability, freedom) == pytest.approx(value, abs=1e-8)
    assert paired.student_t_cdf(value, freedom) == pytest.approx(probability, abs=1e-8)


@given(st.floats(-30, 30))
def test_student_t_of_one_degree_is_cauchy_and_of_two_is_algebraic(value):
    assert paired.student_t_cdf(value, 1) == pytest.approx(0.5 + math.atan(value) / math.pi, abs=1e-12)
    assert paired.student_t_cdf(value, 2) == pytest.approx(0.5 + value / (2 * math.sqrt(2 + value**2)), abs=1e-12)


@given(st.floats(-6, 6))
def test_student_t_of_many_degrees_is_normal(value):
    assert paired.student_t_cdf(value, 2001) == pytest.approx(NormalDist().cdf(value), abs=3e-4)


def _difference(error: float, keys: int = 14) -> paired.Difference:
    return paired.Difference(value=0.0, standard_error=error, low=-error, high=error, confidence=0.95, keys=keys)


def test_power_is_half_where_the_margin_is_the_limit():
    reach = paired.student_t_quantile(0.975, 13) * 0.002
    assert _difference(0.002).power(reach, reach) == pytest.approx(0.5)
    assert _difference(0.002).power(0.0, reach) == pytest.approx(0.025)


def test_power_rises_with_the_margin_and_falls_with_the_error():
    powers = [_difference(0.002).power(margin, 0.004) for margin in (0.02, 0.01, 0.005)]
    assert powers == sorted(powers, reverse=True)
    assert _difference(0.002).power(_difference(0.002).detectable(0.004, 0.9), 0.004) == pytest.approx(0.9)


def test_p_worse_is_the_chance_that_an_equal_model_looks_as_bad():
    worse = paired.Difference(value=-0.004, standard_error=0.002, low=-1, high=1, confidence=0.95, keys=14)
    assert worse.p_worse(is_more_better=True) == pytest.approx(paired.student_t_cdf(-2, 13))
    assert worse.p_worse(is_more_better=False) == pytest.approx(paired.student_t_cdf(2, 13))
    assert [_difference(0.0).p_worse(is_more_better=side) for side in (True, False)] == [1.0, 1.0]
    assert replace(worse, standard_error=0.0).p_worse(is_more_better=True) == 0.0


def _true_auc(strength: float) -> float:
    return NormalDist().cdf(strength / math.sqrt(2 * (1 + 0.5**2 + 0.2**2)))


@pytest.mark.costly
def test_the_interval_has_its_nominal_coverage():
    random = np.random.default_rng(20130301)
    truth = _true_auc(1.0) - _true_auc(1.2)
    rounds = 600
    covered = negative = 0
    powers = []
    for _ in range(rounds):
        # Binormal scores of two models that share a day's shift and half of each row's noise.
        key = np.repeat(np.arange(12), 80)
        label = random.random(key.size) < 0.3
        shared = np.repeat(random.normal(0, 0.5, 12), 80) + random.normal(0, math.sqrt(0.5), key.size)
        scores = []
        for strength in (1.0, 1.2):
            ours = np.repeat(random.normal(0, 0.2, 12), 80) + random.normal(0, math.sqrt(0.5), key.size)
            scores.append(strength * label + shared + ours)
        result = auc_difference(label, *(1 / (1 + np.exp(-score)) for score in scores), key)
        covered += result.low <= truth <= result.high
        negative += result.high < 0
        powers.append(result.power(-truth, paired.student_t_quantile(0.975, 11) * result.standard_error))
    assert 0.93 <= covered / rounds <= 0.98
    assert np.mean(powers) == pytest.approx(negative / rounds, abs=0.06)


@pytest.mark.parametrize("compare", [auc_difference, log_loss_difference])
def test_one_key_has_no_interval(compare):
    with pytest.raises(ValueError, match=r"all 4 labelled rows are of key 2013-02-01.*Raise Product.holdout"):
        compare([0, 1, 0, 1], [0.1] * 4, [0.2] * 4, ["2013-02-01"] * 4)


def test_a_class_confined_to_one_key_has_no_interval():
    with pytest.raises(
        ValueError, match="AUC is not defined on the 4 labelled rows of 2 keys, or not without some key"
    ):
        auc_difference([0, 0, 0, 1], [0.1] * 4, [0.2] * 4, ["a", "a", "b", "b"])


def test_unequal_rows_and_impossible_confidence_are_errors():
    label, probability, key = [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], list("aabb")
    with pytest.raises(ValueError, match="one of each per row"):
        auc_difference(label, probability, probability[:3], key)
    with pytest.raises(ValueError, match="keys have shape"):
        log_loss_difference(label, probability, probability, key[:3])
    with pytest.raises(ValueError, match="confidence is 95"):
        auc_difference(label, probability, probability, key, confidence=95)
    with pytest.raises(ValueError, match=r"margin is -0\.01"):
        _difference(0.002).power(-0.01, 0.0)
