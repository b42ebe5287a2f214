"""Serve several models in one process: `python -m platform_assets.serving.run.host NAME... --memory-mb N`.

A name is a product, whose releases are followed, or PRODUCT@DIGEST, one model of it. Each has the paths of a service of
its own below /NAME, with its own contract, log, limits and metrics; `shelf` keeps their models within the memory. What
a process knows of a product is in the store: the newest release and its bundle, or this machine's copy of both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest

from platform_assets.base import logs
from platform_assets.base.configuration import ConfigurationProblem
from platform_assets.base.settings import Settings
from platform_assets.serving.answer.admission import Gate
from platform_assets.serving.answer.bodies import Receive, Scope, Send
from platform_assets.serving.answer.callers import CallersProblem
from platform_assets.serving.answer.middleware import PredictionMiddleware, respond
from platform_assets.serving.answer.requests import Refused
from platform_assets.serving.answer.routes import PREDICT, TIMEOUT_S
from platform_assets.serving.follow import local_copy, store_wait
from platform_assets.serving.follow.entries import UNREADABLE, Entry, HostProblem, prepare
from platform_assets.serving.follow.follower import log
from platform_assets.serving.follow.model_cache import Shelf, TooLarge
from platform_assets.serving.follow.store_wait import StoreAway
from platform_assets.serving.run import assembly, protocol
from platform_assets.serving.run.event_loop import Waiting
from platform_assets.serving.run.listening import PortProblem, bound
from platform_assets.serving.run.metrics import Metrics
from platform_assets.serving.run.probes import HEALTH, METRICS, READINESS, Page, Pages, json_page
from platform_assets.serving.run.protocol import Protocol
from platform_assets.serving.run.worker import Worker


class Host:
    """The ASGI application in front of the middleware of each name."""

    def __init__(
        self,
        settings: Settings,
        entries: Sequence[Entry],
        shelf: Shelf,
        waiting: Waiting | None = None,
        probes: socket.socket | None = None,
    ) -> None:
        """Prepare; no model is loaded before the server starts. See `Runtime`."""
        self._room = assembly.make_room(settings)
        self.shelf = shelf
        self.gate = Gate(settings.serving_in_flight)
        self.products = {one.name: self._product(settings, one) for one in entries}
        self._direct = {f"/{name}{PREDICT}": partial(_at, PREDICT, app) for name, app in self.products.items()}
        self._unread = Counter("driftline_unread_requests", "Requests that were not HTTP.", registry=shelf.registry)
        any_runtime = next(iter(self.products.values())).runtime
        self._worker = Worker(
            replace(any_runtime, waiting=waiting or Waiting(), probes=probes),
            self.pages,
            self,
            self._note,
            watches_parent=False,
        )

    def _product(self, settings: Settings, one: Entry) -> PredictionMiddleware:
        follower = assembly.make_follower(
            settings, one.contract, one.trial, pinned=one.pinned, shelf=self.shelf, name=one.name
        )
        runtime = assembly.make_runtime(
            settings, one.contract, follower, Metrics(), self.gate, room=self._room, shelf=self.shelf
        )
        return PredictionMiddleware(_nothing, make=lambda: runtime)

    def install(self) -> None:
        """Make this process's server pass requests to the models directly."""
        Protocol.gate, Protocol.direct = self.gate, dict(self._direct)
        Protocol.on_bad_request = staticmethod(self._unread.inc)

    @property
    def pages(self) -> Pages:
        """The pages of the probes' port: of the process, and below /NAME of each name."""
        own: dict[str, Callable[[], Page]] = {HEALTH: self.alive, READINESS: self.ready, METRICS: self.metrics}
        for name, product in self.products.items():
            own |= {f"/{name}{path}": page for path, page in product.probe_pages.items()}
        return own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        _, name, rest = [*scope["path"].split("/", 2), ""][:3]
        product = self.products.get(name)
        if product is not None:
            await _at(f"/{rest}", product, scope, receive, send)
        elif scope["path"] == READINESS:
            status = self.ready().status
            await respond(send, status, msgspec.json.encode({"is_ready": status == 200}))
        else:
            names = ", ".join(f"/{name}/" for name in self.products)
            refused = Refused(404, f"there is nothing at this path; expected one below {names}.")
            await respond(send, refused.status, refused.body)

    def alive(self) -> Page:
        """Alive while each name is."""
        problems = [f"{name}: {page.body.decode()}" for name, page in self._pages_of(HEALTH) if page.status != 200]
        return json_page(503 if problems else 200, {"is_alive": not problems, "problem": " ".join(problems) or None})

    def ready(self) -> Page:
        """Ready while each name is; /NAME/readyz has the rest."""
        is_ready = {name: page.status == 200 for name, page in self._pages_of(READINESS)}
        are_ready = all(is_ready.values())
        return json_page(200 if are_ready else 503, {"is_ready": are_ready, "names": is_ready})

    def metrics(self) -> Page:
        """The memory and the loads of all models; /NAME/metrics has what each answered."""
        return Page(200, generate_latest(self.shelf.registry), CONTENT_TYPE_LATEST.encode())

    def note_lag(self, lag_s: float, waiting: int, had_turn: bool = True) -> None:
        """Publish in each name's metrics how long the loop has made others wait."""
        for product in self.products.values():
            product.runtime.metrics.note_lag(lag_s, waiting, had_turn)

    def count_refused(self, path: str) -> None:
        """Count a request that was refused before it began."""
        _, name, rest = [*path.split("/", 2), ""][:3]
        if name in self.products:
            self.products[name].runtime.metrics.count_refused(f"/{rest}")

    def _pages_of(self, path: str) -> list[tuple[str, Page]]:
        return [(name, product.probe_pages[path]()) for name, product in self.products.items()]

    def _note(self) -> None:
        for product in self.products.values():
            product.health.note()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.shelf.start()
        for product in self.products.values():
            await product.load()
        self._worker.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._worker.end()
        await asyncio.gather(*(product.close() for product in self.products.values()))
        await self._worker.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _at(
    path: str, app: Callable[[Scope, Receive, Send], Awaitable[None]], scope: Scope, receive: Receive, send: Send
) -> None:
    """Pass a request on as one for `path`."""
    scope["path"] = path
    await app(scope, receive, send)


