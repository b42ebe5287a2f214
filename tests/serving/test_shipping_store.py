"""The log reaches a real S3 server, also one that breaks, delays and repeats, or that refuses what segments need."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import received
from tests.doubles import s3_server as s3
from tests.doubles.faulty_s3 import Faults, in_front_of
from tests.doubles.s3_server import S3Server
from tests.serving.test_shipping import PRODUCT, Process, line

pytestmark = pytest.mark.slow

BUCKET = "driftline-shipping"


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[Faults]:
    s3_server.make_bucket(BUCKET)
    with in_front_of(s3_server.endpoint) as faults:
        yield faults


@pytest.fixture
def faults(proxy: Faults) -> Faults:
    proxy.clear()
    return proxy


@pytest.fixture
def process(s3_server: S3Server, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    for name, value in s3_server.environment(faults.endpoint).items():
        monkeypatch.setenv(name, value)
    return Process(tmp_path / "log" / PRODUCT, f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.mark.parametrize(
    "fault",
    [
        {"answer": 0, "times": 2},
        {"answer": 0, "is_done": True},
        {"answer": 503, "times": 3},
        {"answer": 500, "is_done": True, "times": 2},
        {"answer": 409, "is_done": False},
        {"answer": None, "delay_s": 1.0},
        {"answer": None, "repeats": 1},
        {"answer": 0, "is_done": True, "repeats": 2},
    ],
)
def test_a_store_that_breaks_delays_and_repeats_receives_every_line_once(
    process: Process, faults: Faults, fault: dict[str, Any]
) -> None:
    process.shipper.look()
    for number in range(5):
        process.log.append(line(number))
        faults.add("PUT", ".segment", **fault)
        for _ in range(10):
            process.shipper.look()
            if not process.shipper.figures.unshipped_bytes:
                break
    assert process.shipper.problem is None
    assert len(faults.met) >= 5
    assert process.lines() == [line(number) for number in range(5)]


def test_a_store_that_refuses_create_only_is_named(process: Process, faults: Faults) -> None:
    process.log.append(line(0))
    faults.add("PUT", ".segment", answer=501, times=1000)
    process.shipper.look()
    assert "the store does not support creating an object only if it is absent, which segments need" in str(
        process.shipper.problem
    )
    process.log.append(line(1))
    faults.clear()
    process.shipper.look()
    assert process.lines() == [line(0), line(1)]


def test_a_bucket_that_the_service_may_only_read_is_named(
    process: Process, s3_server: S3Server, faults: Faults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = s3_server.environment(faults.endpoint, s3.READER)
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        process.log.append(line(0))
        process.shipper.look()
        assert f"s3://{BUCKET} refuses our key (AccessDenied)" in str(process.shipper.problem)
        process.log.append(line(1))
        process.shipper.look()
    assert received.read(process.root, PRODUCT) == []
    process.shipper._sender._store = None  # as after a restart with another key
    process.shipper.look()
    assert process.lines() == [line(0), line(1)]


@pytest.mark.parametrize("shift_s", [60.0, -600.0, 5.0])
def test_a_clock_that_differs_from_the_stores_is_measured_and_named(
    process: Process, faults: Faults, shift_s: float
) -> None:
    faults.clock_shift_s = shift_s
    process.log.append(line(0))
    began_s = time.monotonic()
    process.shipper.look()
    inexact_s = 2.0 + time.monotonic() - began_s  # the store's clock shows whole seconds, and is read meanwhile
    assert process.shipper.figures.clock_offset_s == pytest.approx(shift_s, abs=inexact_s)
    hello, answers = received.read(process.root, PRODUCT)
    assert answers.header.clock_offset_s == process.shipper.figures.clock_offset_s
    for segment in (hello, answers):
        sent_s = segment.header.sent_at_utc.timestamp()
        assert segment.name.shipped_ms / 1000 - sent_s == pytest.approx(shift_s, abs=inexact_s), (
            "named by the store's time"
        )
    problem = process.shipper.problem
    if abs(shift_s) > 30:
        side = "behind" if shift_s > 0 else "ahead of"
        assert f"s {side} the store's; expected at most 30 s" in str(problem)
        assert "repair the time service" in str(problem)
    else:
        assert problem is None


def test_a_clock_that_starts_to_differ_is_noticed_by_a_heartbeat(faults: Faults, process: Process) -> None:
    process.start(heartbeat_s=0.1)
    process.shipper.look()
    assert process.shipper.problem is None
    faults.clock_shift_s = 600.0
    time.sleep(0.15)
    process.shipper.look()
    assert "this machine's clock is" in str(process.shipper.problem)


def test_the_requests_of_an_idle_and_a_busy_process_are_counted(process: Process, faults: Faults) -> None:
    process.shipper.look()
    assert process.shipper.figures.requests == {"put": 2, "head": 1, "list": 1, "get": 0}
    for number in range(3):
        process.log.append(line(number))
        process.shipper.look()
    assert process.shipper.figures.requests == {"put": 5, "head": 1, "list": 1, "get": 0}
    sent = [(method, path) for method, path in faults.requests if "prediction_log" in path]
    assert [method for method, _ in sent] == ["PUT", "HEAD", "GET", "PUT", "PUT", "PUT", "PUT"]
