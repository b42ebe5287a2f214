"""The store is away for ten minutes: every answer waits in the pod, and no volume overflows.

Callers ask a service at a steady rate. They stop while it is not ready, as a Kubernetes Service makes them, and go on
afterwards. The volume is so small that it would overflow. `AWAY_S` is set before the run.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platform_assets.serving.run import child as serving
from proof.benchmarks.harness import Measure
from proof.doubles import shipping_service
from proof.doubles.asking import Callers
from tests.doubles import models, received, s3_server
from tests.doubles.faulty_s3 import in_front_of

AWAY_S, CALM_S, WAIT_S = 600.0, 20.0, 120.0
ROOM_BYTES = 40_000_000
BUCKET = "driftline-away"
shown: list[str] = []


@dataclass
class Watch:
    """What is seen of a service twice a second, as a probe sees it.

    Attributes:
        is_ready: whether callers are sent to it.
        problem: what `/readyz` said when it was not ready.
        peak_bytes: most that the folder held.
        peak_s: highest age of an answer that the store has not received.
        unready_s: when it was first not ready, by the monotonic clock.
    """

    server: serving.Server
    folder: Path
    callers: Callers
    is_ready: bool = True
    problem: str = ""
    peak_bytes: int = 0
    peak_s: float = 0.0
    unready_s: float | None = None

    def __post_init__(self) -> None:
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def unshipped(self) -> tuple[float, float]:
        """Return the bytes that wait, and for how long the oldest of them has."""
        text = self.server.probe("/metrics")[1].decode()
        waiting = shipping_service.figure(text, "driftline_log_unshipped_bytes")
        return sum(waiting), max(shipping_service.figure(text, "driftline_log_unshipped_seconds"))

    def _run(self) -> None:
        while not self.is_over.wait(0.5):
            status, body = self.server.probe("/readyz")
            self.is_ready = status == 200
            if status == 200:
                self.callers.is_paused.clear()
            else:
                self.callers.is_paused.set()
                self.problem = json.loads(body)["problem"]
                self.unready_s = self.unready_s or time.monotonic()
            total = 0
            for path in self.folder.rglob("*"):
                try:
                    total += 512 * path.lstat().st_blocks
                except FileNotFoundError:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)
            self.peak_s = max(self.peak_s, self.unshipped()[1])


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        bento = shipping_service.built(base).path
        (base / "s3").mkdir()
        with s3_server.running(base / "s3") as server, in_front_of(server.endpoint) as faults:
            server.make_bucket(BUCKET)
            os.environ.update(server.environment())
            serve = shipping_service.serve(base, bento, BUCKET, server, faults.endpoint, serving_room_bytes=ROOM_BYTES)
            with serve as (settings, running):
                port = int(running.url.rsplit(":", 1)[1])
                with Callers(port, callers=2, rows=16, pause_s=0.1) as callers:
                    watch = Watch(running, settings.state, callers)
                    time.sleep(CALM_S)
                    calm_s, before = watch.peak_s, len(callers.acknowledged)
                    faults.is_away, began_s = True, time.monotonic()
                    time.sleep(AWAY_S)
                    gathered, faults.is_away, back_s = watch.unshipped()[0], False, time.monotonic()
                    shipped_s = _seconds_until(lambda: watch.unshipped()[1] < 2 * settings.serving_ship_s)
                    ready_s = _seconds_until(lambda: watch.is_ready)
                    time.sleep(5.0)
                watch.is_over.set()
                watch.thread.join()
            arrived = received.ids(settings.root, models.PRODUCT)
    assert watch.unready_s is not None, "the volume is too large for this rate"
    shown.append(f"not ready: {watch.problem.replace(str(settings.state), 'STATE')}")
    shown.append(
        f"not ready {watch.unready_s - began_s:.0f} s after the store went away; {back_s - began_s:.0f} s away"
    )
    return [
        Measure("answers that callers got", len(callers.acknowledged)),
        Measure("of them not in the store at the end", len(callers.acknowledged - set(arrived)), target="<= 0"),
        Measure("answers in the store that no caller got", len(set(arrived) - callers.acknowledged), target="<= 0"),
        Measure("answers that waited, MB", gathered / 1e6),
        Measure("answers given after the store went away", len(callers.acknowledged) - before),
        Measure("most that the volume held, share of its limit", watch.peak_bytes / ROOM_BYTES, target="<= 0.9"),
        Measure("oldest answer not in the store, s, before", calm_s, target="<= 15"),
        Measure("oldest answer not in the store, s, at most", watch.peak_s, target=f">= {AWAY_S - 5}"),
        Measure("s until all answers were in the store again", shipped_s, target="<= 60"),
        Measure("s until ready after that", ready_s, target="<= 10"),
    ]


def _seconds_until(is_done: Callable[[], bool]) -> float:
    began_s = time.monotonic()
    while not is_done():
        assert time.monotonic() < began_s + WAIT_S, "not within two minutes"
        time.sleep(0.2)
    return time.monotonic() - began_s
