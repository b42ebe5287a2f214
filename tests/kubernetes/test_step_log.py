"""Every gap in a step's log is told: between two streams, within one, and before the first line.

What nodes do to logs is in `tests/cluster/test_launcher_logs.py`; here an API plays streams at times of its own.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiException

from platform_assets.kubernetes import step_log
from platform_assets.kubernetes.step_log import StepLog
from platform_assets.launch.attempt import Observation

START = datetime(2026, 11, 24, 10, tzinfo=UTC)
Line = tuple[float, float]
"""When a line was written, and when it came, in seconds after the start."""


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Streams:
    """An API that plays one stream per request; an integer is the status of a refusal."""

    def __init__(self, clock: Clock, *streams: Sequence[Line] | int) -> None:
        self.clock, self.streams, self.requests = clock, list(streams), 0

    def lines(self, *_: Any, follow: bool, since: datetime | None) -> Iterator[tuple[str, str]]:
        del follow
        self.requests += 1
        stream = self.streams.pop(0)
        if isinstance(stream, int):
            raise ApiException(status=stream)
        return self._play([line for line in stream if since is None or at(line[0]) >= since])

    def _play(self, lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
        for written_s, came_s in lines:
            self.clock.now_s = max(self.clock.now_s, came_s)
            yield at(written_s).isoformat(), f"line of {written_s}"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(step_log, "time", clock)
    return clock


def read(api: Streams, *pauses_s: float, is_new: bool = True, started_at: datetime | None = START) -> list[str]:
    """Read all streams, with pauses after them, and return the warnings."""
    warnings: list[str] = []
    log = SimpleNamespace(warning=warnings.append, info=lambda _: None)
    prepared, observation = SimpleNamespace(name="pod"), Observation(started_at=started_at)
    launched: Any = SimpleNamespace(prepared=prepared, observation=observation, log=log)
    reader = StepLog(api, launched, is_new=is_new)  # type: ignore[arg-type]
    for pause_s in (*pauses_s, 0.0):
        reader._read(follow=True)
        api.clock.now_s += pause_s
    return warnings


def test_a_file_that_the_node_skipped_within_the_first_stream_is_told(clock: Clock) -> None:
    """The reader is behind: after the first file comes the third, and the second is rotated away."""
    api = Streams(clock, [(1.0, 2.0), (1.1, 4.0), (4.2, 4.0), (4.3, 4.1)], [(4.2, 4.1)])
    (warning,) = read(api)
    assert warning == (
        "lines after 10:00:01.100 until 10:00:04.200 are missing from this log: the step's node had rotated them away."
    )


def test_a_step_that_was_silent_has_no_gap(clock: Clock) -> None:
    behind = [(1.0, 6.0), (1.1, 6.0), (4.2, 6.1)]
    assert read(api := Streams(clock, behind, behind)) == [], "the node still has the line before"
    assert api.requests == 2
    clock.now_s = 0.0
    assert read(api := Streams(clock, [(1.0, 11.0), (1.1, 11.1), (4.2, 14.2)])) == []
    assert api.requests == 1, "the line came as late as it was written"


def test_a_gap_that_cannot_be_checked_is_told(clock: Clock) -> None:
    assert len(read(Streams(clock, [(1.0, 2.0), (4.2, 2.0)], 500))) == 1


def test_a_resumed_stream_without_the_newest_line_is_told_once(clock: Clock) -> None:
    api = Streams(clock, [(1.0, 1.0)], [(9.0, 9.0), (9.1, 9.1)], [(9.0, 9.2), (9.1, 9.2), (9.2, 9.2)])
    assert len(read(api, 1.0, 1.0)) == 1


def test_lines_from_before_the_first_read_are_told_if_it_was_late(clock: Clock) -> None:
    late = [(5.0, 6.0)]
    (warning,) = read(Streams(clock, 400, 500, late), 1.0, 4.0)
    assert warning.startswith("lines before 10:00:05.000 are missing from this log, if the step wrote any")
    clock.now_s = 0.0
    assert read(Streams(clock, 400, 400, 400, late), 2.0, 2.0, 1.0) == [], "it had not started before"
    clock.now_s = 0.0
    assert read(Streams(clock, 400, [], [], late), 1.0, 2.0, 1.0) == [], "its log was read, and empty"


def test_a_log_that_was_taken_over_begins_with_the_step_or_says_so(clock: Clock) -> None:
    assert read(Streams(clock, [(12.0, 0.0)]), is_new=False) == []
    assert len(read(Streams(clock, [(3600.0, 0.0)]), is_new=False)) == 1
