"""Average precision by hand and for ties, and where a class counts as rare."""

import numpy as np
import pytest

from platform_assets.product.tasks import Binary, Regression
from platform_assets.training import rare_classes


def test_average_precision_by_hand() -> None:
    labels, answers = np.array([1, 0, 1, 0, 0]), np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    assert rare_classes.average_precision(labels, answers) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert rare_classes.average_precision(labels, 1 - answers) == pytest.approx((1 / 3 + 2 / 5) / 2)


def test_rows_with_equal_answers_are_one_step() -> None:
    labels = np.array([0, 0, 1, 0])
    for order in ([0, 1, 2, 3], [2, 0, 1, 3]):
        assert rare_classes.average_precision(labels[order], np.full(4, 0.5)) == 0.25


def test_average_precision_equals_that_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score

    stream = np.random.default_rng(0)
    labels = (stream.random(3_000) < 0.04).astype(np.int8)
    answers = np.round(0.3 * labels + stream.random(3_000), 2)
    assert rare_classes.average_precision(labels, answers) == pytest.approx(average_precision_score(labels, answers))


def test_a_class_is_rare_where_a_tenth_of_the_negatives_outnumber_it() -> None:
    few, many = np.array([1] * 9 + [0] * 91), np.array([1] * 10 + [0] * 90)
    answers = np.linspace(1, 0, 100)
    assert rare_classes.quality(few, answers, Binary()) == {"average_precision": 1.0, "base_rate": 0.09}
    assert rare_classes.quality(many, answers, Binary()) == {}
    assert rare_classes.quality(np.zeros(9), answers[:9], Binary()) == {}
    assert rare_classes.quality(few, answers, Regression()) == {}
