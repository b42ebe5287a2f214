"""Overload: whenever callers wait, a gauge says so.

A service whose model takes some milliseconds per row, and which refuses none, gets more requests than it can answer, at
a fixed rate whatever it answers (open loop), by single rows, by lists, and by both. Second by second the median wait of
the callers is compared with the gauges at the end of that second. Seconds in which the sending process itself was late
were left out and counted. The limits of the gauges are those of `serving.run.metrics`, set before
the run. Then three times the possible load, with and without a limit and the shipped proxy (`r8_goodput`).
"""

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from platform_assets.base.settings import Settings
from platform_assets.serving.run import build
from platform_assets.serving.run import child as serving
from platform_assets.serving.run.event_loop import WINDOW_S
from platform_assets.serving.run.metrics import IN_FLIGHT_ALERT, LAG_ALERT_S
from platform_assets.store.artifacts import ArtifactStore
from proof.benchmarks.harness import Measure
from proof.chaos import r8_goodput
from proof.chaos.busy_graph import busy
from proof.doubles.shipping_service import figure
from tests.doubles import models, pods

DEPTH = 8
"""Matrices that the model multiplies only to take some milliseconds."""
PHASE_S, QUIET_S, GIVE_UP_S, TOO_LONG_S = 12, WINDOW_S + 5, 4.0, 0.5
WARM_S, OVERLOAD = 3.0, 2.0
OWN_LAG_S = 0.1
ROWS = 16
shown: list[str] = []


def run() -> list[Measure]:
    measures = []
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder)) as (settings, bento, server):
        port = int(server.url.rsplit(":", 1)[1])
        published = _Published(server)
        single, several = json.dumps(models.row()).encode(), json.dumps([models.row()] * ROWS).encode()
        for name, bodies in (("single rows", [single]), ("lists", [several]), ("both", [single, several])):
            seconds = asyncio.run(_phase(port, bodies, published))
            for path, (median_s, lag_s, in_flight, is_late) in enumerate(seconds):
                shown.append(
                    f"{name}, second {path}: p50 {median_s:.2f} s, lag {lag_s:.2f} s, in flight {in_flight:.0f}"
                    f"{', sender late' if is_late else ''}"
                )
                print(shown[-1], flush=True)
            counted = [second for second in seconds if not second[3]]
            slow = [second for second in counted if second[0] > TOO_LONG_S]
            missed = [second for second in slow if second[1] <= LAG_ALERT_S and second[2] <= IN_FLIGHT_ALERT]
            measures += [
                Measure(f"{name}: seconds with p50 above 500 ms", len(slow), target=">= 5"),
                Measure(f"{name}: of them without an alert", len(missed), target="<= 0"),
                Measure(f"{name}: seconds left out", len(seconds) - len(counted)),
            ]
            time.sleep(QUIET_S)
        measures += r8_goodput.measures(settings, bento, single, server, shown)
    return measures


class _Published:
    def __init__(self, server: serving.Server) -> None:
        self._server = server

    def read(self) -> tuple[float, float]:
        text = self._server.probe("/metrics")[1].decode()
        names = "driftline_event_loop_lag_seconds", "driftline_in_flight_requests"
        lag_s, in_flight = (figure(text, name)[0] for name in names)
        return lag_s, in_flight


@contextlib.contextmanager
def _service(folder: Path) -> Iterator[tuple[Settings, Path, serving.Server]]:
    settings = Settings.from_environment({"DRIFTLINE_STATE": str(folder)}).replace(
        serving_in_flight=r8_goodput.UNLIMITED, serving_wait_s=r8_goodput.UNLIMITED
    )
    store = ArtifactStore(str(folder / "workshop"))
    document = models.contract(max_rows=256)
    digest = models.write_bundle(store, document=document, graph=busy(models.logistic(document, 0.0), DEPTH))
    built = build.build(settings, store, digest)
    with pods.serving(settings, built.path) as server:
        yield settings, built.path, server


async def _ask(port: int, body: bytes) -> float:
    """Send one request on a new connection; return the seconds until the answer, `GIVE_UP_S` if there is none."""
    sent = await r8_goodput.ask(port, body, GIVE_UP_S)
    return sent.took_s if sent.status else GIVE_UP_S


async def _capacity(port: int, bodies: list[bytes]) -> float:
    """Return how many requests per second the service answers to four callers who wait for each answer."""
    while await _ask(port, bodies[0]) > TOO_LONG_S:
        await asyncio.sleep(1.0)  # requests left waiting by the previous phase are answered first
    done, ends_s = 0, time.monotonic() + WARM_S

    async def call(number: int) -> None:
        nonlocal done
        while time.monotonic() < ends_s:
            await _ask(port, bodies[number % len(bodies)])
            done += 1

    await asyncio.gather(*(call(place) for place in range(4)))
    return done / WARM_S


async def _phase(port: int, bodies: list[bytes], published: _Published) -> list[tuple[float, float, float, bool]]:
    """Send at a fixed rate; return the median wait, lag, requests in flight per second, and whether we were late."""
    rate = OVERLOAD * await _capacity(port, bodies)
    print(f"{rate:.0f} requests per second", flush=True)
    await asyncio.sleep(QUIET_S)
    waits: dict[int, list[float]] = defaultdict(list)
    gauges: list[tuple[float, float]] = []
    late: set[int] = set()
    begun_s, tasks = time.monotonic(), set()

    async def one(second: int, body: bytes) -> None:
        waits[second].append(await _ask(port, body))

    for count in range(int(rate * PHASE_S)):
        due_s = begun_s + count / rate
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        second = int(due_s - begun_s)
        if time.monotonic() - due_s > OWN_LAG_S:
            late.add(second)
        if second > len(gauges):
            gauges.append(await asyncio.to_thread(published.read))
        task = asyncio.create_task(one(second, bodies[count % len(bodies)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    gauges.append(await asyncio.to_thread(published.read))
    await asyncio.gather(*tasks)
    return [(statistics.median(waits[s]), *gauges[s], s in late) for s in range(min(len(gauges), PHASE_S))]
