"""The client of the documentation: one key per request, one retry, the answer's id."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.doubles import models
from tests.doubles.client import client_of

pytestmark = pytest.mark.slow

GOOD = (200, {}, {"prediction_id": "p1", "probability": 0.5})


class Service(ThreadingHTTPServer):
    """Gives prepared answers in turn; None closes the connection after the request was read."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, dict[str, str], Any] | None] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.keys.append(self.headers.get("Authorization"))
        if (answer := self.server.answers.pop(0)) is None:
            return
        status, headers, document = answer
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


def predict(service: Service, *rows: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    with client_of(f"http://127.0.0.1:{service.server_port}", **options) as client:
        return [client.predict(row) for row in rows]


@pytest.mark.parametrize(
    "first",
    [
        None,
        (503, {}, {}),
        (429, {"Retry-After": "1"}, {}),
        (502, {}, {}),
        (503, {"Retry-After": "Sun, 29 Nov 2026 12:00:00 GMT"}, {}),
    ],
)
def test_a_request_without_an_answer_is_sent_once_more_with_its_key(
    service: Service, waits: list[float], first: Any
) -> None:
    service.answers = [first, GOOD]
    (answer,) = predict(service, models.row(), key="k")
    assert answer["prediction_id"] == "p1"
    one, other = service.asked
    assert one == other
    assert one["idempotency_key"]
    assert service.keys == ["Bearer k"] * 2
    least_s = 1.0 if first and first[1] else 0.0
    (wait_s,) = waits
    assert least_s + 0.05 <= wait_s <= least_s + 0.25


def test_each_request_gets_a_new_key_unless_the_caller_set_one(service: Service) -> None:
    service.answers = [GOOD] * 3
    predict(service, models.row(), models.row(), models.row(idempotency_key="mine"))
    keys = [row["idempotency_key"] for row in service.asked]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"
    assert service.keys == [None] * 3


def test_the_second_failure_is_the_last(service: Service, waits: list[float]) -> None:
    service.answers = [None, None]
    with pytest.raises(ConnectionError, match=r"no answer from http://127\.0\.0\.1"):
        predict(service, models.row())
    service.answers = [(503, {}, {}), (503, {}, {"error": "busy"})]
    with pytest.raises(ValueError, match=r"503: .*busy"):
        predict(service, models.row())
    assert (len(service.asked), len(waits)) == (4, 2)


@pytest.mark.parametrize(
    "answer",
    [(422, {}, {"error": "wrong"}), (401, {}, {"error": "who?"}), (429, {"Retry-After": "3000"}, {"error": "limit"})],
)
def test_what_a_retry_cannot_change_soon_is_not_retried(service: Service, waits: list[float], answer: Any) -> None:
    service.answers = [answer]
    with pytest.raises(ValueError, match=f"{answer[0]}: "):
        predict(service, models.row())
    assert (len(service.asked), waits) == (1, [])
