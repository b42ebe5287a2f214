"""Answer HTTP before Bento's own stack does: ASGI in, ASGI out.

Paths, methods, and the worker's background jobs. `bodies` reads bodies within limits, `predict` builds answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
from collections.abc import Callable
from functools import cached_property, partial
from time import perf_counter

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from platform_assets.base import logs
from platform_assets.base.settings import log_format
from platform_assets.serving.answer import bodies, image_files
from platform_assets.serving.answer.callers import Unknown
from platform_assets.serving.answer.openapi import openapi
from platform_assets.serving.answer.predict import Origin
from platform_assets.serving.answer.request_ids import RequestIds
from platform_assets.serving.answer.requests import Refused
from platform_assets.serving.answer.routes import ANSWER, API, PREDICT, SCHEMA
from platform_assets.serving.answer.slices_of_work import take_turns
from platform_assets.serving.follow.alive import Died
from platform_assets.serving.follow.background import Deadline, Overdue, Repeated
from platform_assets.serving.follow.follower import log
from platform_assets.serving.log import shipping
from platform_assets.serving.log.prediction_log import LogProblem
from platform_assets.serving.run import event_loop
from platform_assets.serving.run.health import Health
from platform_assets.serving.run.probes import READINESS, Page, Pages, Probes
from platform_assets.serving.run.runtime import Runtime

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

    def __init__(self, app: ASGIApp, make: Callable[[], Runtime]) -> None:
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
        self._probes = None if self.runtime.probes is None else Probes(self.runtime.probes, self.probe_pages)
        self._tasks: list[asyncio.Task[None]] = []
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
            return

        async def observed(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.start()
            elif message["type"].startswith("lifespan.shutdown"):
                await self.stop()
            await send(message)

        await self._app(scope, receive, observed if kind == "lifespan" else send)

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
                # By this line a request leads to the model's release and training.
                fields = {
                    "product": self.runtime.contract.product,
                    "release": None if live is None else live.release,
                    "model": None if live is None else live.model.digest[:MODEL_LETTERS],
                    "request_id": scope["request_id"].decode(),
                    "status": status,
                    "ms": round(1000 * took_s, 2),
                }
                logs.write("driftline.answers", "answered", fields)

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
                paths = ", ".join((PREDICT, API, *sorted((*self._pages, SCHEMA))))
                await _refuse(observed, Refused(404, f"there is nothing at this path; the paths are {paths}."))
        except BaseException:
            status = status or 500  # what the server answers instead of us
            raise
        finally:
            if not is_counted:
                end()

    async def start(self) -> None:
        """Load and warm up a model, then follow releases in the background."""
        await self.load()
        # What was loaded is never collected: looking at it again and again would delay requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        loop, runtime = asyncio.get_running_loop(), self.runtime
        gate, metrics, waiting = runtime.gate, runtime.metrics, runtime.waiting
        gate.waiting, gate.note_refused = waiting.count, metrics.count_refused
        self._tasks = [
            loop.create_task(self._watch(os.getppid()), name="watch the parent"),
            loop.create_task(event_loop.measure(metrics.note_lag, waiting), name="measure the event loop"),
        ]
        if runtime.drain_s and threading.current_thread() is threading.main_thread():  # signals are set there alone
            end = signal.getsignal(signal.SIGTERM)
            assert callable(end), end  # the server's own

            # A `preStop` that sleeps would give the same time but keep connections, and with them callers.
            # On SIGTERM be not ready first, go on answering for a while, and then let the server end as it would.
            def drain() -> None:
                if not gate.is_draining:  # a process group may get the signal twice
                    gate.is_draining = True
                    self.health.note()
                    loop.call_later(runtime.drain_s, end, signal.SIGTERM, None)

            signal.signal(signal.SIGTERM, lambda _number, _frame: loop.call_soon_threadsafe(drain))
        if self._probes is not None:
            self._probes.start()

    async def stop(self) -> None:
        """Take no further requests, stop following, and close the log, which already contains every answer given."""
        gate = self.runtime.gate
        gate.is_draining, gate.waiting = True, lambda: 0  # what it counts at is closed below
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self.runtime.waiting.close()
        await self.close()
        if self._probes is not None:  # the last to go: whoever watches sees the rest of the end
            await asyncio.to_thread(self._probes.stop)

    async def _watch(self, parent: int) -> None:
        """End with the parent, Bento's supervisor."""
        while os.getppid() == parent:
            await asyncio.sleep(self.runtime.poll_s)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()  # a task that is done counts as ended by a bug

    async def load(self) -> None:
        """Begin what belongs to the product: load and warm up a model, and start its jobs."""
        await asyncio.to_thread(self._leave_mark)  # before a model is taken, which the mark names
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
        await asyncio.to_thread(self.runtime.mark.end)  # the last: a process killed while it ships has died

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
            headers = [*ids]
            if isinstance(refused, Unknown):
                headers.append((b"www-authenticate", b"Bearer"))
            # A caller may repeat such a request on its connection, unless the body is too long to wait for.
            if not isinstance(refused, Unknown) or not bodies.is_short(fields, runtime.contract.max_body_bytes):
                headers.append((b"connection", b"close"))
            await respond(send, refused.status, refused.body, *headers, is_last=False)
            await bodies.drain(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        if body is None:
            return
        origin = caller, request_id.decode(), traceparent.decode()
        answering = partial(self._answer, scope, query if is_file else None, origin)
        if scope["path"] == API:

            async def with_ids(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), *ids]
                await send(message)

            ANSWER.set(answering)
            await self._app(scope, bodies.replayed(body, receive), with_ids)
        else:
            await respond(send, *await answering(body), *ids)

    async def _answer(
        self, scope: Scope, query: bytes | None, origin: Origin, body: bytes | bytearray
    ) -> tuple[int, bytes]:
        """Answer a body that was admitted, and count its rows."""
        runtime, started_s = self.runtime, perf_counter()
        live = scope["live"] = runtime.follower.live
        steps = runtime.predictor.steps(live, body, started_s, query, origin)
        status, answer, rows = await take_turns(steps, self._lists, runtime.predictor.tick)
        runtime.metrics.count_rows(rows, live)
        return status, answer

    async def _page(self, scope: Scope, page: Callable[[], Page], send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            refused = Refused(405, f"the method is {scope['method']}; expected GET.")
            await _refuse(send, refused, (b"allow", b"GET, HEAD"))
            return
        status, body, content_type = page()
        await respond(send, status, body, content_type=content_type)

    def _ended(self) -> list[str]:
        """Return the names of background jobs that ended by a bug."""
        jobs = [job.name for job in self._jobs if job.has_ended]
        return jobs + [task.get_name() for task in self._tasks if task.done()]

    @cached_property
    def _openapi(self) -> bytes:
        return msgspec.json.encode(openapi(self.runtime.contract))


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
