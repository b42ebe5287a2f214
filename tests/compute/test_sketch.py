"""A sketch counts what is there, by hand-computable numbers, and adds up."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.compute.learn import learn
from platform_assets.compute.sketch import sketch


def learned_from(values: list[float], words: list[str]):  # type: ignore[no-untyped-def]
    numbers = np.array(values, dtype=np.float32).reshape(-1, 1)
    return learn(numbers, np.array(words, dtype=object).reshape(-1, 1), numeric_names=["x"], categorical_names=["c"])


LEARNED = learned_from([0.0, 1.0, 2.0, 3.0] * 20, ["a", "b", "a", ""] * 20)


def frame(x: list[float | None], c: list[str | None], label: list[int | None]) -> pl.DataFrame:
    return pl.DataFrame({"x": x, "c": c, "label": label}, schema={"x": pl.Float64, "c": pl.String, "label": pl.Int8})


def test_counts_nulls_range_and_mean_by_hand() -> None:
    rows = frame([0.0, 0.5, 3.0, None, 9.0], ["a", "z", None, "a", "b"], [1, 0, None, 1, 0])
    found = sketch(rows, LEARNED, probability=np.array([0.0, 0.04, 0.06, 0.99, 1.0], dtype=np.float32))
    assert found["numeric"]["x"] == {
        "edges": [0.0, 1.0, 2.0, 3.0],
        "counts": [1, 1, 0, 1, 1],
        "nulls": 1,
        "low": 0.0,
        "high": 9.0,
        "mean": 3.125,
    }
    assert found["categorical"]["c"] == {"counts": {"a": 2, "b": 1}, "other": 1, "nulls": 1}
    assert found["label"] == {"nulls": 1, "zeros": 2, "ones": 2}
    assert found["prediction"]["counts"] == [2, 1, *[0] * 16, 0, 2]


def test_a_column_of_nulls_has_no_range() -> None:
    found = sketch(frame([None], [None], [None]), LEARNED, probability=np.array([0.5], dtype=np.float32))
    assert found["numeric"]["x"] | {"edges": []} == {
        "edges": [],
        "counts": [0] * 5,
        "nulls": 1,
        "low": None,
        "high": None,
        "mean": None,
    }


def test_no_rows_or_too_few_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 rows"):
        sketch(frame([], [], []), LEARNED, probability=np.empty(0, dtype=np.float32))
    with pytest.raises(ValueError, match="got 1 rows and 2"):
        sketch(frame([1.0], ["a"], [1]), LEARNED, probability=np.zeros(2, dtype=np.float32))


ROW = st.tuples(
    st.none() | st.floats(-10, 10, width=32),
    st.none() | st.sampled_from(["a", "b", "z"]),
    st.sampled_from([0, 1, None]),
)


@given(st.lists(ROW, min_size=1, max_size=30))
def test_every_count_adds_up_to_the_rows_and_is_plain_json(
    rows: list[tuple[float | None, str | None, int | None]],
) -> None:
    table = frame(*(list(column) for column in zip(*rows, strict=True)))
    found = sketch(table, LEARNED, probability=np.full(len(rows), 0.25, dtype=np.float32))
    number, word = found["numeric"]["x"], found["categorical"]["c"]
    assert sum(number["counts"]) + number["nulls"] == len(rows)
    assert sum(word["counts"].values()) + word["other"] + word["nulls"] == len(rows)
    assert sum(found["label"].values()) == sum(found["prediction"]["counts"]) == len(rows)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
