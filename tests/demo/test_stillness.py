"""A demo says what it waits for once nothing has moved for a while."""

from __future__ import annotations

import time

import pytest

from platform_assets.demo.runs import Run
from platform_assets.demo.stillness import Stillness


class Runs:
    address = "http://127.0.0.1:3000"

    def __init__(self) -> None:
        self.known: list[Run] = []

    def runs(self, *, job: str | None = None, limit: int = 100) -> list[Run]:
        return self.known[:limit]


def looked(stillness: Stillness, for_s: float) -> None:
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        stillness()
        time.sleep(0.01)


def test_it_names_the_run_or_the_sensor_that_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs()
    stillness = Stillness(lambda: None, runs, silent_s=0.1)
    looked(stillness, 0.3)
    assert "waiting for a sensor to begin a run: http://127.0.0.1:3000/automation" in capsys.readouterr().out
    runs.known = [Run(id="abc", job="advance__returns", is_under_way=True, tags={})]
    looked(stillness, 0.35)
    out = capsys.readouterr().out
    assert "waiting for advance__returns, which runs: http://127.0.0.1:3000/runs/abc" in out


def test_it_is_silent_while_runs_begin_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs()
    stillness = Stillness(lambda: None, runs, silent_s=0.3)
    for number in range(8):
        runs.known = [Run(id=f"{number}", job="advance__returns", is_under_way=True, tags={})]
        looked(stillness, 0.1)
    assert capsys.readouterr().out == ""


def test_what_the_check_raises_passes() -> None:
    def broken() -> None:
        raise TimeoutError("the daemon has ended")

    with pytest.raises(TimeoutError, match="the daemon has ended"):
        Stillness(broken, Runs())()
