"""Where a request's time goes: CPU-us per request by stage.

The worker's own middleware answers under uvicorn with the service's protocol, as in a Bento; timers around the stages
add up CPU time of the event loop's thread and cost about a microsecond per stage. `python serving_timed.py serve FOLDER
PORT` is the server; a GET of `/times` returns the sums and sets them to zero.
"""

import gc
import importlib
import inspect
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SERVING = "platform_assets.serving"
STAGES: dict[str, tuple[str, ...]] = {
    "decoding and validating": ("answer.decoding:Decoding.steps", "answer.decoding:Decoding._row_of"),
    "ONNX Runtime": ("answer.model:Model.predict",),
    "arrays for it": ("answer.batching:run_graph",),
    "answers and records": ("answer.batching:build_row",),
    "log": ("log.prediction_log:PredictionLog.append",),
    "metrics": ("run.metrics:Metrics.begin", "run.metrics:Metrics.end", "run.metrics:Metrics.count_rows"),
    "callers and ids": ("answer.callers:Callers.name_of", "answer.request_ids:RequestIds.identify"),
}
"""By stage, functions where they are called."""
REQUESTS, ROUNDS = {1: 200, 16: 640}, 5
JSON, TOTAL, OTHER = "records as JSON", "whole process", "HTTP, event loop and the rest"
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


def timed_steps(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a generator function each of whose steps adds its own CPU time to a stage."""

    def measured(*arguments: Any) -> Any:
        send, value = timed(stage, function(*arguments).send), None
        while True:
            try:
                item = send(value)
            except StopIteration as end:
                return end.value
            value = yield item

    return measured


def serve(folder: Path, port: int) -> None:
    """Serve the middleware with timers until the process is ended."""
    import uvicorn

    from platform_assets.serving.run import protocol
    from proof.benchmarks import serving_contest as contest

    for stage, names in STAGES.items():
        for name in names:
            module_name, _, path = name.partition(":")
            owner: Any = importlib.import_module(f"{SERVING}.{module_name}")
            *parents, attribute = path.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            function = getattr(owner, attribute)
            timer = timed_steps if inspect.isgeneratorfunction(function) else timed
            setattr(owner, attribute, timer(stage, function))
    # A method of C has no place of its own for a timer: the predictor gets another encoder.
    predict = importlib.import_module(f"{SERVING}.answer.predict")
    initialise = predict.Predictor.__init__

    def with_encoder(self: Any, *arguments: Any, **options: Any) -> None:
        initialise(self, *arguments, **options)
        encoder = self._encoder
        self._encoder = SimpleNamespace(encode=encoder.encode, encode_lines=timed(JSON, encoder.encode_lines))

    predict.Predictor.__init__ = with_encoder
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


def measured(prepared: Any, running: Any, connections: int) -> dict[str, float]:
    """Return CPU-us per request by stage, medians of the rounds."""
    from proof.benchmarks import serving_contest as contest

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
    serve(Path(sys.argv[2]), int(sys.argv[3]))
