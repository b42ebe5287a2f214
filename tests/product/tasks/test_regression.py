"""Regression tasks: closed forms of a normal distribution, and error messages."""

import math

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Regression

TASK = Regression(unit="m")
MEASURES = measures_of(TASK)
LABEL = np.array([1.0, 3.0, 2.0, 6.0])
ANSWERS = np.array([[1.0, 1.0], [2.0, 0.5], [2.0, 1.0], [4.0, 2.0]])
KEY = list("aabb")


def test_the_measures_by_hand() -> None:
    result = MEASURES.quality(LABEL, ANSWERS)
    assert result["rmse"] == pytest.approx(math.sqrt((0 + 1 + 0 + 4) / 4))
    assert result["mae"] == 0.75
    assert result["r2"] == pytest.approx(1 - 5 / 14)
    z = [0.0, 2.0, 0.0, 1.0]
    logs = [math.log(spread) for spread in ANSWERS[:, 1]]
    expected = sum(0.5 * math.log(2 * math.pi) + log + 0.5 * score**2 for log, score in zip(logs, z, strict=True)) / 4
    assert result["log_loss"] == pytest.approx(expected)
    assert list(result) == [measure.name for measure in MEASURES.of_answers]


def test_decision_measures_by_hand() -> None:
    result = MEASURES.decided(LABEL, ANSWERS)
    assert (result["bias"], result["coverage_90"], result["notes"]) == (-0.75, 0.75, [])
    assert [(row["rows"], row["value"], row["label"]) for row in result["bins"]] == [
        (1, 1.0, 1.0),
        (1, 2.0, 2.0),
        (1, 2.0, 3.0),
        (1, 4.0, 6.0),
    ]
    assert MEASURES.quality([2.0, 2.0], ANSWERS[:2])["r2"] is None
    assert MEASURES.decided([2.0, 2.0], ANSWERS[:2])["notes"] == ["All labels are equal, so R² is not defined."]


def test_a_calibrated_model_has_its_expected_loss_and_coverage() -> None:
    random = np.random.default_rng(0)
    spread = random.uniform(0.5, 4, 40_000)
    value = random.normal(0, 10, spread.size)
    label = value + spread * random.normal(size=spread.size)
    answer = np.stack([value, spread], axis=1)
    assert TASK.losses(label, answer).mean() == pytest.approx(MEASURES.entropies(answer).mean(), abs=0.02)
    assert MEASURES.quality(label, answer)["ece"] < 0.006
    for row in MEASURES.calibration_table(label, answer):
        assert row["observed"] == pytest.approx(row["expected"], abs=0.01)
    assert MEASURES.decided(label, answer)["coverage_90"] == pytest.approx(0.9, abs=0.01)
    boastful = np.stack([value, spread / 2], axis=1)
    assert TASK.losses(label, boastful).mean() > MEASURES.entropies(boastful).mean() + 1


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50), st.integers(-50, 50)), min_size=6, max_size=20))
def test_the_difference_is_that_of_r2_and_its_error_a_jackknife(rows) -> None:
    label, one, two = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    key = np.arange(label.size) % 3
    if any(np.ptp(label[key != item]) == 0 for item in range(3)):
        return
    first, second = (np.stack([value, np.ones(label.size)], axis=1) for value in (one, two))
    result = MEASURES.difference(MEASURES.headline, label, first, second, key, confidence=0.95)

    def r2(part) -> float:
        return 1 - ((label - part)[chosen] ** 2).sum() / ((label[chosen] - label[chosen].mean()) ** 2).sum()

    chosen = np.ones(label.size, dtype=bool)
    value, without = r2(one) - r2(two), []
    for item in range(3):
        chosen = key != item
        without.append(r2(one) - r2(two))
    assert result.value == pytest.approx(value)
    assert result.standard_error == pytest.approx(math.sqrt(2 / 3 * sum((other - value) ** 2 for other in without)))


