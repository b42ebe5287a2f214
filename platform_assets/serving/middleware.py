"""Answer HTTP before Bento's own stack does: ASGI in, ASGI out.

Paths, methods, and the worker's background jobs. `bodies` reads bodies within limits, `predict` builds answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from time import perf_counter

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from platform_assets.serving import bodies, files, shipping
from platform_assets.serving.background import Deadline, Overdue, Repeated
from platform_assets.serving.bodies import Message, Receive, Scope, Send
from platform_assets.serving.callers import Callers, TurnedAway
from platform_assets.serving.contract import Contract
from platform_assets.serving.follow import Follower
from platform_assets.serving.metrics import Metrics
from platform_assets.serving.openapi import openapi
from platform_assets.serving.predict import Predictor
from platform_assets.serving.prediction_log import LogProblem
from platform_assets.serving.request_ids import RequestIds
from platform_assets.serving.requests import Refused
from platform_assets.serving.shipping import Shipper
from platform_assets.serving.turns import take_turns
from platform_assets.serving.vitals import Vitals

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

STARTUP_S = 5.0
"""How long a start waits for the store before it serves the local copy or the fallback."""
CLOSE_S = 5.0
"""How long a shutdown waits for the disk of the prediction log."""
PREDICT = "/predict"
_JSON = b"application/json"


@dataclass(frozen=True)
class Runtime:
    """A worker's parts.

    Attributes:
        needs_store: whether it is not ready before the store has named the live model.
        shipper: sends the log to the store; None where the platform reads the log's folder.
        callers: who may ask, and how much.
    """

    contract: Contract
    follower: Follower
    predictor: Predictor
    metrics: Metrics
    poll_s: float
    needs_store: bool = False
    shipper: Shipper | None = None
    callers: Callers = field(default_factory=Callers)


class PredictionMiddleware:
    """The service's paths: `/predict`, `/healthz`, `/readyz`, `/metrics`, `/openapi.json`; any other is 404.

    `/` and `/docs.json` return the OpenAPI document too. None of Bento's own pages is reachable: they do not describe
    `/predict`, and load a third party's tracker.
    """

    def __init__(self, app: Application, make: Callable[[], Runtime]) -> None:
        """Build the worker's runtime; no model is loaded before `start`.

        Args:
            app: Bento's own application, for its lifespan.
            make: builds the runtime, in the worker only.
        """
        self._app = app
        self.runtime = make()
        self._following = Repeated("follow releases", self._look, self.runtime.poll_s)
        self._syncing = Repeated("sync the log", self._check_disk, self.runtime.poll_s)
        self._jobs = [self._following, self._syncing]
        if self.runtime.shipper is not None:
            self._jobs.append(Repeated("ship the log", self.runtime.shipper.look, shipping.LOOK_S))
        self._watching: asyncio.Task[None] | None = None
        self._lists = asyncio.Lock()
        self._ids = RequestIds()
        self._vitals: Vitals | None = None
        self._pages: dict[str, Callable[[], tuple[int, bytes, bytes]]] = {
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/metrics": self._metrics,
            "/openapi.json": lambda: (200, self._openapi, _JSON),
            "/docs.json": lambda: (200, self._openapi, _JSON),
            "/": lambda: (200, self._openapi, _JSON),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._measured(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _measured(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request and count it, with the time from its head to the last byte of its answer."""
        started_s, path, metrics = perf_counter(), scope["path"], self.runtime.metrics
        status: int | None = None

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics.begin(path)
        try:
            if path == PREDICT:
                await self._predict(scope, receive, observed)
            elif path in self._pages:
                await self._page(scope, self._pages[path], observed)
            else:
                await _refuse(observed, Refused(404, f"there is nothing at this path; the paths are {self._paths}."))
        except BaseException:
            status = status or 500  # what the server answers instead of us
            raise
        finally:
            metrics.end(path, status, perf_counter() - started_s)

    @cached_property
    def _paths(self) -> str:
        return ", ".join((PREDICT, *sorted(self._pages)))

    async def start(self) -> None:
        """Load and warm up a model, then follow releases in the background."""
        await asyncio.to_thread(self.runtime.follower.fall_back)
        for job in self._jobs:
            job.start()
        await asyncio.to_thread(self._following.was_done.wait, STARTUP_S)
        self._note()
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        loop = asyncio.get_running_loop()
        self._watching = loop.create_task(self._watch(os.getppid()), name="watch the parent")
        self._vitals = Vitals(loop, self.runtime.metrics.note_lag)
        self._vitals.start()

    async def stop(self) -> None:
        """Stop following and close the log, which already contains every answer given."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._vitals is not None:
            self._vitals.stop()
        for job in self._jobs:
            job.stop()
        with contextlib.suppress(LogProblem, Overdue):  # every answer given reached the kernel before it was sent
            await asyncio.to_thread(Deadline(CLOSE_S).run, "closing the log", self.runtime.predictor.log.close)
        if self.runtime.shipper is not None:
            await asyncio.to_thread(self.runtime.shipper.close)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def observed(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.start()
            elif message["type"].startswith("lifespan.shutdown"):
                await self.stop()
            await send(message)

        await self._app(scope, receive, observed)

    async def _watch(self, parent: int) -> None:
        while os.getppid() == parent:
            await asyncio.sleep(self.runtime.poll_s)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    def _look(self) -> None:
        self.runtime.follower.look()
        self._note()

    def _check_disk(self) -> None:
        self.runtime.predictor.log.check()
        self.runtime.callers.check()
        if self.runtime.shipper is not None:
            self.runtime.shipper.room.check()

    def _note(self) -> None:
        self.runtime.metrics.note(self.runtime.follower, self.runtime.predictor.log.problem)
        if self.runtime.shipper is not None:
            self.runtime.metrics.note_shipping(self.runtime.shipper.figures, self.runtime.shipper.problem)

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime, fields = self.runtime, dict(scope["headers"])
        request_id, traceparent = self._ids.of(fields)
        ids = (b"x-request-id", request_id), (b"traceparent", traceparent)
        if scope["method"] != "POST":
            refused = Refused(405, f"the method is {scope['method']}; expected POST.")
            await _refuse(send, refused, (b"allow", b"POST"), *ids)
            return
        caller = None
        try:
            caller = runtime.callers.admit(fields, (scope.get("client") or (None,))[0])
            is_file, query = files.is_file(scope["headers"]), scope.get("query_string", b"")
            if not is_file:
                files.check_query(runtime.contract, query)
            body = await bodies.read(fields, receive, runtime.contract.max_body_bytes)
        except Refused as refused:
            over = refused.caller if isinstance(refused, TurnedAway) else caller
            runtime.metrics.count_caller(over, refused.status, 0)
            await self._turn_away(fields, receive, send, refused, ids)
            return
        if body is None:
            return
        origin = None if caller is None else caller.name, request_id.decode(), traceparent.decode()
        steps = runtime.predictor.steps(runtime.follower.live, body, perf_counter(), query if is_file else None, origin)
        status, answer, rows = await take_turns(steps, self._lists, runtime.predictor.tick)
        runtime.metrics.count_rows(rows)
        if caller is not None:
            caller.used(rows)
            runtime.metrics.count_caller(caller, status, rows)
        await _respond(send, status, answer, *ids)

    async def _turn_away(
        self, fields: Mapping[bytes, bytes], receive: Receive, send: Send, refused: Refused, ids: Iterable[Header]
    ) -> None:
        """Refuse a request whose body was not read, and discard the body.

        The connection stays usable after one that its caller may repeat, unless the body is too long to wait for.
        """
        is_kept = isinstance(refused, TurnedAway) and bodies.is_short(fields, self.runtime.contract.max_body_bytes)
        headers = [*ids] if is_kept else [*ids, (b"connection", b"close")]
        if isinstance(refused, TurnedAway):
            headers.append(refused.header)
        await _respond(send, refused.status, refused.body, *headers, is_last=False)
        await bodies.drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _page(self, scope: Scope, page: Callable[[], tuple[int, bytes, bytes]], send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            refused = Refused(405, f"the method is {scope['method']}; expected GET.")
            await _refuse(send, refused, (b"allow", b"GET, HEAD"))
            return
        status, body, content_type = page()
        await _respond(send, status, body, content_type=content_type)

    def _health(self) -> tuple[int, bytes, bytes]:
        """Alive, unless a bug ended a background job: then a restart is right."""
        ended = [job.name for job in self._jobs if job.has_ended]
        if self._watching is not None and self._watching.done():
            ended.append(self._watching.get_name())
        if ended:
            problem = f"ended by a bug: {', '.join(ended)}; see the log, and restart the worker."
            return 503, msgspec.json.encode({"is_alive": False, "problem": problem}), _JSON
        return 200, msgspec.json.encode({"is_alive": True}), _JSON

    def _readiness(self) -> tuple[int, bytes, bytes]:
        follower, shipper, log_problem = self.runtime.follower, self.runtime.shipper, self.runtime.predictor.log.problem
        room_problem, shipping_problem = (None, None) if shipper is None else (shipper.room.problem, shipper.problem)
        live, confirmed_at = follower.live, follower.confirmed_at
        named = (log_problem, room_problem, follower.problem, shipping_problem, self.runtime.callers.problem)
        problems = [text for text in named if text is not None]
        is_named = live is not None and (live.source in ("release", "pinned") or not self.runtime.needs_store)
        if live is not None and not is_named:
            problems.append(f"the store has not named the live model, which is required: its source is {live.source}.")
        is_ready = is_named and log_problem is None and room_problem is None
        is_kept = live is not None and live.source == "kept" and confirmed_at is not None
        state = {
            "is_ready": is_ready,
            "product": self.runtime.contract.product,
            "digest": None if live is None else live.model.digest,
            "release": None if live is None else live.release,
            "source": None if live is None else live.source,
            "contract_sha256": self.runtime.contract.sha256,
            "latest_release": follower.latest,
            "highest_release": follower.highest,
            "kept_at_utc": confirmed_at if is_kept else None,
            "kept_age_s": round((datetime.now(UTC) - confirmed_at).total_seconds(), 1)
            if is_kept and confirmed_at
            else None,
            "problem": " ".join(problems) or None,
            "worker": os.getpid(),
        }
        return (200 if is_ready else 503), msgspec.json.encode(state), _JSON

    def _metrics(self) -> tuple[int, bytes, bytes]:
        self._note()
        return 200, self.runtime.metrics.text(), CONTENT_TYPE_LATEST.encode()

    @cached_property
    def _openapi(self) -> bytes:
        return msgspec.json.encode(openapi(self.runtime.contract))


async def _refuse(send: Send, refused: Refused, *headers: Header) -> None:
    await _respond(send, refused.status, refused.body, *headers)


async def _respond(
    send: Send,
    status: int,
    body: bytes,
    *headers: Header,
    content_type: bytes = _JSON,
    is_last: bool = True,
) -> None:
    length = str(len(body)).encode()
    fixed = [(b"content-type", content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fixed})
    await send({"type": "http.response.body", "body": body, "more_body": not is_last})
