"""Answer HTTP before Bento's own stack does: ASGI in, ASGI out.

Paths, methods, and the worker's background jobs. `bodies` reads bodies within limits, `predict` builds answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property, partial
from time import perf_counter

import msgspec

from platform_assets.base import logs
from platform_assets.base.settings import log_format
from platform_assets.serving.answer import bodies, image_files
from platform_assets.serving.answer.bodies import Message, Receive, Scope, Send
from platform_assets.serving.answer.callers import Unknown
from platform_assets.serving.answer.live import Live
from platform_assets.serving.answer.openapi import openapi
from platform_assets.serving.answer.predict import Origin
from platform_assets.serving.answer.request_ids import RequestIds
from platform_assets.serving.answer.requests import Refused
from platform_assets.serving.answer.routes import ANSWER, API, PREDICT, SCHEMA
from platform_assets.serving.answer.slices_of_work import take_turns
from platform_assets.serving.follow.alive import Died
from platform_assets.serving.follow.background import Deadline, Overdue, Repeated
from platform_assets.serving.follow.follower import log
from platform_assets.serving.follow.model_cache import Shelf
from platform_assets.serving.log import shipping
from platform_assets.serving.log.prediction_log import LogProblem
from platform_assets.serving.run.health import Health
from platform_assets.serving.run.probes import READINESS, Page, Pages
from platform_assets.serving.run.runtime import Runtime
from platform_assets.serving.run.worker import Worker

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

STARTUP_S = 5.0
"""How long a start waits for the store before it serves the local copy or the fallback."""
CLOSE_S = 5.0
"""How long a shutdown waits for the disk of the prediction log."""
MODEL_LETTERS = 12
"""Of a model's digest in the line of an answer."""
_JSON = b"application/json"