def test_labels_of_one_value_have_no_difference() -> None:
    with pytest.raises(ValueError, match="R² is not defined on the 3 labelled rows of 2 keys"):
        MEASURES.difference(
            MEASURES.headline, [1.0, 1.0, 2.0], ANSWERS[:3], ANSWERS[:3], ["a", "a", "b"], confidence=0.95
        )


def test_estimates_have_intervals_unless_everything_depends_on_one_key() -> None:
    result = MEASURES.estimates(LABEL, ANSWERS, KEY, confidence=0.9)
    assert result["mae"].value == 0.75
    assert result["mae"].standard_error == pytest.approx(0.25)
    flat = MEASURES.estimates(np.array([1.0, 1.0, 1.0, 6.0]), ANSWERS, ["a", "a", "a", "b"], confidence=0.9)
    assert flat["r2"] is None
    assert flat["rmse"] is not None


def test_labels_and_answers_are_read_and_validated() -> None:
    assert TASK.labels_of(pl.Series([1, 2])).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="not finite"):
        TASK.labels_of(pl.Series([1.0, float("nan")]))
    assert TASK.answers_of(pl.DataFrame({"value": [1.0], "spread": [2.0]})).tolist() == [[1.0, 2.0]]
    types = TASK.logged_type()
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"value": 1.0, "spread": 0.0}, types)
    assert TASK.summary(pl.Series([1.0, None, 4.0])) == {"mean": 2.5, "lowest": 1.0, "highest": 4.0}


def test_loss_and_answers_are_in_the_labels_unit() -> None:
    target = TASK.target_of(np.array([90.0, 110.0]))
    assert target == {"mean": 100.0, "std": 10.0}
    outputs = torch.tensor([[0.5, 1.0], [-1.0, -2.0]])
    answer = TASK.graph_answer(outputs, target).numpy()
    assert answer[:, 0].tolist() == [105.0, 90.0]
    np.testing.assert_allclose(TASK.answer(outputs.numpy(), target), answer, rtol=1e-6)
    labels = torch.tensor([100.0, 95.0], dtype=torch.float64)
    exact = TASK.losses(labels, answer).mean() - 0.5 * math.log(2 * math.pi) - math.log(10)
    assert TASK.loss(outputs, labels, target).item() == pytest.approx(exact, rel=1e-5)
    members = torch.stack([outputs, outputs], dim=1)
    assert TASK.loss(members, labels, target).item() == pytest.approx(exact, rel=1e-5)


def test_the_mix_counts_tenths_of_the_training_answers() -> None:
    answer = np.stack([np.arange(100.0), np.ones(100)], axis=1)
    edges = TASK.mix_edges(answer)
    assert TASK.mix(answer, edges) == [10] * 10
    assert TASK.mix(answer + np.array([1_000, 0]), edges) == [0] * 9 + [100]


def test_invalid_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="a spread is not above 0"):
        MEASURES.quality(LABEL, np.stack([LABEL, np.zeros(4)], axis=1))
    with pytest.raises(ValueError, match="there are no labelled rows"):
        MEASURES.quality([], np.empty((0, 2)))
    with pytest.raises(ValueError, match="expected one of each per row"):
        MEASURES.quality(LABEL, LABEL)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 7.0])
def test_equal_labels_explain_nothing_whatever_their_bits(value: float) -> None:
    assert MEASURES.quality([value] * 3, [[value, 1.0]] * 3)["r2"] is None


def test_labels_that_a_float32_cannot_distinguish_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot tell its values apart\. Subtract a constant"):
        TASK.check_labels(np.array([1e8, 1e8 + 1]))
    TASK.check_labels(np.array([100.0, 101.0]))


def test_measures_with_a_unit_are_shown_with_it() -> None:
    assert {item.name: item.unit for item in MEASURES.every if item.unit} == {
        "log_loss": "nats",
        "rmse": "m",
        "mae": "m",
        "bias": "m",
    }
