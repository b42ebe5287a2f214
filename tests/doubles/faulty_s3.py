"""A proxy between a client and an S3 server that breaks chosen requests, before or after the server executed them.

Requests are passed on unchanged, including the host's name, so that signatures remain valid.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
CODES = {
    403: "AccessDenied",
    409: "ConditionalRequestConflict",
    500: "InternalError",
    501: "NotImplemented",
    503: "SlowDown",
}


@dataclass
class Fault:
    """The fault of the next requests of a kind.

    Attributes:
        method: `PUT`, `GET`, ...
        path: a suffix or part of the path.
        answer: the status to answer with; 0 closes the connection without an answer; None passes on the server's.
        is_done: whether the server receives and executes the request before the answer is broken.
        delay_s: delay of the answer.
        times: number of requests that are broken; the next ones are not.
        repeats: how often the server receives the request again before it is answered.
        then: called before the answer.
    """

    method: str
    path: str
    answer: int | None = 0
    is_done: bool = False
    delay_s: float = 0.0
    times: int = 1
    repeats: int = 0
    then: Callable[[], object] | None = None


@dataclass
class Faults:
    """The pending faults, and the requests so far.

    Attributes:
        endpoint: the proxy's address.
        requests: method and path of every request, in order.
        met: the faults that have occurred.
        is_away: whether every connection is closed without an answer.
        clock_shift_s: seconds by which the server's clock seems to be ahead.
    """

    endpoint: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    met: list[Fault] = field(default_factory=list)
    is_away: bool = False
    clock_shift_s: float = 0.0
    _coming: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Forget the requests, and the pending faults."""
        with self._lock:
            self.requests.clear()
            self.met.clear()
            self._coming.clear()
            self.is_away, self.clock_shift_s = False, 0.0

    def add(self, method: str, path: str, **members: object) -> None:
        """Break the next requests of a kind; see `Fault`."""
        with self._lock:
            self._coming.append(Fault(method, path, **members))

    def count(self, method: str, path: str) -> int:
        with self._lock:
            return sum(entry[0] == method and path in entry[1] for entry in self.requests)

    def meet(self, method: str, path: str) -> Fault | None:
        """Record a request and return its fault, if any."""
        with self._lock:
            self.requests.append((method, path))
            for fault in self._coming:
                if fault.times and fault.method == method and fault.path in path:
                    fault.times -= 1
                    self.met.append(fault)
                    return fault
        return None


@contextmanager
def in_front_of(server: str, faults: Faults | None = None) -> Iterator[Faults]:
    """Run the proxy in front of a server's address; yield the object with its address that takes faults.

    Args:
        faults: what decides about requests, if it is not a plain `Faults`.
    """
    faults = Faults() if faults is None else faults
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
    # With the default of 5, each of a client's many connections waits a second to be accepted.
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    faults: ClassVar[Faults]
    upstream: ClassVar[str]

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.meet(self.command, self.path)
        if self.faults.is_away:
            self.close_connection = True
            return
        # One request per connection: the server's threads end with the test.
        self.close_connection = True
        answer = self._fetch(body) if fault is None or fault.is_done or fault.answer is None else None
        if fault is not None:
            for _ in range(fault.repeats):
                answer = self._fetch(body)
            time.sleep(fault.delay_s)
            if fault.then is not None:
                fault.then()
            if fault.answer == 0:
                return
            if fault.answer is not None:
                code = CODES[fault.answer]
                text = f"<Error><Code>{code}</Code><Message>by tests/doubles/faulty_s3.py</Message></Error>"
                answer = fault.answer, [("Content-Type", "application/xml")], text.encode()
        assert answer is not None
        self._answer(*answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def _fetch(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            length = [("Content-Length", answer.headers.get("Content-Length") or "0")] if self.command == "HEAD" else []
            passed_on = [
                (name, self._shifted(value) if name.lower() == "last-modified" else value)
                for name, value in answer.getheaders()
                if name.lower() not in HOP
            ]
            return answer.status, [*passed_on, *length], data
        finally:
            connection.close()

    def _shifted(self, moment: str) -> str:
        shift = timedelta(seconds=self.faults.clock_shift_s)
        return format_datetime(parsedate_to_datetime(moment) + shift, usegmt=True)

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
            return  # the client no longer waits

    def log_message(self, *_: object) -> None:
        """Print nothing: `Faults.requests` has them."""
