"""Fields become the model's matrices, in the contract's order."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.product.spec import Field
from platform_assets.training.matrix import (
    categorical_columns,
    categorical_matrix,
    distinct,
    numeric_columns,
    numeric_matrix,
)

FIELDS = tuple(
    Field(name=name, dtype=dtype, description="", is_nullable=True)
    for name, dtype in {
        "place": "category",
        "late": "bool",
        "count": "int",
        "kind": "category",
        "share": "float",
    }.items()
)
FRAME = pl.DataFrame(
    {
        "share": [0.5, None],
        "count": [3, None],
        "late": [True, None],
        "place": ["EWR", None],
        "kind": [None, "x"],
        "other": [1, 2],
    }
)


def test_columns_keep_the_order_of_the_fields():
    assert numeric_columns(FIELDS) == ("late", "count", "share")
    assert categorical_columns(FIELDS) == ("place", "kind")


def test_numbers_are_float32_and_null_is_nan():
    matrix = numeric_matrix(FRAME, FIELDS)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array([[1, 3, 0.5], [np.nan] * 3], dtype=np.float32))


def test_categories_are_text_and_null_is_empty():
    matrix = categorical_matrix(FRAME, FIELDS)
    assert matrix.dtype == object
    assert matrix.tolist() == [["EWR", ""], ["", "x"]]


def test_no_rows_keep_their_shape():
    assert numeric_matrix(FRAME.clear(), FIELDS).shape == (0, 3)
    assert categorical_matrix(FRAME.clear(), FIELDS).shape == (0, 2)


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match=r"lacks the fields share; it has"):
        numeric_matrix(FRAME.drop("share"), FIELDS)


@given(st.lists(st.text(max_size=3)))
def test_distinct_texts_and_their_places_give_the_texts_back(texts: list[str]):
    values, places = distinct(texts)
    assert len(values) == len(set(texts))
    assert [values[place] for place in places] == texts


def test_equal_categories_are_one_object():
    frame = pl.DataFrame({"place": ["a long name"] * 2 + [None], "kind": ["x"] * 3})
    matrix = categorical_matrix(frame, FIELDS)
    assert matrix[0, 0] is matrix[1, 0]
    assert matrix[:, 0].tolist() == ["a long name", "a long name", ""]
