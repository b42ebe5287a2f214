"""Serve `/healthz`, `/readyz` and `/metrics` on a port of their own, from a thread.

An overloaded event loop does not delay a probe, and the port of the callers need not be open to whoever watches.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from platform_assets.serving.answer.admission import Gate
from platform_assets.serving.run.protocol import Application, Protocol, server

HEALTH, READINESS, METRICS = "/healthz", "/readyz", "/metrics"
STOP_S = 1
"""How long the end waits for an answer under way."""


class Page(NamedTuple):
    """An answer to GET."""

    status: int
    body: bytes
    content_type: bytes


def json_page(status: int, document: object) -> Page:
    """Return an answer in JSON."""
    return Page(status, msgspec.json.encode(document), b"application/json")


Pages = Mapping[str, Callable[[], Page]]


class _Bounded(Protocol):
    """Heads have their limits here too, or idle connections would pile up; nothing else of the callers' port counts."""

    gate = Gate()
    direct: ClassVar[dict[str, Application]] = {}
    on_bad_request = staticmethod(lambda: None)


class Probes:
    """The thread that answers on the port."""

    def __init__(self, listening: socket.socket, pages: Pages) -> None:
        """Prepare; the pages are called from the thread."""

        async def answer(request: Request) -> Response:
            status, body, content_type = pages[request.url.path]()
            return Response(body, status, media_type=content_type.decode())

        pages_only = Starlette(routes=[Route(path, answer) for path in pages])
        self._server = server(pages_only, _Bounded, lifespan="off", timeout_graceful_shutdown=STOP_S)
        # A daemon: a probe that hangs keeps no process from its end.
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="probes", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and close the socket."""
        self._server.should_exit = True
        self._thread.join()
