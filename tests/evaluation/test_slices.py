"""Slices: how a column is grouped, and the content of a group's row."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.evaluation import slices
from platform_assets.evaluation.measures.binary import BinaryMeasures
from platform_assets.evaluation.measures.measure import Measure
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.product.tasks import Binary, probabilities


def _rows_of(values: pl.Series) -> dict[str, int]:
    groups = slices.group(values)
    return {name: int((groups.codes == code).sum()) for code, name in enumerate(groups.names)}


def test_text_is_grouped_by_value_most_frequent_first():
    result = _rows_of(pl.Series("origin", ["LGA", "EWR", "EWR", None, "JFK"]))
    assert list(result.items()) == [("EWR", 2), ("JFK", 1), ("LGA", 1), ("(null)", 1)]


def test_the_rarest_texts_share_the_last_group():
    values = [f"c{number:02d}" for number in range(20) for _ in range(20 - number)]
    result = _rows_of(pl.Series("carrier", values))
    assert len(result) == slices.MOST_GROUPS
    assert next(iter(result)) == "c00"
    assert list(result.items())[-1] == ("9 rarer values", sum(range(1, 10)))


def test_booleans_and_few_numbers_are_grouped_by_value():
    assert list(_rows_of(pl.Series("is_late", [True, False, None])).items()) == [
        ("false", 1),
        ("true", 1),
        ("(null)", 1),
    ]
    assert list(_rows_of(pl.Series("hour", [9, 7, 7, 21])).items()) == [("7", 2), ("9", 1), ("21", 1)]


def test_many_numbers_are_grouped_by_quarters():
    result = _rows_of(pl.Series("distance_mi", [*range(1, 101), None, float("nan")], dtype=pl.Float64, strict=False))
    assert result == {"up to 25": 25, "25 to 50": 25, "50 to 75": 25, "over 75": 25, "(null)": 2}


def test_a_column_of_nulls_is_one_group():
    assert _rows_of(pl.Series("origin", [None, None], dtype=pl.String)) == {"(null)": 2}
    assert _rows_of(pl.Series("wind_mph", [None, None], dtype=pl.Float64)) == {"(null)": 2}


def test_an_unknown_dtype_is_an_error():
    with pytest.raises(ValueError, match="slice 'day' has dtype Date"):
        slices.group(pl.Series("day", [date(2013, 1, 1)]))


@given(
    st.one_of(
        st.lists(st.none() | st.floats(allow_infinity=False, width=32), min_size=1, max_size=80),
        st.lists(st.none() | st.text("abcdefghijklmnopqrstuvwxyz", max_size=1), min_size=1, max_size=80),
        st.lists(st.none() | st.booleans(), min_size=1, max_size=20),
        st.lists(st.none() | st.integers(-50, 50), min_size=1, max_size=80),
    )
)
def test_every_row_is_in_exactly_one_group(values):
    column = pl.Series("column", values)
    groups = slices.group(column.cast(pl.String) if column.dtype == pl.Null else column)
    assert groups.codes.size == len(values)
    assert groups.codes.min() >= 0
    assert groups.codes.max() < len(groups.names)
    assert len(groups.names) <= slices.MOST_GROUPS + 1


def test_a_group_is_measured_on_its_own_rows():
    label = np.array([0, 1, 0, 1, 1, 1])
    probability = np.array([0.2, 0.8, 0.6, 0.4, 0.9, 0.7])
    columns = {"origin": slices.group(pl.Series("origin", ["A", "A", "A", "A", "B", "B"]))}
    first, second = slices.slice_table(label, probability, columns, measures_of(Binary()))
    assert (first["slice"], first["value"], first["rows"]) == ("origin", "A", 4)
    assert first["auc"] == 0.75
    assert first["log_loss"] == pytest.approx(probabilities.log_losses(label[:4], probability[:4]).mean())
    assert second["auc"] is None
    assert second["note"] == "Only 2 rows. All labels are 1, so AUC is not defined."


class _Spread(BinaryMeasures):
    """Adds measures that are undefined for answers that are all equal."""

    @property
    def of_answers(self) -> tuple[Measure, ...]:
        spread, constant = (
            Measure(name=name, title=name, value=lambda labels, answers: None) for name in ("spread", "told")
        )
        return (*super().of_answers, spread, replace(constant, undefined="All answers are equal."))


def test_a_note_mentions_the_labels_only_if_all_are_equal():
    columns = {"origin": slices.group(pl.Series("origin", ["A", "A"]))}
    (row,) = slices.slice_table(np.array([0, 1]), np.array([0.5, 0.5]), columns, _Spread(Binary()))
    assert row["note"] == "Only 2 rows. With these rows spread is not defined. All answers are equal."


def test_groups_of_other_rows_are_an_error():
    columns = {"origin": slices.group(pl.Series("origin", ["A"]))}
    with pytest.raises(ValueError, match="slice 'origin' has 1 rows and the labels 2"):
        slices.slice_table([0, 1], [0.1, 0.2], columns, measures_of(Binary()))
