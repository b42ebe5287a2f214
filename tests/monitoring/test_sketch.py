"""A sketch counts what is in the rows, checked by hand, and parts add up."""

import json
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.monitoring.sketch import MOST_CATEGORIES, Sample, of_source, overlap
from platform_assets.product.inputs import Inputs
from platform_assets.product.spec import Field
from platform_assets.product.tasks import Binary
from platform_assets.store.records.sketches import Content, SourceSketch
from platform_assets.training.histograms import histograms, training_sketch
from platform_assets.training.learn import learn
from tests.doubles import inputs as doubles

TASK = Binary()
FIELDS = (Field(name="x", dtype="float", description=""), Field(name="c", dtype="category", description=""))


NUMBERS = np.array([[0.0], [1.0], [2.0], [3.0]] * 20, dtype=np.float32)
TEXTS = np.array([["a"], ["b"], ["a"], [""]] * 20, dtype=object)
LEARNED = learn(Inputs(numeric=NUMBERS, categorical=TEXTS), FIELDS)


def frame(x: list[float | None], c: list[str | None], label: list[int | None]) -> pl.DataFrame:
    return pl.DataFrame({"x": x, "c": c, "label": label}, schema={"x": pl.Float64, "c": pl.String, "label": pl.Int8})


def test_counts_nulls_range_and_mean_by_hand() -> None:
    rows = frame([0.0, 0.5, 3.0, None, 9.0], ["a", "z", None, "a", "b"], [1, 0, None, 1, 0])
    result = training_sketch(
        rows, LEARNED, TASK, answer=np.array([0.0, 0.04, 0.06, 0.99, 1.0], dtype=np.float32)
    ).document()
    assert result["numeric"]["x"] == {
        "edges": [0.0, 1.0, 2.0, 3.0],
        "counts": [1, 1, 0, 1, 1],
        "nulls": 1,
        "low": 0.0,
        "high": 9.0,
        "mean": 3.125,
    }
    assert result["categorical"]["c"] == {"counts": {"a": 2, "b": 1}, "other": 1, "nulls": 1}
    assert result["label"] == {"nulls": 1, "positives": 2}
    assert result["answers"] == {"edges": [0.5], "counts": [3, 2]}


def test_a_column_of_nulls_has_no_range() -> None:
    result = training_sketch(
        frame([None], [None], [None]), LEARNED, TASK, answer=np.array([0.5], dtype=np.float32)
    ).document()
    assert result["numeric"]["x"] | {"edges": []} == {
        "edges": [],
        "counts": [0] * 5,
        "nulls": 1,
        "low": None,
        "high": None,
        "mean": None,
    }


def test_no_rows_or_too_few_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 rows"):
        training_sketch(frame([], [], []), LEARNED, TASK, answer=np.empty(0, dtype=np.float32))
    with pytest.raises(ValueError, match="got 1 rows and 2"):
        training_sketch(frame([1.0], ["a"], [1]), LEARNED, TASK, answer=np.zeros(2, dtype=np.float32))


ROW = st.tuples(
    st.none() | st.floats(-10, 10, width=32),
    st.none() | st.sampled_from(["a", "b", "z"]),
    st.sampled_from([0, 1, None]),
)


@given(st.lists(ROW, min_size=1, max_size=30))
def test_every_count_adds_up_to_the_rows_and_is_plain_json(rows: list[tuple[float | None, str | None, int | None]]):
    table = frame(*(list(column) for column in zip(*rows, strict=True)))
    result = training_sketch(table, LEARNED, TASK, answer=np.full(len(rows), 0.25, dtype=np.float32)).document()
    number, word = result["numeric"]["x"], result["categorical"]["c"]
    assert sum(number["counts"]) + number["nulls"] == len(rows)
    assert sum(word["counts"].values()) + word["other"] + word["nulls"] == len(rows)
    assert sum(result["answers"]["counts"]) == len(rows)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def source(*texts: str) -> SourceSketch:
    frame = pl.DataFrame({"id": [str(index) for index in range(len(texts))], "text": list(texts)})
    return of_source(frame, unique=("id",), quarantined=0, repeated=0)


def content(*texts: str) -> Content:
    result = source(*texts).content
    assert result is not None
    return result


def test_a_source_is_sketched_column_by_column() -> None:
    frame = pl.DataFrame(
        {
            "key": ["k"] * 4,
            "source_offset": [0, 1, 2, 4],
            "id": ["a", "b", "c", "d"],
            "at": [datetime(2024, 1, 1, tzinfo=UTC)] * 4,
            "number": [1, 2, None, 6],
            "word": ["x", "y", "x", None],
        }
    )
    result = of_source(frame, unique=("id",), quarantined=2, repeated=1).document()
    assert {name: result[name] for name in ("rows", "good", "quarantined", "repeated")} == {
        "rows": 6,
        "good": 4,
        "quarantined": 2,
        "repeated": 1,
    }
    assert result["columns"] == {
        "id": {"nulls": 0, "distinct": 4},
        "at": {"nulls": 0, "distinct": 1},
        "number": {"nulls": 1, "distinct": 3, "low": 1.0, "high": 6.0, "mean": 3.0},
        "word": {"nulls": 1, "distinct": 2, "counts": {"x": 2, "y": 1}, "other": 0},
    }
    assert result["content"]["distinct"] == 4
    assert of_source(frame.select("id", "at"), unique=("id",), quarantined=0, repeated=0).content is None