class PredictionMiddleware:
    """The service's public paths: `/predict`, `/readyz`, `/openapi.json`; any other is 404.

    `/` and `/docs.json` return the OpenAPI document too. `/readyz` says yes or no, because Bento's own client waits for
    it; the rest of the probes, and metrics, are on a port of their own (`probes`). Bento itself answers `/schema.json`,
    and `/api/predict` within the limits and counts of `/predict`. None of its pages is reachable: they load a third
    party's tracker.
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
        self._lists = asyncio.Lock()
        self._ids = RequestIds()
        self._writes_answers = log_format() == "json"
        self.health = Health(self.runtime, self._ended)
        self.probe_pages = self.health.pages
        self._worker = Worker(self.runtime, self.probe_pages, self.runtime.metrics, self.health.note)
        self._pages: Pages = {
            READINESS: self.health.is_ready,
            "/openapi.json": lambda: Page(200, self._openapi, _JSON),
            "/docs.json": lambda: Page(200, self._openapi, _JSON),
            "/": lambda: Page(200, self._openapi, _JSON),
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
        """Answer an HTTP request and count it, with the time from its head to the last byte of its answer.

        It is counted before that byte is sent: what a caller was answered is counted, also by a worker that dies then.
        """
        started_s, path, metrics = perf_counter(), scope["path"], self.runtime.metrics
        status: int | None = None
        is_counted = False

        def end() -> None:
            took_s, live = perf_counter() - started_s, scope.get("live", self.runtime.follower.live)
            metrics.end(path, status, took_s, live)
            if "request_id" in scope and self._writes_answers:
                self._write_answer(scope["request_id"], status, took_s, live)

        async def observed(message: Message) -> None:
            nonlocal status, is_counted
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                is_counted = True
                end()
            await send(message)

        metrics.begin(path)
        try:
            if path in (PREDICT, API):
                await self._predict(scope, receive, observed)
            elif path in self._pages:
                await self._page(scope, self._pages[path], observed)
            elif path == SCHEMA:
                await self._app(scope, receive, observed)
            else:
                await _refuse(observed, Refused(404, f"there is nothing at this path; the paths are {self._paths}."))
        except BaseException:
            status = status or 500  # what the server answers instead of us
            raise
        finally:
            if not is_counted:
                end()

    def _write_answer(self, request_id: bytes, status: int | None, took_s: float, live: Live | None) -> None:
        """Write the line of an answer, by which its request leads to the model's release and training."""
        fields = {
            "product": self.runtime.contract.product,
            "release": None if live is None else live.release,
            "model": None if live is None else live.model.digest[:MODEL_LETTERS],
            "request_id": request_id.decode(),
            "status": status,
            "ms": round(1000 * took_s, 2),
        }
        logs.write("driftline.answers", "answered", fields)

    @cached_property
    def _paths(self) -> str:
        return ", ".join((PREDICT, API, *sorted((*self._pages, SCHEMA))))

    async def start(self) -> None:
        """Load and warm up a model, then follow releases in the background."""
        await self.load()
        self._worker.start()

    async def stop(self) -> None:
        """Stop following and close the log, which already contains every answer given."""
        await self._worker.end()
        await self.close()
        await self._worker.close()

    async def load(self) -> None:
        """Begin what belongs to the product: load and warm up a model, and start its jobs."""
        await asyncio.to_thread(self._leave_mark)
        await asyncio.to_thread(self.runtime.follower.fall_back)
        for job in self._jobs:
            job.start()
        await asyncio.to_thread(self._following.was_done.wait, STARTUP_S)
        self.health.note()

    async def close(self) -> None:
        """End what `load` began."""
        for job in self._jobs:
            job.stop()
        with contextlib.suppress(LogProblem, Overdue):  # every answer given reached the kernel before it was sent
            await asyncio.to_thread(Deadline(CLOSE_S).run, "closing the log", self.runtime.predictor.log.close)
        if self.runtime.shipper is not None:
            await asyncio.to_thread(self.runtime.shipper.close)
        await asyncio.to_thread(self.runtime.mark.end)

    def _leave_mark(self) -> None:
        """Say and count which processes before this one died."""
        mark, product = self.runtime.mark, self.runtime.contract.product
        died: list[Died] = []
        try:
            died = mark.begin()
            for item in died:
                log.warning(
                    "%s: a process before this one ended without closing; it was last seen alive at %s.",
                    product,
                    item.seen_at.isoformat(timespec="seconds"),
                )
        except OSError as problem:
            log.warning("%s: whether a process before this one died is not known: %s.", product, problem)
        self.runtime.metrics.count_deaths(mark.deaths)
        self.runtime.predictor.faults.start(product, died)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def observed(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.start()
            elif message["type"].startswith("lifespan.shutdown"):
                await self.stop()
            await send(message)

        await self._app(scope, receive, observed)

    def _look(self) -> None:
        self.runtime.follower.look()
        self.runtime.predictor.faults.note(self.runtime.follower.live)
        self.health.note()

    def _check_disk(self) -> None:
        self.runtime.mark.renew()
        self.runtime.predictor.log.check()
        if self.runtime.shipper is not None:
            self.runtime.shipper.room.check()

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime, fields = self.runtime, dict(scope["headers"])
        request_id, traceparent = self._ids.identify(fields)
        scope["request_id"] = request_id
        ids = (b"x-request-id", request_id), (b"traceparent", traceparent)
        if scope["method"] != "POST":
            refused = Refused(405, f"the method is {scope['method']}; expected POST.")
            await _refuse(send, refused, (b"allow", b"POST"), *ids)
            return
        try:
            caller = runtime.callers.name_of(fields)
            is_file, query = image_files.is_file(fields), scope.get("query_string", b"")
            if not is_file:
                image_files.check_query(runtime.contract, query)
            is_whole = scope.get("is_whole", False)
            body = await bodies.read(fields, receive, runtime.contract.max_body_bytes, runtime.gate, is_whole=is_whole)
        except Refused as refused:
            await self._turn_away(fields, receive, send, refused, ids)
            return
        if body is None:
            return
        origin = caller, request_id.decode(), traceparent.decode()
        answering = partial(self._answer, scope, query if is_file else None, origin)
        if scope["path"] == API:
            ANSWER.set(answering)
            await self._app(scope, bodies.replayed(body, receive), _with_headers(send, ids))
        else:
            await respond(send, *await answering(body), *ids)

    async def _answer(
        self, scope: Scope, query: bytes | None, origin: Origin, body: bytes | bytearray
    ) -> tuple[int, bytes]:
        """Answer a body that was admitted, and count its rows."""
        runtime, started_s = self.runtime, perf_counter()
        if runtime.shelf is None:
            live = scope["live"] = runtime.follower.live
            steps = runtime.predictor.steps(live, body, started_s, query, origin)
            status, answer, rows = await take_turns(steps, self._lists, runtime.predictor.tick)
        else:
            status, answer, rows = await self._score_held(runtime.shelf, scope, query, origin, body, started_s)
        runtime.metrics.count_rows(rows, scope.get("live"))
        return status, answer

    async def _score_held(
        self,
        shelf: Shelf,
        scope: Scope,
        query: bytes | None,
        origin: Origin,
        body: bytes | bytearray,
        started_s: float,
    ) -> tuple[int, bytes, int]:
        """Score with a model that may have to be loaded again; the time of that is in the record."""
        predictor = self.runtime.predictor
        try:
            place, live = await shelf.hold(self.runtime.follower)
        except Refused as refused:
            return refused.status, refused.body, 0
        scope["live"] = live
        try:
            return await take_turns(predictor.steps(live, body, started_s, query, origin), self._lists, predictor.tick)
        finally:
            shelf.leave(place)

    async def _turn_away(
        self, fields: Mapping[bytes, bytes], receive: Receive, send: Send, refused: Refused, ids: Iterable[Header]
    ) -> None:
        """Refuse a request whose body was not read, and discard the body.

        The connection stays usable after one that its caller may repeat, unless the body is too long to wait for.
        """
        headers = [*ids]
        if isinstance(refused, Unknown):
            headers.append((b"www-authenticate", b"Bearer"))
        if not isinstance(refused, Unknown) or not bodies.is_short(fields, self.runtime.contract.max_body_bytes):
            headers.append((b"connection", b"close"))
        await respond(send, refused.status, refused.body, *headers, is_last=False)
        await bodies.drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _page(self, scope: Scope, page: Callable[[], Page], send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            refused = Refused(405, f"the method is {scope['method']}; expected GET.")
            await _refuse(send, refused, (b"allow", b"GET, HEAD"))
            return
        status, body, content_type = page()
        await respond(send, status, body, content_type=content_type)

    def _ended(self) -> list[str]:
        """Return the names of background jobs that ended by a bug."""
        return [*(job.name for job in self._jobs if job.has_ended), *self._worker.ended()]

    @cached_property
    def _openapi(self) -> bytes:
        return msgspec.json.encode(openapi(self.runtime.contract))


def _with_headers(send: Send, headers: Iterable[Header]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return sending


async def _refuse(send: Send, refused: Refused, *headers: Header) -> None:
    await respond(send, refused.status, refused.body, *headers)


async def respond(
    send: Send,
    status: int,
    body: bytes,
    *headers: Header,
    content_type: bytes = _JSON,
    is_last: bool = True,
) -> None:
    """Send an answer, whole unless more of it follows."""
    length = str(len(body)).encode()
    fixed = [(b"content-type", content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fixed})
    await send({"type": "http.response.body", "body": body, "more_body": not is_last})
