"""A real receiver of Alertmanager's notifications: an HTTP server that keeps them by the path they came to."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Notification:
    """What came at once.

    Attributes:
        receiver: the path, without its slash.
        at_s: as `time.time` counts.
        body: version 4 of Alertmanager's JSON.
    """

    receiver: str
    at_s: float
    body: dict[str, Any]

    @property
    def status(self) -> str:
        return str(self.body["status"])

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return list(self.body["alerts"])

    def names(self, status: str) -> set[str]:
        """Return the names of its alerts that fire, or of those that are resolved."""
        return {alert["labels"]["alertname"] for alert in self.alerts if alert["status"] == status}


@dataclass
class Webhook:
    """A receiver that answers.

    Attributes:
        address: its URL, to which a receiver's name is appended.
    """

    address: str
    notifications: list[Notification] = field(default_factory=list)

    def of(self, receiver: str) -> list[Notification]:
        return [item for item in self.notifications if item.receiver == receiver]


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[Webhook]:
    """Receive on a free port until the end of the context."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            webhook.notifications.append(Notification(self.path.strip("/"), time.time(), body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer((address, 0), Handler) as server:
        webhook = Webhook(f"http://{address}:{server.server_address[1]}/")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield webhook
        server.shutdown()
