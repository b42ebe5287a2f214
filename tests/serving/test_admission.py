"""Beyond the limit a request is refused before it begins, and the connection stays usable."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from platform_assets.serving.answer.admission import Gate
from platform_assets.serving.run.protocol import Protocol

BODY = b"{}"
ASK = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n" + BODY
CLOSES = ASK.replace(b"Host", b"Connection: close\r\nHost")


@pytest.mark.parametrize(
    ("tasks", "unread", "waiting", "is_new", "is_full"),
    [
        (3, 0, 0, True, False),
        (4, 0, 0, False, True),
        (9, 6, 0, True, False),
        (2, 0, 2, True, True),
        (2, 0, 200, False, False),
    ],
)
def test_a_gate_counts_what_is_under_way(tasks: int, unread: int, waiting: int, is_new: bool, is_full: bool) -> None:
    gate = Gate(4)
    gate.unread, gate.waiting = unread, lambda: waiting
    assert gate.is_full(tasks, is_new=is_new) is is_full


@pytest.mark.parametrize(
    ("service_s", "under_way", "limit"),
    [
        (0.0005, 1, 256),
        (0.0005, 200, 256),
        (0.005, 8, 100),
        (0.018, 1, 27),
        (0.018, 30, 27),
        (0.2, 3, 4),
    ],
)
def test_the_limit_is_as_many_requests_as_are_answered_within_the_wait(
    service_s: float, under_way: int, limit: int
) -> None:
    gate = Gate(256, wait_s=0.5)
    for _ in range(300):
        gate.learn(under_way * service_s, under_way)
    assert gate.limit == pytest.approx(limit, abs=1)


def test_the_limit_follows_what_answers_take() -> None:
    gate = Gate(256, wait_s=0.5)
    gate.learn(5.0, 1)  # one stall
    assert gate.limit == 4
    for _ in range(1_000):
        gate.learn(0.002, 2)
    assert gate.limit == 256
    for _ in range(200):
        gate.learn(0.5, 5)
    assert gate.limit in (5, 6)
    assert gate.is_full(6, is_new=False)


def test_a_small_limit_is_not_lowered_and_without_a_wait_the_limit_is_fixed() -> None:
    small, waiting = Gate(2, wait_s=0.5), Gate(256)
    for gate in (small, waiting):
        gate.learn(9.0, 1)
    assert (small.limit, waiting.limit) == (2, 256)


class Service:
    """An application that answers when it is told to, behind our protocol on a real socket."""

    def __init__(self, port: int, gate: Gate) -> None:
        self.port, self.gate, self.begun, self.may_answer = port, gate, 0, asyncio.Event()
        self.clients: list[asyncio.StreamWriter] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        while (await receive())["more_body"]:
            pass
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(limit: int, refused: list[str]) -> AsyncIterator[Service]:
    gate = Gate(limit)
    gate.note_refused = refused.append
    service = Service(0, gate)
    kind = type("OneGate", (Protocol,), {"gate": gate, "direct": {"/predict": service}})
    config = uvicorn.Config(service, log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    yield service
    server.close()
    service.may_answer.set()
    for writer in service.clients:
        writer.transport.abort()
    async with asyncio.timeout(30):
        while state.connections or state.tasks:
            await asyncio.sleep(0.01)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def run_play(play: Callable[[Service, list[str]], Any], limit: int = 2) -> None:
    async def run() -> None:
        refused: list[str] = []
        async with serving(limit, refused) as service:
            await play(service, refused)

    asyncio.run(run())


async def connected(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    service.clients.append(writer)
    return reader, writer


async def _wait_until_begun(service: Service, count: int) -> None:
    async with asyncio.timeout(30):
        while service.begun < count:
            await asyncio.sleep(0.01)


async def filled(service: Service) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Return two connections with a request under way: as many as the service takes."""
    held = [await connected(service) for _ in range(2)]
    for _, writer in held:
        writer.write(ASK)
    await _wait_until_begun(service, 2)
    return held


