"""Multi-class tasks: closed forms, agreement with binary for two classes, and error messages."""

import math

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Binary, MultiClass

TASK = MultiClass(classes=("cat", "dog", "fox"))
MEASURES = measures_of(TASK)
ANSWERS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6]])
LABEL = np.array([0, 1, 2, 2])
KEY = list("aabb")


def test_the_measures_by_hand() -> None:
    result = MEASURES.quality(LABEL, ANSWERS)
    assert result["accuracy"] == 0.75
    assert result["log_loss"] == pytest.approx(-sum(map(math.log, (0.7, 0.6, 0.4, 0.6))) / 4)
    squares = [0.3**2 + 0.2**2 + 0.1**2, 0.1**2 + 0.4**2 + 0.3**2, 0.5**2 + 0.1**2 + 0.6**2, 0.2**2 + 0.2**2 + 0.4**2]
    assert result["brier"] == pytest.approx(sum(squares) / 4)
    assert list(result) == [measure.name for measure in MEASURES.of_answers]


def test_confusion_recall_and_precision_by_hand() -> None:
    result = MEASURES.decided(LABEL, ANSWERS)
    assert result["confusion"] == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert [(row["class"], row["precision"], row["recall"]) for row in result["by_class"]] == [
        ("cat", 0.5, 1.0),
        ("dog", 1.0, 1.0),
        ("fox", 1.0, 0.5),
    ]
    assert (result["balanced_accuracy"], result["lowest_recall"]) == (pytest.approx(2.5 / 3), 0.5)
    few = MEASURES.decided(LABEL[:1], ANSWERS[:1])
    assert few["notes"] == ["No row is dog, so it has no recall.", "No row is fox, so it has no recall."]


def test_the_expected_loss_is_the_entropy() -> None:
    assert MEASURES.entropies([[1 / 3] * 3]) == pytest.approx([math.log(3)])
    chances = np.array([0.7, 0.2, 0.1])
    item = [TASK.losses([label], [chances])[0] for label in range(3)]
    assert MEASURES.entropies([chances])[0] == pytest.approx(float(chances @ item))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 99), st.sampled_from("abc")), min_size=6, max_size=40))
def test_two_classes_agree_with_binary(rows) -> None:
    label, percent, key = (np.array(column) for column in zip(*rows, strict=True))
    answer = percent / 100
    multi_class, binary = MultiClass(classes=("no", "yes")), Binary()
    pairs = np.stack([1 - answer, answer], axis=1)
    np.testing.assert_allclose(multi_class.losses(label.astype(int), pairs), binary.losses(label, answer))
    np.testing.assert_allclose(measures_of(multi_class).entropies(pairs), measures_of(binary).entropies(answer))
    assert measures_of(multi_class).quality(label.astype(int), pairs)["brier"] == pytest.approx(
        2 * np.mean((answer - label) ** 2)
    )
    assert multi_class.mix(pairs, None) == [int((answer <= 0.5).sum()), int((answer > 0.5).sum())]
    if len(set(key)) > 1:
        result = measures_of(multi_class).estimates(label.astype(int), pairs, key, confidence=0.9)
        loss = measures_of(binary).estimates(label, answer, key, confidence=0.9)["log_loss"]
        assert result["log_loss"].value == pytest.approx(loss.value)
        assert result["log_loss"].standard_error == pytest.approx(loss.standard_error, abs=1e-12)


def test_a_challenger_is_compared_by_the_rows_it_gets_right() -> None:
    result = MEASURES.difference(MEASURES.headline, LABEL, ANSWERS, ANSWERS[:, [1, 0, 2]], KEY, confidence=0.95)
    rights = [1, 1, 0, 1], [0, 0, 0, 1]
    assert result.value == (sum(rights[0]) - sum(rights[1])) / 4
    assert result.standard_error == pytest.approx(abs(1.0 - 0.0) / 2)
    assert MEASURES.difference(MEASURES.headline, LABEL, ANSWERS, ANSWERS, KEY, confidence=0.95).value == 0


def test_labels_are_names_and_answers_come_back_from_the_log() -> None:
    assert TASK.labels_of(pl.Series(["fox", "cat"])).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"labels hold 'cow'; expected one of cat, dog, fox"):
        TASK.labels_of(pl.Series(["fox", "cow"]))
    rows = pl.DataFrame({"predicted": ["cat"], "probabilities": [[0.7, 0.2, 0.1]]}, schema=TASK.answer_types())
    assert TASK.answers_of(rows).tolist() == [[0.7, 0.2, 0.1]]
    assert TASK.answers_of(rows.clear()).shape == (0, 3)
    types = TASK.logged_type()
    assert msgspec.convert({"predicted": "dog", "probabilities": [0.1, 0.8, 0.1]}, types).predicted == "dog"
    for answer in (
        {"predicted": "cow", "probabilities": [0.1, 0.8, 0.1]},
        {"predicted": "dog", "probabilities": [1.0]},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(answer, types)
    assert TASK.summary(pl.Series(["fox", None, "fox"])) == {"classes": {"cat": 0, "dog": 0, "fox": 2}}


def test_loss_and_answers_are_those_of_a_softmax() -> None:
    outputs = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]])
    labels = torch.tensor([1, 2])
    answer = TASK.graph_answer(outputs, None).numpy()
    np.testing.assert_allclose(TASK.answer(outputs.numpy(), None), answer, rtol=1e-6)
    loss = TASK.loss(outputs, labels, None).item()
    assert loss == pytest.approx(TASK.losses(labels, answer).mean(), rel=1e-6)
    members = torch.stack([outputs, outputs.flip(1)], dim=1)
    assert TASK.loss(members, labels, None).item() == pytest.approx(
        (loss + TASK.loss(outputs.flip(1), labels, None).item()) / 2
    )


def test_invalid_answers_and_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="not probabilities that add up to 1"):
        MEASURES.quality([0], [[0.9, 0.9, 0.1]])
    with pytest.raises(ValueError, match="there are no labelled rows"):
        MEASURES.quality([], np.empty((0, 3)))
    with pytest.raises(ValueError, match="expected one of each per row"):
        MEASURES.quality([0], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="labels run from 0 to 3; there are 3 classes"):
        MEASURES.quality([0, 3], ANSWERS[:2])
    with pytest.raises(ValueError, match="1 names, 1 of them distinct; expected 2"):
        MultiClass(classes=("one",))
    with pytest.raises(ValueError, match="'Two words'; expected lower-case"):
        MultiClass(classes=("one", "Two words"))


def test_a_class_confined_to_one_key_has_no_interval_of_balanced_accuracy() -> None:
    result = MEASURES.estimates(LABEL, ANSWERS, KEY, confidence=0.9)
    assert result["balanced_accuracy"] is None, "without b no row is a fox"
    assert result["accuracy"] is not None


def test_answers_of_another_kind_or_of_other_classes_are_not_alike() -> None:
    assert TASK.is_like(TASK.document())
    assert not TASK.is_like(Binary().document())
    assert not TASK.is_like(MultiClass(classes=("cat", "dog")).document())
    assert Binary(threshold=0.2).is_like(Binary(threshold=0.7).document())
