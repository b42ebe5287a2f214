"""Peers of the service: the same model by other means, under uvicorn: `python serving_peers.py NAME FOLDER PORT`.

The bare ones decode by our contract; FastAPI and the default Bento by pydantic's types of the same contract.
"""

import asyncio
import gc
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pydantic
from pydantic import AwareDatetime, ConfigDict, Field

from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.model import Model
from platform_assets.serving.answer.requests import TEXT_MAX, Refused
from platform_assets.store.artifacts import ArtifactStore

Application = Callable[[Any, Any, Any], Awaitable[None]]
_ENCODER = msgspec.json.Encoder()


class Answer(msgspec.Struct, gc=False):
    """The same answer as ours."""

    prediction_id: str
    digest: str
    entity: str
    probability: float
    is_positive: bool


def load(folder: Path) -> Model:
    """Return the contest's model."""
    digest = (folder / "digest").read_text(encoding="utf-8")
    model = Model.load(ArtifactStore(str(folder / "store")), digest)
    model.warm()
    return model


def row_type(contract: Contract) -> type[pydantic.BaseModel]:
    """Return pydantic's type of a row: the same fields and bounds as the contract's own."""
    strict, text = ConfigDict(extra="forbid"), Annotated[str, Field(strict=True, min_length=1, max_length=TEXT_MAX)]
    fields: dict[str, Any] = {}
    for item in (*contract.numeric, *contract.categorical):
        if item.dtype == "bool":
            kind: Any = Annotated[bool, Field(strict=True)]
        elif item.dtype == "category":
            kind = text
        else:
            (low, high), number = item.bounds, int if item.dtype == "int" else float
            kind = Annotated[number, Field(strict=True, ge=low, le=high, allow_inf_nan=False)]
            if number is int:
                kind = Annotated[int, Field(strict=True, ge=low, le=high)]
        fields[item.name] = (kind | None if item.is_nullable else kind, ...)
    features = pydantic.create_model("Features", __config__=strict, **fields)
    moments = [Annotated[AwareDatetime, Field(ge=begins, lt=ends)] for begins, ends in contract.moments]
    return pydantic.create_model(
        "Row",
        __config__=strict,
        entity=(text, ...),
        service_time=(moments[0], ...),
        asked_at=(moments[1], ...),
        features=(features, ...),
        idempotency_key=(text | None, None),
    )


def score(model: Model, rows: list[Any]) -> list[float]:
    """Run the graph on rows whose features are in the order of the contract's."""
    width = len(model.contract.numeric)
    numeric = np.array([row[:width] for row in rows], dtype=np.float32)
    texts = [["" if text is None else text for text in row[width:]] for row in rows]
    probabilities: list[float] = model.predict(numeric, np.array(texts, dtype=object)).tolist()
    return probabilities


def hello(_: Model) -> Application:
    """Answer every request with the same bytes."""
    head = [(b"content-type", b"application/json"), (b"content-length", b"2")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body", False):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": b"{}"})

    return app


def bare(model: Model) -> Application:
    """Decode, run the graph, answer: one call of ONNX Runtime per request."""

    async def answer(body: bytes) -> bytes:
        request = model.decoding.decode(body)
        outputs = score(model, [msgspec.structs.astuple(row.features) for row in request.rows])
        return _encoded(model, request.rows, outputs, request.is_list)

    return _application(answer)


def bare_ticks(model: Model) -> Application:
    """Decode, run the graph, answer: one call of ONNX Runtime for all requests of a turn of the event loop."""
    waiting: list[tuple[list[Any], asyncio.Future[list[float]]]] = []

    def run() -> None:
        taken = waiting[:]
        waiting.clear()
        outputs = score(model, [row for rows, _ in taken for row in rows])
        start = 0
        for rows, future in taken:
            future.set_result(outputs[start : start + len(rows)])
            start += len(rows)

    async def answer(body: bytes) -> bytes:
        request = model.decoding.decode(body)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[float]] = loop.create_future()
        if not waiting:
            loop.call_soon(run)
        waiting.append(([msgspec.structs.astuple(row.features) for row in request.rows], future))
        return _encoded(model, request.rows, await future, request.is_list)

    return _application(answer)


def fastapi(model: Model, log: Path | None = None) -> Application:
    """Serve by FastAPI, with a log line before each answer and metrics if there is a log."""
    import fastapi as library
    from prometheus_client import Counter, Histogram

    row, app, digest, threshold = (
        row_type(model.contract),
        library.FastAPI(),
        model.digest,
        model.contract.task.threshold,
    )
    answered, latency = Counter("answered", "Rows answered.", ["status"]), Histogram("seconds", "Of a request.")
    descriptor = None if log is None else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def answers(rows: list[Any]) -> list[dict[str, Any]]:
        began_s = time.perf_counter()
        outputs = score(model, [list(item.features.__dict__.values()) for item in rows])
        result = [
            {
                "prediction_id": uuid.uuid4().hex,
                "digest": digest,
                "entity": item.entity,
                "probability": output,
                "is_positive": output >= threshold,
            }
            for item, output in zip(rows, outputs, strict=True)
        ]
        if descriptor is not None:
            lines = [
                _ENCODER.encode({**item.model_dump(), **given, "at": time.time()}) + b"\n"
                for item, given in zip(rows, result, strict=True)
            ]
            os.write(descriptor, b"".join(lines))
            answered.labels("200").inc(len(rows))
            latency.observe(time.perf_counter() - began_s)
        return result

    async def predict(body: Any) -> Any:
        return library.Response(_ENCODER.encode(answers([body])[0]), media_type="application/json")

    async def predict_rows(body: Any) -> Any:
        return library.Response(_ENCODER.encode(answers(body)), media_type="application/json")

    predict.__annotations__["body"] = row
    predict_rows.__annotations__["body"] = Annotated[list[row], Field(min_length=1, max_length=model.contract.max_rows)]  # type: ignore[valid-type]  # made at run time
    app.post("/predict")(predict)
    app.post("/predict_rows")(predict_rows)
    result: Application = app
    return result


def _application(answer: Callable[[bytes], Awaitable[bytes]]) -> Application:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        try:
            status, content = 200, await answer(body)
        except Refused as refused:
            status, content = refused.status, refused.body
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": content})

    return app


def _encoded(model: Model, rows: list[Any], outputs: list[float], is_list: bool) -> bytes:
    threshold, digest = model.contract.task.threshold, model.digest  # type: ignore[attr-defined]  # flights are binary
    answers = [
        Answer(uuid.uuid4().hex, digest, row.entity, output, output >= threshold)
        for row, output in zip(rows, outputs, strict=True)
    ]
    return _ENCODER.encode(answers if is_list else answers[0])


PEERS: dict[str, Callable[[Model, Path], Application]] = {
    "hello world": lambda model, _: hello(model),
    "bare ASGI": lambda model, _: bare(model),
    "bare ASGI per tick": lambda model, _: bare_ticks(model),
    "FastAPI": lambda model, _: fastapi(model),
    "FastAPI with log": lambda model, folder: fastapi(model, folder / "fastapi.jsonl"),
}


def main(name: str, folder: Path, port: int) -> None:
    """Serve a peer until the process is ended."""
    import uvicorn

    app = PEERS[name](load(folder), folder)
    gc.collect()
    gc.freeze()
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