def test_a_request_too_many_is_refused_and_may_be_repeated_on_its_connection() -> None:
    async def play(service: Service, refused: list[str]) -> None:
        held = await filled(service)
        reader, writer = await connected(service)
        for _ in range(3):
            writer.write(ASK)
            status, headers, body = await answer(reader)
            assert (status, headers["retry-after"], "connection" in headers) == (503, "1", False)
            assert "too many requests" in json.loads(body)["error"]
        assert (service.begun, refused) == (2, ["/predict"] * 3)
        service.may_answer.set()
        assert [(await answer(reader))[0] for reader, _ in held] == [200, 200]
        writer.write(ASK)
        assert (await answer(reader))[0] == 200

    run_play(play)


def test_a_long_body_of_a_refused_request_is_ignored() -> None:
    async def play(service: Service, refused: list[str]) -> None:
        await filled(service)
        reader, writer = await connected(service)
        writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert (await answer(reader))[0] == 503
        writer.write(b"x" * 1_000_000)
        await writer.drain()
        service.may_answer.set()
        writer.write(ASK)
        assert (await answer(reader))[0] == 200
        assert service.begun == 3

    run_play(play)


def test_a_refused_caller_who_closes_gets_the_answer_whole() -> None:
    async def play(service: Service, refused: list[str]) -> None:
        await filled(service)
        reader, writer = await connected(service)
        writer.write(CLOSES[:-1])  # the last byte of the body never comes
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (503, "close")
        assert await reader.read() == b""

    run_play(play)


def test_answers_teach_the_limit_and_slow_senders_do_not() -> None:
    learnt: list[tuple[float, int]] = []

    async def play(service: Service, refused: list[str]) -> None:
        service.gate.learn = lambda took_s, under_way: learnt.append((took_s, under_way))  # type: ignore[method-assign]
        whole = [await connected(service) for _ in range(2)]
        for count, (_, writer) in enumerate(whole, start=1):
            writer.write(ASK)
            await _wait_until_begun(service, count)
        slow = await connected(service)
        slow[1].write(ASK[:-1])
        await _wait_until_begun(service, 3)
        await asyncio.sleep(0.02)
        slow[1].write(ASK[-1:])
        service.may_answer.set()
        for reader, _ in (*whole, slow):
            assert (await answer(reader))[0] == 200

    run_play(play, limit=9)
    assert sorted(under_way for _, under_way in learnt) == [1, 2]
    assert all(took_s >= 0.02 for took_s, _ in learnt)


def test_bodies_that_do_not_arrive_take_no_place() -> None:
    async def play(service: Service, refused: list[str]) -> None:
        service.gate.unread = 50  # as `bodies.read` counts them
        for _ in range(50):
            (await connected(service))[1].write(ASK[:-1])
        await _wait_until_begun(service, 50)
        service.may_answer.set()
        reader, writer = await connected(service)
        writer.write(ASK)
        assert (await answer(reader))[0] == 200

    run_play(play)


def test_only_what_costs_is_refused_and_never_out_of_order() -> None:
    async def play(service: Service, refused: list[str]) -> None:
        reader, writer = await connected(service)
        writer.write(ASK + ASK)  # the second one follows an unanswered one
        await _wait_until_begun(service, 1)
        (await connected(service))[1].write(ASK)
        await _wait_until_begun(service, 2)
        other, pages = await connected(service)
        pages.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        await _wait_until_begun(service, 3)
        service.may_answer.set()
        assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]
        assert (await answer(other))[0] == 200
        assert refused == []

    run_play(play)


def test_a_service_that_ends_closes_connections_with_its_answers() -> None:
    async def play(service: Service, refused: list[str]) -> None:
        service.may_answer.set()
        reader, writer = await connected(service)
        writer.write(ASK)
        assert "connection" not in (await answer(reader))[1]
        service.gate.is_draining = True
        writer.write(ASK)
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""

    run_play(play)
