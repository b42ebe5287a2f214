"""Row R7's counts are those of its callers' records, and its page says what could not run."""

import asyncio
import io
import json
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proof.chaos import r7_load, r7_phases
from proof.chaos.r7_calls import Call, Counts, counts, seconds_above
from proof.chaos.r7_figures import Figures, Idle, Lost, Spike, Start
from proof.chaos.r7_load import NO_ANSWER, TOO_LATE
from proof.chaos.r7_page import BEHIND, measures, sentences

EXPECTED = {"a": 0.25, "b": 0.5}


def call(at: float, *statuses: int, took_s: float = 0.01, digest: str = "a", probability: float = 0.25) -> Call:
    return Call(at, 0.001, took_s, list(statuses), digest, probability)


def test_requests_are_counted_by_what_became_of_them() -> None:
    calls = [
        call(0.0, 200),
        call(1.0, NO_ANSWER, 200, digest="b", probability=0.5),
        call(2.0, TOO_LATE, 503, took_s=4.0),
        call(3.0, 200, digest="b"),
        call(4.0, 200, digest="c"),
    ]
    result = counts(calls, EXPECTED)
    assert result == Counts(
        sent=5, answered=4, retried=2, failed=1, wrong=2, p99_ms=4000.0, late_s=0.001, refused=1, too_late=1
    )
    assert str(result).endswith("p99 4000 ms; of the attempts 1 refused, 1 too late")
    with pytest.raises(ValueError, match="no request"):
        counts([], EXPECTED)


def test_late_windows_are_those_whose_slowest_hundredth_is_late() -> None:
    calls = [call(at / 10, 200, took_s=0.3 if 50 <= at < 100 else 0.05) for at in range(200)]
    assert seconds_above(calls, 100.0) == 5.0
    assert seconds_above(calls, 400.0) == 0.0


@pytest.mark.parametrize(("now_ms", "rate"), [(30.0, 40.0), (20.0, 60.0), (10.0, 60.0)])
def test_the_ordinary_load_is_less_on_a_slower_machine_and_never_more(
    now_ms: float, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was twice what a replica answers, after a fixed piece of work had met the machine's best moment."""
    sent: list[float] = []
    world = SimpleNamespace(address="http://service:3000", ordinary=60.0, work_ms=20.0, bases=[])
    world.load = SimpleNamespace(set=lambda address, rate: sent.append(rate))
    monkeypatch.setattr(r7_phases, "work_ms", lambda: now_ms)
    r7_phases.calm(cast(Any, world))
    assert world.bases == sent == [rate]
    assert any(
        f"{rate:.0f} to {rate:.0f} requests per second" in line for line in sentences(Figures(bases=world.bases))
    )


def test_the_page_says_what_could_not_run() -> None:
    figures = Figures(failures={"node drain": "TimeoutError: waited"})
    assert "Could not run: node drain: TimeoutError: waited" in sentences(figures)
    drain = next(line for line in measures(figures) if line.measure.startswith("node drain"))
    assert drain.is_met is False


def test_missed_targets_are_printed_as_missed() -> None:
    good, bad = Counts(10, 10, 1, 0, 0, 20.0, 0.0), Counts(10, 8, 3, 2, 0, 4000.0, 0.0)
    figures = Figures(
        spike=Spike(70.0, 119.0, 4, 3, 25.0, bad, good),
        idle=Idle(400.0, 420.0, good),
        rounds={"rolling update": [good, bad]},
        lost=Lost(0.5, 11.0, bad, good),
        lost_behind={"Cluster": Lost(0.5, 11.0, bad, good), "Local": Lost(0.5, 11.0, good, good)},
        starts=[Start("1", 0.1, 1.0, 2.0, 3.0, 12.0, 11.0)],
    )
    met = {line.measure: line.is_met for line in measures(figures)}
    assert met["spike: s until more replicas are wanted"] is False
    assert met["spike: s until as many as it needs are ready"] is True
    assert met["rolling update, 2 rounds: requests that failed although retried"] is False
    assert met[f"{BEHIND['Local']}: requests that failed although retried, until then"] is True
    assert met[f"{BEHIND['Cluster']}: requests that failed although retried, until then"] is None
    assert met["from zero, CPU 1: s until the first answer, median of 1"] is False
    share, behind = (line for line in measures(figures) if "squared" in line.measure and line.limit)
    assert (share.ours, share.limit) == (behind.ours, behind.limit) == (0.2, 0.25)


@pytest.mark.parametrize(
    ("head", "statuses", "waited"),
    [
        ("503 Service Unavailable\r\nRetry-After: 1", [503, 503], (1.05, 1.25)),
        ("503 Service Unavailable\r\nretry-after: 5", [503], None),
        ("502 Bad Gateway", [502, 502], (0.05, 0.25)),
        ("422 Unprocessable Entity", [422], None),
    ],
)
def test_callers_repeat_a_request_as_the_documented_client_does(
    monkeypatch: pytest.MonkeyPatch, head: str, statuses: list[int], waited: tuple[float, float] | None
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()

    async def ask(records: io.StringIO) -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            monkeypatch.setattr(r7_load.asyncio, "sleep", pause)
            await r7_load.ask({"host": host, "port": port}, 1, time.time(), records)

    asyncio.run(ask(records := io.StringIO()))
    assert Call(*json.loads(records.getvalue())).statuses == statuses
    assert len(pauses) == (waited is not None)
    assert waited is None or waited[0] <= pauses[0] <= waited[1]
