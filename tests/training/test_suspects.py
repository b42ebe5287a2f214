"""A field that gives the label away is found, chance is not taken for one; empty and extreme fields are named."""

from typing import Any

import numpy as np
import pytest

from platform_assets.product.inputs import Inputs
from platform_assets.product.spec import Field
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.training import suspects

FIELDS = (
    Field(name="number", dtype="float", description="A number.", is_nullable=True),
    Field(name="word", dtype="category", description="A word.", is_nullable=True),
)
STREAM = np.random.default_rng(0)
NOISE, WORDS = STREAM.normal(size=60), STREAM.choice(["a", "b", "c"], 60)
YES = (STREAM.random(60) < 0.3).astype(np.int8)
CLASSES = MultiClass(classes=("a", "b", "c"))


def inputs(number: Any, word: Any) -> Inputs:
    return Inputs(numeric=np.asarray(number, np.float32)[:, None], categorical=np.asarray(word, dtype=object)[:, None])


def without(values: np.ndarray, rows: Any) -> np.ndarray:
    values = values.astype(np.float64)
    values[rows] = np.nan
    return values


@pytest.mark.parametrize(
    ("task", "labels", "number", "word", "leaks"),
    [
        (Binary(), YES, NOISE, WORDS, []),
        (Binary(), YES, YES, WORDS, ["number"]),
        (Binary(), YES, 5.0 - 3 * YES + 0.1 * np.tanh(NOISE), WORDS, ["number"]),
        (Binary(), YES, without(YES, YES == 0), WORDS, ["number"]),
        (Binary(), YES, without(YES, slice(0, 9)), WORDS, []),
        (Binary(), YES, np.where(np.arange(60) == 7, 1 - YES, YES), WORDS, []),
        (Binary(), YES, NOISE, np.where(YES, "late", np.where(NOISE > 0, "early", "on time")), ["word"]),
        (Binary(), YES, NOISE, [f"flight {row}" for row in range(60)], []),
        (Binary(), YES[:8], YES[:8], WORDS[:8], []),
        (CLASSES, (np.arange(60) % 3), np.arange(60) % 3, WORDS, ["number"]),
        (CLASSES, (np.arange(60) % 3), (np.arange(60) % 3 == 1), WORDS, []),
        (Regression(), NOISE, 32 - 1.8 * NOISE, WORDS, ["number"]),
        (Regression(), NOISE, NOISE + 0.01 * STREAM.normal(size=60), WORDS, []),
        (Regression(), NOISE[:10], NOISE[:10], WORDS[:10], []),
    ],
)
def test_a_field_that_alone_determines_every_label_is_found(
    task: Task, labels: np.ndarray, number: Any, word: Any, leaks: list[str]
) -> None:
    assert suspects.giving_away(inputs(number, word), labels, FIELDS, task) == leaks


def test_independent_fields_are_hardly_ever_found() -> None:
    """With few rows one threshold separates the labels of some; the evidence asked for leaves none of 2,000."""
    stream = np.random.default_rng(1)
    separated = suspected = 0
    for _ in range(2_000):
        labels, number = (stream.random(6) < 0.5).astype(np.int8), stream.normal(size=6)
        if len(set(labels)) == 2:
            separated += suspects._is_in_order(number.astype(np.float32), labels, 2)
            suspected += bool(suspects.giving_away(inputs(number, ["x"] * 6), labels, FIELDS, Binary()))
    assert separated > 100
    assert suspected == 0


def test_empty_fields_and_far_numbers_are_named() -> None:
    rows = inputs(without(NOISE, slice(0, 60)), [""] * 60)
    assert suspects.empty(rows, FIELDS) == ["number", "word"]
    assert suspects.empty(inputs(NOISE, WORDS), FIELDS) == []
    assert suspects.farthest(rows, FIELDS) == ""
    far = suspects.farthest(inputs(np.where(np.arange(60) == 3, 1e30, 0.0), WORDS), FIELDS)
    assert far == "number reaches 1e+30, 8 standard deviations from its mean"
