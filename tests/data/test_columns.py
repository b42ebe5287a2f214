"""A delivery's columns: others are left out, absent ones are null where that is allowed, and renames are named."""

import contextlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.data import columns
from platform_assets.data.landed import UnreadableFile, parse

TYPES = {"sensor": pl.String(), "reading": pl.Float64(), "known_at": pl.Datetime("us", "UTC")}
CELLS = {"sensor": "s1", "reading": "4.5", "known_at": "2024-01-01T00:00:00Z"}


def delivered(*names: str) -> pl.DataFrame:
    return pl.DataFrame({name: [CELLS.get(name, name)] for name in names})


def test_undeclared_columns_are_left_out_and_the_order_stays() -> None:
    frame = delivered("gust", "known_at", "sensor", "reading", "")
    assert columns.problem(frame, TYPES) is None
    assert columns.fit(frame, TYPES).columns == ["known_at", "sensor", "reading"]
    assert columns.undeclared(frame, TYPES) == ["gust", ""]


def test_a_column_that_may_be_absent_is_null() -> None:
    frame = delivered("sensor", "known_at")
    assert columns.problem(frame, TYPES, {"reading"}) is None
    assert columns.fit(frame, TYPES).select("reading").to_dict(as_series=False) == {"reading": [None]}
    assert "Missing: reading; not expected: none." in str(columns.problem(frame, TYPES))


@pytest.mark.parametrize(
    ("names", "old", "new"),
    [
        (("sensor", "measure", "known_at"), "reading", "measure"),
        (("known_at", "Sensor", "reading", "gust"), "sensor", "Sensor"),
        (("sensor", "gust", "known_at", " Reading "), "reading", "' Reading '"),
        (("elsewhere", "known_at", "reading"), "sensor", "elsewhere"),
    ],
)
def test_a_name_that_came_for_one_that_vanished_is_a_likely_rename(names: tuple[str, ...], old: str, new: str) -> None:
    frame = delivered(*names).with_columns(pl.lit("7").alias(name) for name in names if "eading" in name)
    assert f"Likely renamed: {old} is now called {new}. " in str(columns.problem(frame, TYPES))


def test_cells_of_another_type_are_no_rename() -> None:
    assert "renamed" not in str(columns.problem(delivered("sensor", "comment", "gust"), TYPES))


@pytest.mark.costly
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_rows_or_an_unreadable_file(data: bytes) -> None:
    with contextlib.suppress(UnreadableFile):
        assert isinstance(parse(data), pl.DataFrame)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (pl.LazyFrame({"a": [1]}), "returned LazyFrame; expected a polars DataFrame"),
        (None, "returned NoneType; expected a polars DataFrame"),
        (KeyError("rows"), r"KeyError: 'rows'\. Fix the delivery, or the source's `read`\."),
        (EOFError("ended early"), r"EOFError: ended early\."),
        (OSError("not a gzipped file"), r"OSError: not a gzipped file\."),
    ],
)
def test_whatever_a_reader_does_with_a_file_is_a_fault_of_the_file(result: object, sentence: str) -> None:
    def read(data: bytes) -> pl.DataFrame:
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[return-value]  # that is the point

    with pytest.raises(UnreadableFile, match=sentence):
        parse(b"x", read)


@pytest.mark.parametrize("problem", [MemoryError(), OSError(28, "No space left on device"), ImportError("pyarrow")])
def test_what_the_machine_lacks_is_not_a_fault_of_the_file(problem: Exception) -> None:
    def read(data: bytes) -> pl.DataFrame:
        raise problem

    with pytest.raises(type(problem)):
        parse(b"x", read)
