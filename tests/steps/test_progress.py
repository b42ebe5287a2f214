"""A fit logs a line now and then, because Dagster stores each, and its curve has every point."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from platform_assets.steps import progress
from platform_assets.steps.progress import StepProgress


def watched(lines: list[str]) -> Any:
    return SimpleNamespace(
        log=lines.append, stop=SimpleNamespace(check=lambda: None), shown=lambda *_: None, judge=lambda *_: None
    )


def attempt() -> Any:
    return SimpleNamespace(note=lambda **_: None, beat=lambda: None, facts=SimpleNamespace(steps_done=None))


@pytest.mark.parametrize(
    ("seconds_per_point", "expected"),
    [(0.01, [1, 101, 201, 250]), (0.4, [*range(1, 250, 3), 250]), (1.0, [*range(1, 251)])],
)
def test_points_that_follow_one_another_soon_share_a_line(
    seconds_per_point: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = (round(number * seconds_per_point, 6) for number in count())
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    lines: list[str] = []
    noting = StepProgress(watched(lines), attempt())
    for number in range(1, 251):
        noting.note(number, 250, train_loss=1 / number)
    assert [int(line.split()[0]) for line in lines] == expected
    assert [point["epoch"] for point in noting.history] == [*range(1, 251)]
