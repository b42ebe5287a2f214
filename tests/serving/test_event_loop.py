"""An event loop's lag is measured from another thread, also while it lasts, and stays visible until it was read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path

import pytest

from platform_assets.serving.answer.admission import Gate
from platform_assets.serving.run import event_loop, listening
from platform_assets.serving.run.event_loop import Highest, LoopMonitor, Waiting
from platform_assets.serving.run.metrics import Metrics


def test_the_highest_of_the_window_is_remembered_and_then_forgotten() -> None:
    highest = Highest(window_s=10.0)
    values = [
        highest.add(now, value) for now, value in ((0, 1.0), (1, 5.0), (2, 2.0), (11, 3.0), (11.5, 0.0), (22, 0.5))
    ]
    assert values == [1.0, 5.0, 5.0, 5.0, 3.0, 0.5]


def test_a_blocked_loop_is_detected_while_it_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is blocked until the thread has noted a wait twice: no time is asserted, only that waits grow."""
    monkeypatch.setattr(event_loop, "TICK_S", 0.001)
    noted: list[float] = []
    is_seen = threading.Event()

    def note(lag_s: float, waiting: int, _had_turn: bool) -> None:
        noted.append(lag_s)
        if len(noted) >= 3 and noted[-1] > noted[-2] > noted[-3]:
            is_seen.set()

    async def live() -> bool:
        watch = LoopMonitor(asyncio.get_running_loop(), note, Gate(), Waiting())
        watch.start()
        was_seen = is_seen.wait(30)
        watch.stop()
        return was_seen

    assert asyncio.run(live())


def test_the_thread_ends_with_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "TICK_S", 0.001)
    loop = asyncio.new_event_loop()
    watch = LoopMonitor(loop, lambda _lag_s, _waiting, _had_turn: None, Gate(), Waiting())
    loop.close()
    watch.start()
    watch._thread.join(30)
    assert not watch._thread.is_alive()


class Pauses(threading.Event):
    """An event for which nobody waits, and which remembers how long they would have."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return True


def test_an_idle_loop_is_asked_rarely_until_a_request_begins_and_while_one_is_under_way() -> None:
    gate, over = Gate(), Pauses()
    gate.began = began = Pauses()
    watch = LoopMonitor(asyncio.new_event_loop(), lambda _lag_s, _waiting, _had_turn: None, gate, Waiting())
    watch._is_over = over
    watch._pause()
    assert (began.seconds, over.seconds) == ([event_loop.IDLE_S], []), "nobody asks anything"
    began.set()
    watch._pause()
    gate.tasks = ["under way"]
    watch._pause()
    assert (began.seconds, over.seconds) == ([event_loop.IDLE_S], [event_loop.TICK_S, event_loop.TICK_S])
    gate.tasks = []
    watch._pause()
    assert began.seconds == [event_loop.IDLE_S, event_loop.IDLE_S], "a request counts for one tick after it ended"
    watch._loop.close()


def test_a_scrape_shows_a_lag_that_is_over() -> None:
    metrics = Metrics()
    metrics.note_lag(0.7, 3)
    metrics.note_lag(0.001, 0)
    assert "driftline_event_loop_lag_seconds 0.7" in metrics.text().decode()
    assert "driftline_in_flight_requests 3.0" in metrics.text().decode()


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
