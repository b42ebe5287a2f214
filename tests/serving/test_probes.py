"""Probes and metrics have a port of their own."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from platform_assets.serving.run import probes
from platform_assets.serving.run.probes import Page, Probes

PAGES = {"/healthz": lambda: Page(200, b'{"is_alive":true}', b"application/json")}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def port(listening: socket.socket) -> Iterator[int]:
    served = Probes(listening.dup(), PAGES)
    served.start()
    yield listening.getsockname()[1]
    served.stop()


def ask(port: int, method: str, path: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_pages_are_served_by_get_and_head(port: int) -> None:
    assert ask(port, "GET", "/healthz") == (200, b'{"is_alive":true}')
    assert ask(port, "GET", "/healthz?verbose") == (200, b'{"is_alive":true}')
    assert ask(port, "HEAD", "/healthz") == (200, b"")
    assert ask(port, "POST", "/healthz")[0] == 501
    assert ask(port, "GET", "/predict") == (404, b"the paths are /healthz.\n")


def test_heads_that_trickle_or_are_long_leave_room_for_the_kubelet(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes._Handler, "timeout", 0.5)
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(probes.AT_ONCE)]
    until = time.monotonic() + 10
    while held and time.monotonic() < until:
        held = [connection for connection in held if not _is_closed(connection, b"G")]
        time.sleep(0.05)
    assert held == []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        until = time.monotonic() + 10
        while not _is_closed(connection, b"x: " + b"y" * 10_000 + b"\r\n"):
            assert time.monotonic() < until
    assert ask(port, "GET", "/healthz")[0] == 200


def _is_closed(connection: socket.socket, part: bytes) -> bool:
    connection.setblocking(False)
    try:
        connection.send(part)
        is_closed = connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        is_closed = True
    if is_closed:
        connection.close()
    return is_closed


def test_idle_connections_take_only_their_share(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes._Handler, "timeout", 0.5)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * probes.AT_ONCE)]
    closed = [connection.recv(1) for connection in idle]
    assert closed == [b""] * len(idle), "those beyond the limit at once, the others when their time is over"
    assert ask(port, "GET", "/healthz")[0] == 200
    for connection in idle:
        connection.close()


def test_a_blocked_loop_delays_no_probe(app: Any, listening: socket.socket) -> None:
    app.change(probes=listening.dup())

    async def live() -> tuple[int, bytes]:
        await app.middleware.start()
        answers = []
        asking = asyncio.to_thread(lambda: answers.append(ask(listening.getsockname()[1], "GET", "/readyz")))
        task = asyncio.create_task(asking)
        await asyncio.sleep(0)
        while not answers:  # the loop gets no turn until there is an answer
            time.sleep(0.01)
        await task
        await app.middleware.stop()
        return answers[0]

    status, body = asyncio.run(live())
    assert (status, json.loads(body)["is_ready"]) == (200, True)


def test_a_service_is_not_alive_while_its_loop_hangs(app: Any) -> None:
    assert app.probe("/healthz")[0] == 200, "it has not started"
    app.runtime.metrics.turn_s = time.monotonic() - 5.0
    assert app.probe("/healthz")[0] == 200
    app.runtime.metrics.turn_s = time.monotonic() - 11.0
    status, body = app.probe("/healthz")
    assert (status, json.loads(body)["problem"]) == (503, "the event loop has had no turn for more than 10 s.")


def test_a_service_that_ends_is_not_ready(app: Any) -> None:
    app.runtime.gate.is_draining = True
    status, body = app.probe("/readyz")
    assert status == 503
    assert "the service was asked to end" in json.loads(body)["problem"]
    assert app.probe("/healthz")[0] == 200
    assert app.predict({"not": "a row"})[0] == 422, "it still answers"