async def _nothing(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Stand for Bento's own application: here are none of its paths."""
    refused = Refused(404, "this path is one of a Bento's; expected /predict.")
    await respond(send, refused.status, refused.body)


def _wait_for_store(settings: Settings, names: Sequence[str], probes: socket.socket | None) -> None:
    """Wait for a store that is away, unless this machine has a copy of each product's last release."""
    folders = [settings.serving_kept / name for name in names]
    if all((folder / local_copy.NAME).exists() for folder in folders):
        return
    with contextlib.suppress(*UNREADABLE):  # what it is for each name, `prepare` says
        store_wait.wait(lambda: store_wait.reach(settings.root, "0" * 64), lambda text: log.warning("%s", text), probes)


def make_host(
    settings: Settings,
    names: Sequence[str],
    bytes_max: int,
    waiting: Waiting | None = None,
    probes: socket.socket | None = None,
) -> Host:
    """Return the application for some names, each model tried and measured.

    Raises:
        HostProblem: a name twice, without a model, or with one that alone is above the limit.
        StoreAway: no model can be found, as the store has been away for too long.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise HostProblem(f"{', '.join(twice)} is named twice; expected every name once.")
    _wait_for_store(settings, names, probes)
    shelf = Shelf(bytes_max, TIMEOUT_S, len(names))
    entries = [prepare(settings, name) for name in names]
    for name, one in zip(names, entries, strict=True):
        try:
            shelf.check(one.digest, one.trial.size(one.digest))
        except TooLarge as problem:
            raise HostProblem(f"{name} cannot be served: {problem}") from None
    return Host(settings, entries, shelf, waiting, probes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="driftline serve", description="Serve several models in one process.")
    parser.add_argument("names", metavar="NAME", nargs="+", help="a product, or PRODUCT@DIGEST for one model of it")
    parser.add_argument(
        "--memory-mb", type=float, required=True, metavar="N", help="memory of all models, in 2^20 bytes"
    )
    parser.add_argument("--port", type=int, default=3000, help="of the callers (default: 3000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        logs.install()
        if not 0 < options.memory_mb < 2**30:
            raise HostProblem(f"--memory-mb is {options.memory_mb:g}; expected a number above 0 and below 2^30.")
        settings = Settings.from_environment()
        callers = bound(options.host, options.port)
        probes = bound(options.host, settings.probes_port(options.port))
        waiting = Waiting([callers.dup()])
        application = make_host(settings, options.names, int(options.memory_mb * 2**20), waiting, probes)
    except (CallersProblem, ConfigurationProblem, HostProblem, PortProblem, StoreAway) as problem:
        print(f"serve: {problem}", file=sys.stderr)
        return 1
    application.install()
    for name, product in application.products.items():
        print(f"http://{options.host}:{options.port}/{name}{PREDICT}: {product.runtime.contract.title}", flush=True)
    protocol.serve(application, callers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
