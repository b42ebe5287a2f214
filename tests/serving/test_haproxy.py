"""The shipped haproxy configuration is valid, and holds back what it says it holds back, tried for real."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from platform_assets.serving.run.child import HOST
from tests.doubles import haproxy

pytestmark = pytest.mark.slow

WAIT_S = 600.0
BODY = b'{"a": 1}'


class Replica:
    """A stand-in for a service: answers what it is told, and says what it was asked."""

    def __init__(self) -> None:
        self.is_ready, self.status, self.takes_s = True, 200, 0.0
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.most = self._now = 0
        self._lock = threading.Lock()
        self.servers = [self._start(self._predict, self._other), self._start(self._other, self._probe)]
        self.port, self.probes = (server.server_port for server in self.servers)

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def _start(self, post: Any, get: Any) -> ThreadingHTTPServer:
        kind = type(
            "Handler",
            (BaseHTTPRequestHandler,),
            {"do_POST": post, "do_GET": get, "protocol_version": "HTTP/1.1", "log_message": lambda *_: None},
        )
        server = ThreadingHTTPServer((HOST, 0), kind)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    @property
    def _predict(self) -> Any:
        def predict(handler: BaseHTTPRequestHandler) -> None:
            body = handler.rfile.read(int(handler.headers["Content-Length"]))
            with self._lock:
                self.asked.append(({name.lower(): value for name, value in handler.headers.items()}, body))
                self._now += 1
                self.most = max(self.most, self._now)
            time.sleep(self.takes_s)
            with self._lock:
                self._now -= 1
            _send(handler, self.status)

        return predict

    @property
    def _probe(self) -> Any:
        return lambda handler: _send(handler, 200 if self.is_ready and handler.path == "/readyz" else 503)

    @property
    def _other(self) -> Any:
        return lambda handler: _send(handler, 404)


def _send(handler: BaseHTTPRequestHandler, status: int) -> None:
    handler.send_response(status)
    handler.send_header("content-length", "2")
    handler.end_headers()
    handler.wfile.write(b"ok")


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    both = [Replica(), Replica()]
    yield both
    for replica in both:
        replica.close()


@contextlib.contextmanager
def proxy(replicas: list[Replica], folder: Path, **more: str) -> Iterator[int]:
    ports = [(replica.port, replica.probes) for replica in replicas]
    with haproxy.running(ports, folder / "haproxy.log", more) as (port, _):
        yield port


def ask(port: int, body: bytes = BODY, **headers: str) -> tuple[int, dict[str, str], bytes]:
    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=WAIT_S)) as connection:
        connection.request("POST", "/predict", body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def raw(port: int, sent: bytes) -> bytes:
    with socket.create_connection((HOST, port), timeout=WAIT_S) as connection:
        connection.sendall(sent)
        return connection.recv(65_536)


def checked(names: dict[str, str]) -> tuple[int, str]:
    """Return status and output of haproxy's own check of the configuration with these variables."""
    command = [haproxy.program(), "-c", "-f", str(haproxy.FILE)]
    ended = subprocess.run(command, env={**os.environ, **names}, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


ONE_NAME = {"DRIFTLINE_REPLICAS": "replicas.driftline.svc.cluster.local:3000", "DRIFTLINE_PROBES_PORT_1": "3000"}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_the_configuration_is_valid(count: int) -> None:
    ports = [(3000 + 10 * number, 3001 + 10 * number) for number in range(count)]
    assert checked(haproxy.variables(ports) if ports else ONE_NAME) == (0, "")


def test_a_configuration_without_replicas_is_refused_by_name() -> None:
    status, message = checked({})
    assert status != 0
    assert "DRIFTLINE_REPLICA_1 is not set; expected HOST:PORT of a replica" in message


def test_requests_go_to_replicas_that_are_ready(replicas: list[Replica], tmp_path: Path) -> None:
    with proxy(replicas, tmp_path) as port:
        assert {ask(port)[0] for _ in range(20)} == {200}
        assert all(replica.asked for replica in replicas)
        replicas[0].is_ready = False
        deadline = time.monotonic() + WAIT_S
        while True:
            before = len(replicas[0].asked)
            assert {ask(port)[0] for _ in range(20)} == {200}
            if len(replicas[0].asked) == before:
                break
            assert time.monotonic() < deadline, "a replica that is not ready still gets requests"
            time.sleep(0.1)


def test_a_request_is_repeated_at_another_replica(replicas: list[Replica], tmp_path: Path) -> None:
    replicas[0].status = 503
    with proxy(replicas, tmp_path) as port:
        assert {ask(port)[0] for _ in range(20)} == {200}
        assert replicas[0].asked
        replicas[0].close()
        assert {ask(port)[0] for _ in range(20)} == {200}


def test_ids_and_keys_pass(replicas: list[Replica], tmp_path: Path) -> None:
    with proxy(replicas[:1], tmp_path) as port:
        ask(port, Authorization="Bearer k", X_Request_ID="r1")
    ((headers, body),) = replicas[0].asked
    assert (headers["authorization"], headers["x-request-id"], body) == ("Bearer k", "r1", BODY)


def test_a_slow_head_or_body_reaches_no_replica(replicas: list[Replica], tmp_path: Path) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    with proxy(replicas, tmp_path) as port:
        slow = [socket.create_connection((HOST, port), timeout=WAIT_S) for _ in range(60)]
        for number, connection in enumerate(slow):
            connection.sendall(head if number % 2 else head + b"\r\n{")
        assert ask(port)[0] == 200, "others are answered meanwhile"
        for connection in slow:
            answered = connection.recv(4096)
            assert answered.startswith(b"HTTP/1.1 408")
            connection.close()
    assert sum(len(replica.asked) for replica in replicas) == 1


def test_large_and_many_headers_reach_no_replica(replicas: list[Replica], tmp_path: Path) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    with proxy(replicas, tmp_path) as port:
        for more in (b"X-Large: " + b"x" * 20_000, b"\r\n".join(b"X-%d: 1" % number for number in range(100))):
            status = raw(port, head + more + b"\r\n\r\n{}").split(b" ")[1]
            assert status in (b"400", b"431")
        assert raw(port, b"POST /" + b"p" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n").split(b" ")[1] in (b"400", b"414")
    assert sum(len(replica.asked) for replica in replicas) == 0


def test_connections_per_address_are_limited(replicas: list[Replica], tmp_path: Path) -> None:
    with proxy(replicas, tmp_path, DRIFTLINE_CONNECTIONS="10") as port:
        with contextlib.ExitStack() as idle:
            for _ in range(10):
                idle.enter_context(contextlib.closing(answered_connection(port)))
            with pytest.raises((OSError, http.client.HTTPException)):
                ask(port)
        answered_connection(port).close()


def answered_connection(port: int) -> http.client.HTTPConnection:
    """Return an open connection that haproxy has counted: one that was only opened may still wait to be accepted.

    Tries again while one that was just closed is still counted.
    """
    deadline = time.monotonic() + WAIT_S
    while True:
        connection = http.client.HTTPConnection(HOST, port, timeout=WAIT_S)
        try:
            connection.request("POST", "/predict", BODY)
            assert connection.getresponse().read() == b"ok"
            return connection
        except (OSError, http.client.HTTPException):
            connection.close()
            if time.monotonic() > deadline:
                raise


def test_requests_per_address_and_second_are_limited(replicas: list[Replica], tmp_path: Path) -> None:
    with proxy(replicas, tmp_path, DRIFTLINE_REQUESTS_PER_S="2") as port:
        answers = [ask(port) for _ in range(60)]
        refused = [answer for answer in answers if answer[0] == 429]
        assert refused and {answer[0] for answer in answers} == {200, 429}
        _, headers, body = refused[0]
        assert (headers["retry-after"], headers["content-type"]) == ("1", "application/json")
        assert "too many requests from this address" in json.loads(body)["error"]
    assert sum(len(replica.asked) for replica in replicas) == 60 - len(refused)


def test_requests_per_key_and_second_are_limited_whatever_others_ask(replicas: list[Replica], tmp_path: Path) -> None:
    with proxy(replicas, tmp_path, DRIFTLINE_KEY_REQUESTS_PER_S="2") as port:
        answers = [ask(port, Authorization="Bearer a")[0] for _ in range(60)]
        others = [ask(port, Authorization="Bearer b")[0], *(ask(port)[0] for _ in range(20))]
    assert set(answers) == {200, 429}
    assert set(others) == {200}


def test_beyond_what_a_replica_can_do_at_once_callers_wait_for_a_moment(
    replicas: list[Replica], tmp_path: Path
) -> None:
    replicas[0].takes_s = 0.5
    answers: list[tuple[int, dict[str, str], bytes]] = []
    with proxy(replicas[:1], tmp_path, DRIFTLINE_AT_ONCE="2") as port:
        threads = [threading.Thread(target=lambda: answers.append(ask(port))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    statuses = [answer[0] for answer in answers]
    assert set(statuses) == {200, 503}
    assert replicas[0].most == 2
    refused = next(answer for answer in answers if answer[0] == 503)
    assert refused[1]["retry-after"] == "1"
    assert "too many requests are under way" in json.loads(refused[2])["error"]
