"""Ranges of bytes that were taken, and remarks about further ones: closed-form cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.prediction_log.streams import MOST_STREAMS, Ranges, extended, remark


@pytest.mark.parametrize(
    ("taken", "first", "end", "words"),
    [
        ([], 500, 600, ""),
        ([[0, 500]], 500, 600, ""),
        ([[0, 500]], 0, 500, "repeats all of its 500 bytes"),
        ([[0, 500]], 400, 600, "repeats 100 of its 200 bytes"),
        ([[0, 500], [700, 900]], 400, 800, "repeats 200 of its 400 bytes"),
        ([[500, 900]], 0, 500, "comes after later bytes of its stream, which had been taken up to 900"),
        ([[0, 500]], 700, 900, "comes before bytes 500 to 700 of its stream"),
    ],
)
def test_repeated_and_missing_bytes_are_remarked(taken: Ranges, first: int, end: int, words: str) -> None:
    assert remark(taken, first, end).startswith(words)
    assert bool(remark(taken, first, end)) is bool(words)


def test_the_newest_streams_are_followed() -> None:
    taken: dict[str, Ranges] = {}
    for number in range(MOST_STREAMS + 2):
        taken = extended(taken, f"{number:019d}-1", 0, 10)
    assert (len(taken), min(taken)) == (MOST_STREAMS, f"{2:019d}-1")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1))
def test_ranges_hold_exactly_the_bytes_that_were_taken(segments: list[tuple[int, int]]) -> None:
    taken: dict[str, Ranges] = {}
    for first, length in segments:
        taken = extended(taken, "a", first, first + length)
    positions = [place for lower, upper in taken["a"] for place in range(lower, upper)]
    assert positions == sorted({first + place for first, length in segments for place in range(length)})
    assert all(one[1] < other[0] for one, other in zip(taken["a"], taken["a"][1:], strict=False))
