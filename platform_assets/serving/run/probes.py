"""Serve `/healthz`, `/readyz` and `/metrics` on a port of their own, from a thread.

An overloaded event loop does not delay a probe, and the port of the callers need not be open to whoever watches.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import msgspec

HEALTH, READINESS, METRICS = "/healthz", "/readyz", "/metrics"
READ_S, READ_BYTES_MAX = 5.0, 16 * 1024
"""How long a request may take to arrive, and how long it may be."""
AT_ONCE = 16
"""Connections at the same time; further ones are closed."""
LOOK_S = 0.1
"""How soon the thread notices that it is to end."""


class Page(NamedTuple):
    """An answer to GET."""

    status: int
    body: bytes
    content_type: bytes


def json_page(status: int, document: object) -> Page:
    """Return an answer in JSON."""
    return Page(status, msgspec.json.encode(document), b"application/json")


Pages = Mapping[str, Callable[[], Page]]


class Probes:
    """The thread that answers on the port."""

    def __init__(self, listening: socket.socket, pages: Pages) -> None:
        """Prepare; the pages are called from threads."""
        self._server = _Server(listening, pages)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(LOOK_S,), name="probes", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and close the socket."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, pages: Pages) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.pages = listening, pages
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a caller who left."""


class _Arriving(io.RawIOBase):
    """What arrives on a connection, until all of its time or length is used."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        super().__init__()
        self._connection, self._until, self._left = connection, time.monotonic() + seconds, READ_BYTES_MAX

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        left_s = self._until - time.monotonic()
        if left_s <= 0 or self._left <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        count = self._connection.recv_into(buffer)
        self._left -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    timeout = READ_S
    server: _Server
    sys_version = ""
    server_version = "driftline"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Arriving(self.connection, self.timeout), READ_BYTES_MAX)

    def do_GET(self) -> None:  # the base class calls this name
        self._answer(is_head=False)

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def _answer(self, *, is_head: bool) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            status, body, content_type = 404, f"the paths are {', '.join(self.server.pages)}.\n".encode(), b"text/plain"
        else:
            status, body, content_type = page()
        self.connection.settimeout(self.timeout)
        self.send_response(status)
        self.send_header("content-type", content_type.decode())
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if not is_head:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Write no access log."""
