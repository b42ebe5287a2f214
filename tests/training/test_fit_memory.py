"""What a training takes above its rows is bounded: by no text's length, and by no number of categories."""

import pytest

from tests.doubles.memory import above_inputs_mb

pytestmark = pytest.mark.slow

MOST_FOR_TEXT_MB = 150
MOST_OF_TREES = 2.0


@pytest.mark.parametrize("kind", ["one", "every", "of_any_length", "null"])
def test_a_text_costs_its_own_length_and_not_that_of_the_longest_in_every_row(kind: str) -> None:
    assert above_inputs_mb("learning", kind, 20_000) < MOST_FOR_TEXT_MB


def test_a_column_of_few_categories_holds_each_once() -> None:
    assert above_inputs_mb("encoding", 1_000_000) < 50


@pytest.mark.costly
@pytest.mark.parametrize(
    ("task", "shape"),
    [
        ("binary", (200_000, 2, 2, 200, 0)),
        ("binary", (200_000, 2, 1, 5_000, 0)),
        ("multi_class", (200_000, 2, 2, 200, 0)),
        ("regression", (200_000, 2, 2, 200, 0)),
        pytest.param("binary", (2_000_000, 2, 2, 200, 0), marks=pytest.mark.thorough),
        pytest.param("binary", (1_000_000, 2, 1, 50_000, 0), marks=pytest.mark.thorough),
        pytest.param("binary", (100_000, 200, 50, 20, 0), marks=pytest.mark.thorough),
    ],
)
def test_the_linear_baseline_takes_at_most_twice_the_memory_of_trees(task: str, shape: tuple[int, ...]) -> None:
    """Shapes are rows, numbers, columns of categories, categories of each, and pixels of an image's side."""
    assert above_inputs_mb("baseline", task, *shape) < MOST_OF_TREES * above_inputs_mb("trees", task, *shape)
