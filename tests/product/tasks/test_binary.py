"""Binary tasks: their additions to `evaluation.metrics`, which has tests of its own."""

import polars as pl
import pytest

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Binary, probabilities

TASK = Binary(threshold=0.3)
MEASURES = measures_of(TASK)


def test_one_class_gives_every_measure_except_ranking() -> None:
    result = MEASURES.quality([1, 1], [0.9, 0.4])
    assert result["auc"] is None
    assert result["log_loss"] == probabilities.log_losses([1, 1], [0.9, 0.4]).mean()
    assert list(result) == [measure.name for measure in MEASURES.of_answers]
    assert MEASURES.decided([1, 1], [0.9, 0.2])["recall"] == 0.5


def test_decisions_count_the_threshold_itself_as_positive() -> None:
    result = MEASURES.decided([1, 1, 1, 0, 0], [0.9, 0.3, 0.1, 0.5, 0.2])
    assert [result[name] for name in ("accuracy", "precision", "recall")] == [3 / 5, 2 / 3, 2 / 3]
    assert result["notes"] == []


def test_undefined_decisions_are_null_with_a_sentence() -> None:
    result = measures_of(Binary()).decided([0, 0], [0.1, 0.2])
    assert [result[name] for name in ("accuracy", "precision", "recall")] == [1.0, None, None]
    assert result["notes"] == [
        "No row reaches the threshold 0.5, so precision is not defined.",
        "No row is positive, so recall is not defined.",
    ]


def test_answers_are_counted_by_the_sealed_threshold() -> None:
    assert TASK.mix([0.1, 0.3, 0.6], TASK.mix_edges([])) == [1, 2]
    assert TASK.mix([0.1, 0.3, 0.6], [0.5]) == [2, 1]


def test_labels_are_zeros_and_ones() -> None:
    assert TASK.labels_of(pl.Series([1, 0])).tolist() == [1, 0]
    assert TASK.labels_of(pl.Series([], dtype=pl.Int8)).tolist() == []
    with pytest.raises(ValueError, match="labels hold 2; expected 0 and 1"):
        TASK.labels_of(pl.Series([1, 2]))
