"""A worker's runtime in this process, with a driver that calls it over ASGI."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from platform_assets.base import naming
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.middleware import PredictionMiddleware
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.follow.alive import Mark
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.follow.follower import Follower
from platform_assets.serving.log.prediction_log import PredictionLog
from platform_assets.serving.run.metrics import Metrics
from platform_assets.serving.run.runtime import Runtime
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.training.sealed import Sealed
from tests.doubles import models


def sealed(folder: Path, graph: bytes | None = None, **bundle: Any) -> Sealed:
    """Return a bundle as a service reads it, from a store in a folder."""
    store = ArtifactStore(str(folder))
    return Sealed.read(store, models.write_bundle(store, graph=graph, **bundle))


class Untried(Trial):
    """Tries nothing, because a process per bundle costs half a second; `test_candidate.py` has the tests of trials."""

    def __call__(self, sealed: Sealed) -> None:
        """Accept the bundle; loading and warming it in this process still has its deadline."""


class App:
    """The middleware in front of an application that answers 404, as Bento does for unknown paths."""

    def __init__(self, folder: Path, document: dict[str, Any] | None = None, **follower: Any) -> None:
        self.folder = folder
        self.store = ArtifactStore(str(folder / "store"))
        self.document = models.contract() if document is None else document
        self.fallback = ArtifactStore(str(folder / "fallback"))
        digest = models.write_bundle(self.fallback, bias=0.0, document=self.document)
        self.contract = Contract(self.document)
        self.chosen = {
            "fallback": self.fallback,
            "fallback_digest": digest,
            "pinned": None,
            "trial": Untried(60),
            **follower,
        }
        self.fallback_digest = self.chosen["fallback_digest"]
        self.log = PredictionLog(folder / "log")
        self.follow()

    def follow(self, **changes: Any) -> Follower:
        """Start again, like a replacement worker; return the new follower of releases."""
        self.follower = Follower(self.contract, str(self.folder / "store"), **{**self.chosen, **changes})
        self.runtime = Runtime(
            self.contract, self.follower, Predictor(self.log), Metrics(), Mark(self.folder / "alive"), poll_s=0.01
        )
        self.middleware = PredictionMiddleware(_not_found, make=lambda: self.runtime)
        return self.follower

    def change(self, **changes: Any) -> None:
        """Change parts of the runtime."""
        self.runtime = replace(self.runtime, **changes)
        self.middleware = PredictionMiddleware(_not_found, make=lambda: self.runtime)

    def call(
        self, method: str, path: str, body: bytes | Iterable[bytes] = b"", **headers: str
    ) -> tuple[int, dict, bytes]:
        """Return (status, headers, body); a body in parts arrives as such, without a Content-Length."""
        parts = [body] if isinstance(body, bytes) else list(body)
        return asyncio.run(self._call(method, path, parts, headers))

    def probe(self, path: str) -> tuple[int, bytes]:
        """Return (status, body) of a GET at the port of the probes."""
        page = self.middleware.probe_pages[path]()
        return page.status, page.body

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Return (status, document) of `/readyz` at the port of the probes."""
        status, body = self.probe("/readyz")
        return status, json.loads(body)

    def metrics(self) -> str:
        return self.probe("/metrics")[1].decode()

    @property
    def ledgers(self) -> Ledgers:
        return Ledgers(self.store.root, models.PRODUCT)

    def record(self, ledger: str, name: str | int) -> Path:
        """Return the path of a record, by its number or name."""
        name = f"{name:08d}" if isinstance(name, int) else name
        return Path(self.store.root, naming.ledger_path(models.PRODUCT, ledger), f"{name}.json")

    def release(self, **bundle: Any) -> str:
        """Write a bundle to the store and release it; return its digest."""
        digest = models.write_bundle(self.store, **bundle)
        models.release(self.store.root, digest)
        return digest

    def predict(self, body: Any) -> tuple[int, Any]:
        return asyncio.run(self.post(body))

    async def post(self, body: Any) -> tuple[int, Any]:
        """Return (status, answer), for requests that overlap."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, _, answer = await self._call("POST", "/predict", [data], {})
        return status, json.loads(answer)

    def predict_file(self, data: bytes, content_type: str = "image/png", **query: str) -> tuple[int, Any]:
        """Send a file, with the query of `models.image_row` changed as passed."""
        row = models.image_row()
        parameters = {name: row[name] for name in ("entity", "service_time", "asked_at")}
        path = "/predict?" + urlencode({**parameters, **query})
        status, _, answer = self.call("POST", path, data, content_type=content_type)
        return status, json.loads(answer)

    def records(self) -> list[dict[str, Any]]:
        paths = sorted((self.folder / "log").glob("*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]

    async def _call(
        self, method: str, path: str, parts: list[bytes], headers: dict[str, str]
    ) -> tuple[int, dict, bytes]:
        waiting = [
            {"type": "http.request", "body": part, "more_body": location < len(parts) - 1}
            for location, part in enumerate(parts)
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        location, _, query = path.partition("?")
        scope = {"type": "http", "method": method, "path": location, "query_string": query.encode(), "headers": raw}
        await self.middleware(scope, receive, send)
        received = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], received, b"".join(message["body"] for message in sent[1:])


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., App]:
    def make(document: dict[str, Any] | None = None, *, starts: bool = False, **follower: Any) -> App:
        """Return an app; one that starts serves its fallback."""
        app = App(tmp_path, document, **follower)
        if starts:
            app.follower.fall_back()
        return app

    return make


@pytest.fixture
def app(make: Callable[..., App]) -> App:
    """An app that serves its fallback: the tiny logistic with bias 0."""
    return make(starts=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})
