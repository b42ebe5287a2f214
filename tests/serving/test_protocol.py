"""A direct path's application is called without the layers around it, and its answer is one write."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from platform_assets.serving.run import protocol
from platform_assets.serving.run.protocol import Protocol

Application = Callable[[Any, Any, Any], Awaitable[None]]
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok", "more_body": False}


class Transport(asyncio.Transport):
    """Keeps what is written, one item per write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def resume_reading(self) -> None: ...

    def pause_reading(self) -> None: ...


async def answered(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(HEAD)
    await send(BODY)


def send_parts(direct: Application, *parts: bytes) -> tuple[Transport, list[Any]]:
    """Send parts of a request, and return what was written, and the scopes of the application around."""
    around: list[Any] = []

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        around.append(scope)
        await answered(scope, receive, send)

    async def live() -> Transport:
        Protocol.direct = {"/predict": direct}
        config = Config(whole, proxy_headers=False, interface="asgi3", log_config=None)
        config.load()
        protocol, transport = Protocol(config, ServerState(), {}, asyncio.get_running_loop()), Transport()
        protocol.connection_made(transport)
        for part in parts:
            if part:
                protocol.data_received(part)
            await asyncio.sleep(0.01)
        while protocol.tasks and not transport.is_closed:
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport

    return asyncio.run(live()), around


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    before = Protocol.direct
    yield
    Protocol.direct = before


def request(path: str = "/predict", method: str = "POST", length: int = 2) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("path", "calls"), [("/predict", 0), ("/readyz", 1), ("/predict/", 1)], ids=["direct", "other", "longer"]
)
def test_only_direct_paths_skip_the_layers(path: str, calls: int) -> None:
    transport, around = send_parts(answered, request(path) + b"{}")
    assert len(around) == calls
    assert b"".join(transport.written).endswith(b"\r\n\r\nok")
    assert len(transport.written) == 1 + calls, "a direct answer is one write"


def test_each_request_of_a_connection_gets_its_answer() -> None:
    transport, _ = send_parts(answered, (request() + b"{}") * 3)
    assert [data.endswith(b"\r\n\r\nok") for data in transport.written] == [True] * 3


def test_an_application_is_told_whether_the_body_has_arrived() -> None:
    received: list[bool] = []

    async def telling(scope: Any, receive: Any, send: Any) -> None:
        received.append(scope["is_whole"])
        await answered(scope, receive, send)

    send_parts(telling, request() + b"{}")
    send_parts(telling, request(), b"{", b"}")
    send_parts(telling, request() + b"{", b"}")
    assert received == [True, False, False]


def test_a_head_without_a_body_is_sent_when_the_connection_closes() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        raise RuntimeError("planted")

    transport, _ = send_parts(failing, request() + b"{}")
    assert transport.is_closed
    assert b"".join(transport.written).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_application_that_fails_is_answered_with_500() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("planted")

    transport, _ = send_parts(failing, request() + b"{}")
    assert b"".join(transport.written).startswith(b"HTTP/1.1 500 ")
    assert b"".join(transport.written).endswith(b"Internal Server Error")


def test_parts_of_an_answer_are_sent_as_they_come() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await send({**BODY, "body": b"o", "more_body": True})
        await send({**BODY, "body": b"k"})

    transport, _ = send_parts(slow, request() + b"{}")
    assert [data[-1:] for data in transport.written] == [b"o", b"k"]


def test_a_caller_who_waits_to_send_the_body_is_told_to_go_on() -> None:
    head = request().replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    transport, _ = send_parts(answered, head, b"{}")
    assert transport.written[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"".join(transport.written[1:]).endswith(b"\r\n\r\nok")


def test_the_head_of_an_answer_to_head_is_sent() -> None:
    async def head_only(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await send({**BODY, "body": b""})

    transport, _ = send_parts(head_only, request(method="HEAD", length=0))
    assert b"".join(transport.written).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_line_per_request_is_written_only_where_somebody_reads_it(
    caplog: pytest.LogCaptureFixture, level: int
) -> None:
    caplog.set_level(level, "uvicorn.access")
    send_parts(answered, request() + b"{}")
    assert len([record for record in caplog.records if record.name == "uvicorn.access"]) == (level == logging.INFO)


@pytest.mark.parametrize(
    "head",
    [
        request()[:-2] + b"x: " + b"x" * protocol.HEAD_BYTES_MAX + b"\r\n\r\n",
        request()[:-2] + b"x: y\r\n" * (protocol.HEAD_BYTES_MAX // 5) + b"\r\n",
        request("/" + "x" * protocol.HEAD_BYTES_MAX),
        request()[:-2] + b"x: " + b"x" * protocol.HEAD_BYTES_MAX,
    ],
    ids=["one header", "many headers", "path", "not ended"],
)
def test_a_head_that_is_too_long_is_refused_and_counted_once(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[None] = []
    monkeypatch.setattr(Protocol, "on_bad_request", staticmethod(lambda: counted.append(None)))
    transport, around = send_parts(answered, head, b"{}", request())
    (written,) = transport.written
    assert written.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n") and b"connection: close" in written
    assert (len(counted), around) == (1, [])


@pytest.mark.parametrize("frame", [b"0\r\nx: ", b"1;x="], ids=["trailer", "extension of a chunk"])
def test_what_frames_a_body_has_the_same_limit(frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[None] = []
    monkeypatch.setattr(Protocol, "on_bad_request", staticmethod(lambda: counted.append(None)))
    chunked = request().replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n"
    transport, _ = send_parts(answered, chunked + frame, b"x" * (protocol.HEAD_BYTES_MAX + 1), request())
    assert (transport.is_closed, transport.written, len(counted)) == (True, [], 1)


@pytest.mark.parametrize(
    ("first", "status"),
    [(b"", b""), (b"\r\n", b"HTTP/1.1 408 "), (b"P", b"HTTP/1.1 408 "), (request()[:-2] + b"x: ", b"HTTP/1.1 408 ")],
    ids=["nothing", "an empty line", "a letter", "a header that goes on"],
)
def test_a_head_that_does_not_end_in_time_ends_its_connection(
    first: bytes, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("HEAD_S", 0.05), ("LOOK_S", 0.01), ("LINGER_S", 0.0)):
        monkeypatch.setattr(protocol, name, seconds)
    trickled = [b"a" if first.startswith(b"POST") else b""] * 30
    transport, around = send_parts(answered, first, *trickled)
    assert transport.is_closed and around == []
    assert b"".join(transport.written).startswith(status) and bool(transport.written) == bool(status)


def test_a_long_body_and_a_long_head_within_the_limit_are_taken() -> None:
    length = 4 * protocol.HEAD_BYTES_MAX
    head = request(length=length)[:-2] + b"x: " + b"x" * (protocol.HEAD_BYTES_MAX - 1000) + b"\r\n\r\n"
    body = b"{" * length
    for parts in ([head + body + head], [head, body, head], [head + body[:9], body[9:], head]):
        transport, _ = send_parts(answered, *parts, body)
        assert [data.endswith(b"\r\n\r\nok") for data in transport.written] == [True] * 2


def test_a_request_that_came_while_the_loop_was_busy_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.001)
    transport, _ = send_parts(answered, request()[:9], request()[9:] + b"{}")
    assert transport.written[0].endswith(b"ok"), "the first part came 10 ms before the second"
