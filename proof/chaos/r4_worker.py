"""What a harmful graph does to the worker that follows its release: memory and lag of the event loop.

A process with an event loop, as a worker has, runs a heartbeat of one millisecond while its follower looks, in a
thread, at a release with a harmful graph; the same while nothing is released.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proof.benchmarks.harness import Measure

GRAPHS = ("endless", "endless_to_load", "takes_4_gb", "deep_tree")
NAMES = {
    "endless": "a graph without end",
    "endless_to_load": "a graph that is never loaded",
    "takes_4_gb": "a constant of 4 GB",
    "deep_tree": "SIGSEGV while loading",
}
LOAD_S, BEAT_S, ROUNDS = 5.0, 0.001, 3
GROWTH_MB, LAG_MS = 20, 20


def measures(shown: list[str]) -> list[Measure]:
    """Run workers, each with one harmful graph, and compare them with calm ones."""
    result = []
    for graph in GRAPHS:
        ours = [_worker(graph) for _ in range(ROUNDS)]
        growth = max(worker["growth_mb"] for worker in ours)
        result.append(
            Measure(
                f"{NAMES[graph]}: MB by which the worker's memory grows, worst of {ROUNDS}",
                growth,
                target=f"<= {GROWTH_MB} MB",
            )
        )
        lag, calm = (statistics.median(worker[name] for worker in ours) for name in ("lag_ms", "calm_lag_ms"))
        result.append(
            Measure(
                f"{NAMES[graph]}: p99 of the loop's lag, ms (limit: the same worker, calm)",
                lag,
                limit=calm,
                target=f"<= {LAG_MS} ms",
            )
        )
        worst = max(worker["worst_ms"] for worker in ours)
        shown.append(
            f"{NAMES[graph]}: {ours[0]['problem']} Worst lag {worst:.1f} ms, calm "
            f"{max(worker['calm_worst_ms'] for worker in ours):.1f} ms."
        )
        print(shown[-1], flush=True)
    return result


def _worker(graph: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "proof.chaos.r4_worker", graph, folder]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def _memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e6


async def _watched(job: Callable[[], object], seconds: float) -> list[float]:
    """Return the heartbeat's lags, in ms, while a job runs in a thread, and for a time at least."""
    thread = threading.Thread(target=job, daemon=True)
    lags, started = [], time.monotonic()
    thread.start()
    while thread.is_alive() or time.monotonic() - started < seconds:
        before = time.monotonic()
        await asyncio.sleep(BEAT_S)
        lags.append((time.monotonic() - before - BEAT_S) * 1e3)
    return lags


def _quantile(lags: list[float], share: float) -> float:
    return sorted(lags)[int(share * (len(lags) - 1))]


def main(graph: str, folder: Path) -> None:
    from platform_assets.serving.follow.candidate import Trial
    from tests.doubles import models
    from tests.serving.conftest import App

    app = App(folder)
    app.follower.fall_back()
    root = str(folder / "store")
    models.release(root, models.write_bundle(app.store, bias=1.0))
    assert app.follower.look(), app.follower.problem
    calm = asyncio.run(_watched(app.follower.look, LOAD_S))
    app.follower._trial = Trial(LOAD_S)
    app.follower._loading.seconds = LOAD_S
    models.release(root, models.write_bundle(app.store, graph=getattr(models, graph)(app.document)))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _memory_mb("VmRSS")
    lags = asyncio.run(_watched(app.follower.look, LOAD_S))
    result = {
        "growth_mb": _memory_mb("VmHWM") - before,
        "lag_ms": _quantile(lags, 0.99),
        "worst_ms": max(lags),
        "calm_lag_ms": _quantile(calm, 0.99),
        "calm_worst_ms": max(calm),
        "problem": app.follower.problem,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
