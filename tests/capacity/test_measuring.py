"""`driftline capacity` with a real service of a tiny model, and with services that cannot be measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from platform_assets import specs
from platform_assets.capacity import load
from platform_assets.capacity.load import Callers, Sent
from platform_assets.capacity.measuring import _step
from platform_assets.cli import main
from platform_assets.product.modelling import Service
from platform_assets.serving import build, run
from platform_assets.settings import Settings
from platform_assets.storage.artifacts import ArtifactStore
from platform_assets.storage.tables import TableStore
from tests.doubles import models
from tests.doubles.products.slow_batches import SPEC

REQUEST = models.row(idempotency_key="one and the same")
SLOW = Service(latency_ms=10_000)
PATIENCE_S = 60.0
"""Other work runs on these machines: no latency is asserted, and no caller gives up."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str]:
    """Return a store with a released model and its Bento, and the Bento's digest."""
    folder = tmp_path_factory.mktemp("capacity")
    settings = Settings.from_environment(
        {"DRIFTLINE_STATE": str(folder), "DRIFTLINE_SERVING_WAIT_S": str(PATIENCE_S)},
    )
    store = ArtifactStore(settings.root)
    digest = models.write_bundle(store)
    models.release(settings.root, digest)
    stored = build.stored(store, build.build(settings, store, digest))
    note(settings, stored=stored)
    return settings, stored


def note(settings: Settings, **changes: Any) -> None:
    """Record the service of the release, as its stage does."""
    notes = {"tag": "tiny:1", "asked_rows": 64, "max_apart": 0.0, "request": REQUEST, "cpu_s": 1.0, **changes}
    tables = TableStore(settings.root, models.PRODUCT)
    tables.record("service", "2013-03-01", content_digest="0", inputs={}, code="0", notes=notes)


