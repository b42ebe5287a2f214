"""Who was alive in a key, and who has sent everything: closed-form cases."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from platform_assets.prediction_log.waiting import SILENCE, Process, Span, incomplete, wrong_clocks

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
SPAN = Span(start=NOON, end=NOON + HOUR)
IN_IT = Process(
    name="a",
    first=NOON + 10 * SECOND,
    last=NOON + HOUR + 10 * SECOND,
    covers_until=NOON + HOUR,
    has_left=False,
    clock_offset_s=None,
)


@pytest.mark.parametrize(
    ("first", "last", "has_left", "is_alive"),
    [
        (NOON - HOUR, NOON - SILENCE - SECOND, False, False),  # silent for longer than three heartbeats
        (NOON - HOUR, NOON - SILENCE, False, True),  # may have answered in the key and been killed
        (NOON - HOUR, NOON - SECOND, True, False),  # said goodbye before
        (NOON - HOUR, NOON, True, True),
        (NOON + HOUR, NOON + 2 * HOUR, False, False),  # began at the key's end
        (NOON + HOUR - SECOND, NOON + 2 * HOUR, False, True),
        (NOON - HOUR, NOON + 5 * HOUR, False, True),
    ],
)
def test_a_process_is_alive_in_the_keys_that_its_signs_of_life_touch(
    first: datetime, last: datetime, has_left: bool, is_alive: bool
) -> None:
    assert replace(IN_IT, first=first, last=last, has_left=has_left).is_alive_in(SPAN) is is_alive


def test_a_process_is_complete_when_it_covers_the_end_or_has_left() -> None:
    early = replace(IN_IT, covers_until=NOON + HOUR - SECOND)
    assert IN_IT.is_complete(SPAN)
    assert not early.is_complete(SPAN)
    assert replace(early, has_left=True).is_complete(SPAN)
    dead = replace(early, name="b", last=NOON - HOUR)
    assert incomplete([early, IN_IT, dead, replace(early, name="0")], SPAN) == ["0", "a"]


def test_clocks_are_named_above_the_limit_in_both_directions() -> None:
    offsets = {"a": 30.0, "b": 30.1, "c": -600.0, "d": None}
    processes = [replace(IN_IT, name=name, clock_offset_s=offset) for name, offset in offsets.items()]
    assert wrong_clocks(processes, 30.0) == {"b": 30.1, "c": -600.0}
