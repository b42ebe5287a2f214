"""Preprocessing is learned from the training rows only, exactly, and survives JSON."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from platform_assets.product.learned import Learned
from platform_assets.training.learn import BINS, MIN_COUNT, codes
from tests.doubles import inputs as doubles

NAN = float("nan")


def numbers(*columns: list[float]) -> Learned:
    return doubles.learned(doubles.inputs_of(np.array(columns, dtype=np.float32).T))


def texts(column: list[str]) -> Learned:
    return doubles.learned(doubles.inputs_of(text=np.array(column, dtype=object).reshape(-1, 1)))


def test_mean_std_range_and_nulls_of_a_column_by_hand() -> None:
    (column,) = numbers([1.0, 3.0, NAN, 5.0, 7.0]).numeric
    assert (column.mean, column.low, column.high, column.has_nulls) == (4.0, 1.0, 7.0, True)
    assert column.std == pytest.approx(5.0**0.5)


def test_seventeen_equally_likely_values_are_the_edges_of_sixteen_bins() -> None:
    (column,) = numbers([float(value) for value in range(17)]).numeric
    assert column.edges == tuple(float(value) for value in range(17))
    assert column.levels == pytest.approx([(value + 0.5) / 17 for value in range(17)])


def test_ties_count_half_in_the_levels() -> None:
    (column,) = numbers([0.0, 0.0, 0.0, 1.0]).numeric
    assert (column.edges, column.levels) == ((0.0, 1.0), (0.375, 0.875))


def test_a_constant_column_gets_a_std_of_one_and_no_bins() -> None:
    (column,) = numbers([2.5] * 9).numeric
    assert (column.mean, column.std, column.edges, column.levels) == (2.5, 1.0, (2.5,), (0.5,))


def test_an_all_null_column_has_no_statistics_and_has_nulls() -> None:
    (column,) = numbers([NAN, NAN]).numeric
    assert (column.mean, column.std, column.edges, column.has_nulls) == (0.0, 1.0, (0.0,), True)


def test_the_vocabulary_is_sorted_and_rare_values_share_code_zero_with_unseen_ones() -> None:
    text = ["pear"] * MIN_COUNT + ["apple"] * MIN_COUNT + ["fig"] * (MIN_COUNT - 1)
    learned = texts(text)
    assert learned.categorical[0].vocabulary == ("apple", "pear")
    result = codes(learned, np.array([["pear"], ["fig"], ["apple"], ["never seen"], [""]], dtype=object))
    assert result.ravel().tolist() == [2, 0, 1, 0, 0]


def test_null_text_is_in_the_vocabulary_only_if_training_rows_had_it() -> None:
    assert texts([""] * MIN_COUNT + ["a"] * MIN_COUNT).categorical[0].vocabulary == ("", "a")


@given(st.lists(st.text(max_size=2), min_size=1, max_size=60))
def test_any_text_is_in_the_vocabulary_in_order_if_frequent(values: list[str]) -> None:
    column = values * 2 + ["often"] * MIN_COUNT
    learned, counts = texts(column), Counter(column)
    vocabulary = sorted(value for value, count in counts.items() if count >= MIN_COUNT)
    assert list(learned.categorical[0].vocabulary) == vocabulary
    expected = [vocabulary.index(value) + 1 if value in vocabulary else 0 for value in column]
    assert codes(learned, np.array(column, dtype=object).reshape(-1, 1)).ravel().tolist() == expected


def test_texts_that_differ_by_a_final_zero_character_are_two_categories() -> None:
    learned = texts(["a"] * MIN_COUNT + ["a\0"] * MIN_COUNT)
    assert learned.categorical[0].vocabulary == ("a", "a\0")
    assert codes(learned, np.array([["a\0"], ["a"]], dtype=object)).ravel().tolist() == [2, 1]


def test_no_rows_or_an_infinite_number_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        numbers([])
    with pytest.raises(ValueError, match="'n0' holds an infinite number"):
        numbers([1.0, float("inf")])


@given(arrays.arrays(np.float32, (40, 2), elements=st.floats(-1e6, 1e6, width=32) | st.just(NAN)))
def test_edges_ascend_levels_ascend_and_json_gives_the_same_back(matrix: np.ndarray) -> None:
    learned = doubles.learned(doubles.inputs_of(matrix), target={"mean": 1.0, "std": 2.0})
    for column in learned.numeric:
        assert len(column.edges) <= BINS + 1
        assert (np.diff(column.edges) > 0).all()
        assert (np.diff(column.levels) > 0).all()
        assert column.levels[0] > 0
        assert column.levels[-1] < 1
    assert Learned.from_json(json.loads(json.dumps(learned.to_json()))) == learned


def test_an_image_is_learned_as_grey_levels_and_statistics() -> None:
    image = np.zeros((4, 2, 3), dtype=np.uint8)
    image[2:] = 200
    learned = doubles.learned(doubles.inputs_of(image=image))
    assert learned.image is not None
    assert (learned.image.name, learned.image.shape, learned.image.mean, learned.image.std) == (
        "photo",
        (2, 3),
        100,
        100,
    )
    brightness = next(item for item in learned.image.statistics if item.name == "brightness")
    assert (brightness.low, brightness.high, brightness.mean) == (0, 200, 100)
    assert Learned.from_json(json.loads(json.dumps(learned.to_json()))) == learned
