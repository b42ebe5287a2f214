"""Where a request's time goes: `python -m tests.benchmarks.serving_timed` prints CPU-us per request by stage.

The worker's own middleware answers under uvicorn with the service's protocol, as in a Bento; timers around the stages
add up CPU time of the event loop's thread and cost about a microsecond per stage. `python serving_timed.py serve FOLDER
PORT` is the server; a GET of `/times` returns the sums and sets them to zero.
"""

from __future__ import annotations

import gc
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVING = "platform_assets.serving"
STAGES: dict[str, tuple[str, ...]] = {
    "decoding and validating": ("decoding:Decoding.row_of", "decoding:Decoding._decoded"),
    "ONNX Runtime": ("model:Model.predict",),
    "arrays for it": ("work:run_graph", "predict:_run_graph"),
    "answers and records": ("work:build_row", "predict:_build"),
    "log": ("prediction_log:PredictionLog.append",),
    "records as JSON": ("work:line_of", "predict:lines_of"),
    "metrics": ("metrics:Metrics.begin", "metrics:Metrics.end", "metrics:Metrics.count_rows"),
    "callers and ids": ("callers:Callers.name_of", "request_ids:RequestIds.of"),
}
"""By stage, functions of modules; those that a version does not have are skipped."""
CONNECTIONS, REQUESTS, ROUNDS = (1, 16), {1: 200, 16: 640}, 5
TOTAL, OTHER = "whole process", "HTTP, event loop and the rest"
_sums: Counter[str] = Counter()
_inner: list[float] = []


def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that adds its own CPU time to a stage, without that of other stages it calls."""

    def measured(*arguments: Any, **options: Any) -> Any:
        _inner.append(0.0)
        begin_s = time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            took_s = time.thread_time() - begin_s
            _sums[stage] += took_s - _inner.pop()
            if _inner:
                _inner[-1] += took_s

    return measured


def instrument() -> None:
    """Put timers around the stages."""
    for stage, names in STAGES.items():
        for name in names:
            module_name, _, path = name.partition(":")
            try:
                owner: Any = importlib.import_module(f"{SERVING}.{module_name}")
            except ModuleNotFoundError:
                continue
            *parents, attribute = path.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            if hasattr(owner, attribute):
                setattr(owner, attribute, timed(stage, getattr(owner, attribute)))


def serve(folder: Path, port: int) -> None:
    """Serve the middleware with timers until the process is ended."""
    import uvicorn

    from platform_assets.serving.run import protocol
    from tests.benchmarks import serving_contest as contest

    instrument()
    app = contest.middleware_of(folder)

    async def with_times(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/times":
            await app(scope, receive, send)
            return
        body = json.dumps({**_sums, TOTAL: time.process_time()}).encode()
        _sums.clear()
        head = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    protocol.install()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    uvicorn.run(with_times, host="127.0.0.1", port=port, access_log=False, log_level="warning", lifespan="off")


def table(folder: Path) -> list[str]:
    """Return the lines of the table, in Markdown."""
    from tests.benchmarks import serving_contest as contest

    prepared = contest.prepare(folder)
    with contest.timed(prepared) as running:
        us = {connections: measured(prepared, running, connections) for connections in CONNECTIONS}
    head = " | ".join(f"{connections} connection{'s' * (connections > 1)}" for connections in CONNECTIONS)
    stages = sorted(us[CONNECTIONS[-1]], key=lambda stage: -us[CONNECTIONS[-1]][stage])
    lines = [f"| CPU-us per request | {head} |", "|---|" + "---|" * len(CONNECTIONS)]
    return lines + [
        f"| {stage} | " + " | ".join(f"{us[connections].get(stage, 0.0):.0f}" for connections in CONNECTIONS) + " |"
        for stage in stages
    ]


def measured(prepared: Any, running: Any, connections: int) -> dict[str, float]:
    """Return CPU-us per request by stage, medians of the rounds."""
    from tests.benchmarks import serving_contest as contest

    requests, count = running.requests(prepared.one_row()), REQUESTS[connections]
    contest.closed_loop(running.port, requests, connections, count)
    rounds = []
    for _ in range(ROUNDS):
        began_s = contest.times(running)[TOTAL]
        contest.closed_loop(running.port, requests, connections, count)
        sums = contest.times(running)
        total_s = sums.pop(TOTAL) - began_s
        us = {stage: sum_s / count * 1e6 for stage, sum_s in sums.items()}
        rounds.append({**us, OTHER: total_s / count * 1e6 - sum(us.values()), TOTAL: total_s / count * 1e6})
    return {stage: statistics.median(item.get(stage, 0.0) for item in rounds) for stage in rounds[0]}


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory() as name:
            print("\n".join(table(Path(name))))
