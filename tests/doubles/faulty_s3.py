"""Stand between a client and an S3 server and break chosen requests, before or after the server has done them.

Requests go on unchanged, the host's name included, so that signatures hold.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
CODES = {409: "ConditionalRequestConflict", 500: "InternalError", 503: "SlowDown"}


@dataclass
class Fault:
    """What happens to the next requests of a kind.

    Attributes:
        method: `PUT`, `GET`, ...
        path: what the path ends with, or holds.
        answer: the status to answer with; 0 closes the connection without an answer; None passes the server's on.
        is_done: whether the server gets the request, and does it, before the answer is broken.
        delay_s: how long the answer waits.
        times: how many requests are broken; the next ones are not.
    """

    method: str
    path: str
    answer: int | None = 0
    is_done: bool = False
    delay_s: float = 0.0
    times: int = 1


@dataclass
class Faults:
    """The faults to come, and what was asked.

    Attributes:
        endpoint: the proxy's address.
        asked: method and path of every request, in order.
        met: the faults that requests met.
    """

    endpoint: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    met: list[Fault] = field(default_factory=list)
    _coming: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Forget what was asked, and the faults to come."""
        with self._lock:
            self.asked.clear()
            self.met.clear()
            self._coming.clear()

    def add(self, method: str, path: str, **what: object) -> None:
        """Break the next requests of a kind; see `Fault`."""
        with self._lock:
            self._coming.append(Fault(method, path, **what))

    def count(self, method: str, path: str) -> int:
        """Return how many requests of a kind there were."""
        with self._lock:
            return sum(request[0] == method and path in request[1] for request in self.asked)

    def meet(self, method: str, path: str) -> Fault | None:
        """Note a request and return the fault that it meets."""
        with self._lock:
            self.asked.append((method, path))
            for fault in self._coming:
                if fault.times and fault.method == method and fault.path in path:
                    fault.times -= 1
                    self.met.append(fault)
                    return fault
        return None


@contextmanager
def in_front_of(server: str) -> Iterator[Faults]:
    """Run the proxy in front of a server's address; what it yields says where it is and takes faults."""
    faults = Faults()
    handler = type("Handler", (_Handler,), {"faults": faults, "upstream": urlsplit(server).netloc})
    proxy = _Proxy(("127.0.0.1", 0), handler)
    faults.endpoint = f"http://127.0.0.1:{proxy.server_port}"
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _Proxy(ThreadingHTTPServer):
    # With the default of 5, a client's many connections wait a second each to be asked for again.
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    faults: ClassVar[Faults]
    upstream: ClassVar[str]

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.meet(self.command, self.path)
        # One request a connection: the server's threads end with the test.
        self.close_connection = True
        answer = self._ask(body) if fault is None or fault.is_done or fault.answer is None else None
        if fault is not None:
            time.sleep(fault.delay_s)
            if fault.answer == 0:
                return
            if fault.answer is not None:
                code = CODES[fault.answer]
                text = f"<Error><Code>{code}</Code><Message>by tests/doubles/faulty_s3.py</Message></Error>"
                answer = fault.answer, [("Content-Type", "application/xml")], text.encode()
        assert answer is not None
        self._answer(*answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            length = [("Content-Length", answer.headers.get("Content-Length") or "0")] if self.command == "HEAD" else []
            stored = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP]
            return answer.status, [*stored, *length], data
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client waited no longer

    def log_message(self, *_: object) -> None:
        """Say nothing; `Faults.asked` tells."""