def test_counts_of_categories_are_bounded() -> None:
    result = source(*(f"{index // 2:03d}" for index in range(2 * MOST_CATEGORIES + 10))).columns["text"]
    assert isinstance(result.counts, dict)
    assert (len(result.counts), result.other, result.distinct) == (MOST_CATEGORIES, 10, MOST_CATEGORIES + 5)


def test_hashes_are_the_same_in_every_process_and_version() -> None:
    assert source("a", "b").content == Content(distinct=2, hashes=[73912390445837, 177162312044785])


def overlap_of(current: Content, before: Content) -> float | None:
    return overlap(Sample(current), Sample(before))


def test_overlap_is_exact_for_few_rows() -> None:
    assert overlap_of(content("a", "b", "c", "d"), content("c", "d", "e")) == 0.5
    assert overlap_of(content("a"), content("b")) == 0.0
    empty = Content(distinct=0, hashes=[])
    assert overlap_of(empty, content("a")) is overlap_of(content("a"), empty) is None


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.7, 1.0])
def test_overlap_is_estimated_for_many(shared: float) -> None:
    rows = 5_000
    one = content(*(f"{index}" for index in range(rows)))
    two = content(*(f"{index + round(rows * (1 - shared))}" for index in range(rows)))
    assert len(one.hashes) < rows
    assert overlap_of(one, two) == pytest.approx(shared, abs=0.1)


SAMPLES = st.sets(st.integers(0, 60), max_size=30).map(sorted)


@given(current=SAMPLES, before=SAMPLES, most=st.integers(1, 30))
def test_overlap_counts_the_rows_up_to_which_both_samples_are_complete(
    current: list[int], before: list[int], most: int
) -> None:
    contents = [Content(distinct=len(hashes), hashes=hashes[:most]) for hashes in (current, before)]
    largest = min([kept.hashes[-1] for kept in contents if kept.distinct > most], default=60)
    ours, theirs = ({value for value in kept.hashes if value <= largest} for kept in contents)
    expected = len(ours & theirs) / len(ours) if ours and before else None
    assert overlap_of(*contents) == expected


@given(st.lists(ROW, min_size=1, max_size=30), st.integers(0, 30))
def test_histograms_of_parts_add_up_to_that_of_the_whole(
    rows: list[tuple[float | None, str | None, int | None]], at: int
) -> None:
    table = frame(*(list(column) for column in zip(*rows, strict=True)))
    together, parts = histograms(table, LEARNED), [histograms(part, LEARNED) for part in (table[:at], table[at:])]
    assert together == {name: [a + b for a, b in zip(parts[0][name], parts[1][name], strict=True)] for name in together}
    assert all(sum(counts) == len(rows) for counts in together.values())


def test_statistics_of_a_source_are_kept_as_mean_and_spread_and_bytes_have_content() -> None:
    rows = pl.DataFrame({"id": ["a", "b"], "pixels": [b"\x00\xff", b"\x01\x02"]})
    numbers = pl.DataFrame({"brightness": [1.0, 3.0]})
    result = of_source(
        rows, unique=("pixels",), content=("pixels",), quarantined=0, repeated=0, statistics=numbers
    ).document()
    assert result["statistics"] == {"brightness": {"mean": 2.0, "std": 1.0}}
    assert result["content"]["distinct"] == 2
    turned = rows.with_columns(pl.Series("pixels", [b"\x01\x02", b"\x00\xff"]))
    same = of_source(turned, unique=("pixels",), content=("pixels",), quarantined=0, repeated=0).document()
    assert (same["content"], same["statistics"]) == (result["content"], {})
    assert of_source(rows.clear(), unique=(), quarantined=0, repeated=0, statistics=numbers.clear()).statistics == {}


def test_an_image_counts_as_its_statistics() -> None:
    image = np.stack([np.full((2, 2), level, dtype=np.uint8) for level in (0, 100, 200)])
    learned = doubles.learned(doubles.inputs_of(image=image))
    result = histograms(pl.DataFrame({"photo": [item.tobytes() for item in image]}), learned)
    assert result["photo_brightness"] == [1, 1, 1, 0, 0]
    assert all(sum(counts) == 3 for counts in result.values())
    assert "photo" not in result


def test_a_statistic_that_is_not_a_number_is_stored_as_none() -> None:
    rows = pl.DataFrame({"id": ["a", "b"]})
    for broken in ([1.0, float("nan")], [1.0, None], [None, None]):
        numbers = pl.DataFrame({"brightness": broken}, schema={"brightness": pl.Float64})
        result = of_source(rows, unique=("id",), quarantined=0, repeated=0, statistics=numbers).document()
        assert result["statistics"] == {"brightness": {"mean": None, "std": None}}
        json.dumps(result, allow_nan=False)
