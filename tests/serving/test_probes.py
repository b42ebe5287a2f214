"""Probes and metrics have a port of their own."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from platform_assets.serving.run import listening as ports
from platform_assets.serving.run import protocol
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
    assert ask(port, "POST", "/healthz")[0] == 405
    assert ask(port, "GET", "/predict")[0] == 404


def test_heads_that_are_slow_or_long_are_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    with ExitStack() as opened:
        held = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(48)]
        assert ask(port, "GET", "/healthz")[0] == 200, "they take no place from the kubelet"
        assert [connection.recv(1) for connection in held] == [b""] * 48
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 2 * protocol.HEAD_BYTES_MAX)
        assert connection.recv(16).split()[1] == b"431"


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


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_does_not_exist_is_named(port: int) -> None:
    with pytest.raises(ports.PortProblem, match=rf"port {port} of 127\.0\.0\.1 cannot be used: .*0-65535"):
        ports.bound("127.0.0.1", port)
