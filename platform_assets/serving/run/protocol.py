"""Speak HTTP as uvicorn does, with seven changes that no ASGI application can make.

A caller who closes the sending side may still read the answer, requests that are not HTTP are counted, a request beyond
the limit is refused before it becomes a task, and a worker that is about to end closes connections with its answers.
Heads of requests have a limit of length and of time.
`/predict` reaches its application without the layers around it, and its answers are sent by one system call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import msgspec
import uvicorn
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from platform_assets.serving.answer.admission import RETRY_AFTER_S, Gate

Application = Callable[[Any, Any, Any], Awaitable[None]]

# httptools has no limit: a head of 20 MB cost .5 to .8 CPU seconds, and was kept in memory.
HEAD_BYTES_MAX = 64 * 1024
"""Of a request's head; also of what frames its body, between two parts of it and after the last."""
HEAD_S = 5.0  # without it a head that never ends held its connection for ever
"""How long a head may take to arrive, since its connection began or since its first byte."""
LOOK_S = 0.1
LINGER_S = 1.0
"""How long a refused caller who asked to close the connection may still send: closing at once would reset it."""
_BUSY = msgspec.json.encode(
    {"error": f"too many requests are under way; ask again in {RETRY_AFTER_S} s.", "field": None}
)
_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: %d\r\nretry-after: %d\r\n"
)
_REFUSAL = _HEAD % (len(_BUSY), RETRY_AFTER_S)
_TOO_LONG = 431, "Request Header Fields Too Large", f"the head of the request has more than {HEAD_BYTES_MAX} bytes."
_TOO_SLOW = 408, "Request Timeout", f"the head of the request did not arrive within {HEAD_S:g} s."


class _Refused:
    """Stands for a request that is answered: uvicorn ignores the rest of its body."""

    response_complete, more_body, disconnected = True, False, False

    def __init__(self) -> None:
        self.message_event = asyncio.Event()
        self.keep_alive = True


class _Joined:
    """A transport that sends the head of an answer together with what follows it.

    For an application that always has more to send, or closes: nothing else sends the head.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._is_begun = False
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send bytes; the first ones with the next."""
        if not self._is_begun:
            self._head, self._is_begun = data, True
            return
        head, self._head = self._head, None
        self._transport.write(data if head is None else head + data)

    def close(self) -> None:
        """Send what was kept, and close."""
        if self._head is not None:
            self._transport.write(self._head)
        self._transport.close()


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, changed.

    Attributes:
        on_bad_request: called for each 400 answer to a request that is not HTTP: no application sees those.
        gate: decides which requests begin.
        direct: by path, the applications that get their requests without the layers of uvicorn and Bento around them,
            whose headers, spans and timeout would cost more than a prediction. Their scope says whether the body has
            arrived (`is_whole`).
    """

    on_bad_request: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    gate: ClassVar[Gate] = Gate()
    direct: ClassVar[dict[str, Application]] = {}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # uvicorn asks for handlers only, and Bento's make it format a line per request that nobody writes.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self._begun: tuple[float, int] | None = None
        self._whole = self.app
        self.app = self._dispatch
        self.gate.tasks = self.tasks
        self._unfinished = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin a connection, whose first head must arrive in time."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._forget_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; end the connection if what frames requests and bodies does not end."""
        if self._is_over:
            return
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > HEAD_BYTES_MAX:
            self._end(*_TOO_LONG)
        # Between two requests uvicorn's own timer runs.
        elif self._head_timer is None and self.timeout_keep_alive_task is None and self._is_free():
            self._await_head()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, which `bodies` limits."""
        self._unfinished = 0
        super().on_body(body)

    def _is_free(self) -> bool:
        """Tell whether no request is under way."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._look_again)

    def _look_again(self) -> None:
        """Read what came while this loop was too busy to read, before a head counts as late."""
        self._head_timer = self.loop.call_later(LOOK_S, self._end, *_TOO_SLOW)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self, status: int, phrase: str, reason: str) -> None:
        """Read no more, say why if no other answer is under way, and close the connection."""
        self._forget_timer()
        if self._is_over or self.transport.is_closing():
            return
        self._is_over = True
        is_silent = status == _TOO_SLOW[0] and not self._unfinished
        if not is_silent:
            type(self).on_bad_request()
        if is_silent or not self._is_free():
            self.transport.close()
            return
        self.cycle = _Refused()  # type: ignore[assignment]  # all that uvicorn asks a cycle for
        self.transport.pause_reading()
        body = msgspec.json.encode({"error": reason, "field": None})
        head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self._linger()

    def _linger(self) -> None:
        """Close the connection in a moment."""
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    async def _dispatch(self, scope: Any, receive: Any, send: Any) -> None:
        # Bento's tracing, switched off, and its timeout cost more than a prediction: 57 us per request.
        application = self.direct.get(scope["path"])
        if application is None:
            await self._whole(scope, receive, send)
            return
        cycle: RequestResponseCycle = send.__self__
        if scope["method"] != "HEAD" and not cycle.waiting_for_100_continue:  # no body follows these heads
            cycle.transport = _Joined(self.transport)  # type: ignore[assignment]  # all that a cycle uses of it
        begun, self._begun = self._begun, None
        is_whole = scope["is_whole"] = not cycle.more_body
        await application(scope, receive, send)
        if begun is not None and is_whole:  # others wait for their caller too
            begun_s, under_way = begun
            self.gate.learn(time.perf_counter() - begun_s, under_way)

    def on_headers_complete(self) -> None:
        """Begin a request, or refuse it where the gate is full; one that follows an unanswered one always begins."""
        if self._is_over:
            return
        self._unfinished = 0
        self._forget_timer()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES_MAX:
            self._end(*_TOO_LONG)
            return
        gate: Gate = self.gate
        cycle: RequestResponseCycle | None = self.cycle
        is_free = self._is_free()
        # Before it becomes a task: refusing a parsed request costs a third of answering it.
        if is_free and gate.is_full(len(self.tasks), is_new=cycle is None) and self.parser.get_method() == b"POST":
            self.cycle = _Refused()  # type: ignore[assignment]  # all that uvicorn asks a cycle for
            gate.note_refused(self.url.partition(b"?")[0].decode("latin-1"))
            if self.parser.should_keep_alive() and not gate.is_draining:
                self.transport.write(_REFUSAL + b"\r\n" + _BUSY)
                self.on_response_complete()
            else:
                self.transport.write(_REFUSAL + b"connection: close\r\n\r\n" + _BUSY)
                self._linger()
            return
        super().on_headers_complete()
        self._begun = (time.perf_counter(), gate.count()) if is_free else None
        if gate.is_draining:
            self.cycle.keep_alive = False

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio reads a bool, uvicorn returns None
        """Keep the connection open for the answer to a complete request; otherwise the transport would close."""
        # asyncio's TLS has no half-closed connections.
        if self.scheme == "https" or self._is_free() or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Answer with 400 and count it."""
        type(self).on_bad_request()
        super().send_400_response(msg)


def install() -> None:
    """Make this process's server use `Protocol`. Call it before the server chooses: while the service loads."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:Protocol"


def server(application: Any, http: type[Protocol] = Protocol, **options: Any) -> uvicorn.Server:
    """Return a server of an application that writes no log and no headers of its own."""
    config = uvicorn.Config(
        application, http=http, access_log=False, log_config=None, proxy_headers=False, server_header=False, **options
    )
    return uvicorn.Server(config)
