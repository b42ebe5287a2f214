"""An event loop's lag is measured, shown while it lasts, and stays visible until it was read."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from platform_assets.serving.run import event_loop, listening
from platform_assets.serving.run.event_loop import Highest, Waiting

LAG = "driftline_event_loop_lag_seconds "


def test_the_highest_of_the_window_is_remembered_and_then_forgotten() -> None:
    highest = Highest(window_s=10.0)
    values = [
        highest.add(now, value) for now, value in ((0, 1.0), (1, 5.0), (2, 2.0), (11, 3.0), (11.5, 0.0), (22, 0.5))
    ]
    assert values == [1.0, 5.0, 5.0, 5.0, 3.0, 0.5]


def test_a_loop_that_was_blocked_notes_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    noted, moment = list[float](), [0.0]
    monkeypatch.setattr(event_loop, "monotonic", lambda: moment[0])

    async def sleep(seconds: float) -> None:
        if noted:
            raise asyncio.CancelledError
        moment[0] += seconds + 0.7

    monkeypatch.setattr(event_loop.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(event_loop.measure(lambda lag_s, _waiting: noted.append(lag_s), Waiting()))
    assert noted == pytest.approx([0.7])


def test_a_scrape_shows_a_loop_that_has_no_turn(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = app.runtime.metrics
    metrics.note_lag(0.0, 0)
    monkeypatch.setattr(metrics, "turn_s", metrics.turn_s - 5.0)
    lag = next(line for line in app.metrics().splitlines() if line.startswith(LAG))
    assert float(lag.removeprefix(LAG)) == pytest.approx(4.9, abs=0.9)


def test_connections_not_accepted_yet_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server, contextlib.ExitStack() as connections:
        waiting = Waiting(listening.copies())
        before = waiting.count()
        for _ in range(12):
            connections.enter_context(socket.create_connection(server.getsockname()))
        assert waiting.count() == before + 12
        server.accept()[0].close()
        assert waiting.count() == before + 11
        waiting.close()


def test_looking_for_sockets_leaves_no_file_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with (tmp_path / "log").open("wb"), socket.create_server(("127.0.0.1", 0)), socket.socket():
        before = count()
        Waiting(listening.copies()).close()
        assert count() == before