@pytest.fixture
def asked(service: tuple[Settings, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The command's settings and product; the record of the service is as it was afterwards."""
    settings, stored = service
    product = replace(SPEC, name=models.PRODUCT, is_live=False, service=SLOW)
    monkeypatch.setattr(load, "GIVE_UP_S", PATIENCE_S)
    monkeypatch.setattr(specs, "load", {models.PRODUCT: product}.__getitem__)
    monkeypatch.setattr(Settings, "from_environment", lambda *_: settings)
    yield settings
    note(settings, stored=stored)


def test_a_replica_is_loaded_in_steps_and_pods_are_proposed(
    asked: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["capacity", models.PRODUCT, "--seconds", "1", "--peak-per-second", "300", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    measured, proposed = result["measured"], result["proposed"]
    assert measured["steps"][0]["failed"] == 0  # only at the lowest rate: at higher ones requests may be refused
    rates = [step["per_second"] for step in measured["steps"]]
    assert rates == sorted(rates) and rates[0] == pytest.approx(rates[-1] / 10)
    for step in measured["steps"]:
        assert step["sent"] == pytest.approx(step["per_second"], abs=1)
        # Each request was computed, none answered from memory, and no more than one core was used.
        assert 0.02 < step["cpu_ms"] < 50
        assert 0 < step["cores"] < 1.1
        assert 0 < step["p50_ms"] <= step["p99_ms"]
    assert measured["memory_bytes"] > 100 * 1024**2  # a parent and two workers
    assert "bound to core" in measured["machine"]
    assert proposed["replicas"] == 2 and proposed["replicas_max"] >= 2
    assert proposed["peak_per_second"] == 300
    assert f"one replica of {models.PRODUCT}:1 was ready after" in printed.err
    assert not list(asked.scratch.glob("capacity-*"))


def test_a_request_that_its_release_would_refuse_is_not_a_load(asked: Settings, service: Any, capsys: Any) -> None:
    note(asked, stored=service[1], request=models.row(features={"no_such": 1}))
    assert main(["capacity", models.PRODUCT, "--seconds", "1"]) == 1
    assert "answered 422 to the request of its release's smoke test; expected 200" in capsys.readouterr().err


def test_a_replica_that_is_never_ready_is_named_with_its_log(
    asked: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(run, "command", lambda *_: ["python", "-c", "print('no such thing'); raise SystemExit(3)"])
    assert main(["capacity", models.PRODUCT]) == 1
    error = capsys.readouterr().err
    assert f"the replica of {models.PRODUCT} was never ready" in error
    assert "no such thing" in error


def test_without_a_stored_bento_nothing_is_started(asked: Settings, capsys: Any) -> None:
    note(asked)
    assert main(["capacity", models.PRODUCT]) == 1
    assert "is not in the store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--peak-per-second", "0"], "--peak-per-second is 0; expected a number above 0"),
        (["--peak-per-second", "nan"], "--peak-per-second is nan; expected a number above 0"),
        (["--seconds", "-1"], "--seconds is -1; expected a number above 0"),
    ],
)
def test_odd_numbers_are_refused_before_anything_runs(
    asked: Settings, capsys: Any, arguments: list[str], sentence: str
) -> None:
    assert main(["capacity", models.PRODUCT, *arguments]) == 1
    assert sentence in capsys.readouterr().err


def test_an_unknown_product_and_one_without_a_release_are_named(settings: Settings, capsys: Any) -> None:
    assert main(["capacity", "nobody"]) == 1
    assert "nobody" in capsys.readouterr().err
    assert main(["capacity", "flight_delays"]) == 1
    assert "flight_delays has no release" in capsys.readouterr().err


# callers --------------------------------------------------------------------------------------------------------------


class Answering(asyncio.Protocol):
    """Answers each request so, in two parts, after a wait; without an answer it closes the connection."""

    transport: asyncio.Transport

    def __init__(self, answer: bytes, wait_s: float) -> None:
        self.answer, self.wait_s = answer, wait_s

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.answer:
            return self.transport.close()
        loop = asyncio.get_running_loop()
        loop.call_later(self.wait_s, self.transport.write, self.answer[:20])
        loop.call_later(self.wait_s + 0.001, self.transport.write, self.answer[20:])
        return None


def _sent(
    answer: bytes, rate: float, seconds: float, *, wait_s: float = 0.0, connections: list[Answering] | None = None
) -> list[Any]:
    def connect() -> Answering:
        connection = Answering(answer, wait_s)
        if connections is not None:
            connections.append(connection)
        return connection

    async def ask() -> list[Any]:
        listening = asyncio.get_running_loop().create_server(connect, run.HOST, 0)
        async with await listening as server:
            callers = Callers(run.HOST, server.sockets[0].getsockname()[1], b"{}")
            try:
                return await callers.at_rate(rate, seconds)
            finally:
                callers.close()
                await asyncio.sleep(0.05)  # the server's ends are closed

    return asyncio.run(ask())


def test_requests_are_sent_when_they_are_due_however_long_answers_take() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nyes!"
    connections = list[Answering]()
    sent = _sent(answer, rate=100, seconds=0.5, wait_s=0.3, connections=connections)
    assert [one.status for one in sent] == [200] * 50
    assert min(one.took_s for one in sent) >= 0.3
    assert len(connections) > 1, "one caller who waits for each answer needs one connection"


def test_other_answers_and_none_are_told_apart() -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}"
    assert {one.status for one in _sent(refusal, rate=50, seconds=0.2)} == {503}
    assert {one.status for one in _sent(b"", rate=50, seconds=0.2)} == {0}


def test_a_step_counts_what_failed_as_slow() -> None:
    sent = [Sent(200, 0.01)] * 98 + [Sent(503, 0.001)] * 2
    step = _step(50, sent, cpu_s=0.2, wall_s=2.0)
    assert (step.failed, step.p50_ms, step.p99_ms) == (2, 10.0, 5_000.0)
    assert (step.cores, step.cpu_ms) == (pytest.approx(0.1), pytest.approx(2.0))


def test_a_server_that_is_not_there_answers_nothing(tmp_path: Path) -> None:
    callers = Callers(run.HOST, run.free_port(), b"{}")
    assert [one.status for one in asyncio.run(callers.at_rate(10, 0.2))] == [0, 0]
