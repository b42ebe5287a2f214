"""An alert is recorded once, reaches a real receiver at least once, and never shows the receiver's address."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.alerting import AlertsResource, Delivery, episode_id
from platform_assets.automation.sensors import alerts
from platform_assets.base import naming
from platform_assets.base.settings import Settings, SettingsProblem
from tests.doubles import recorded

AT = datetime(2020, 1, 8, tzinfo=UTC)
SECRET = "s3cr3t-token"


class Receiver:
    """An HTTP server that keeps the requests it receives."""

    def __init__(self) -> None:
        self.status = 200
        self.received: list[tuple[dict[str, Any], str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if outer.status == 200:
                    outer.received.append((body, self.headers["Idempotency-Key"]))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hooks/{SECRET}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return alerts.watch.build([recorded.SPEC])


def raise_alert(alert_id: str = "fault-1", product: str = "recorded") -> bool:
    return AlertsResource().record(product, alert_id, kind="fault", text="it broke", at=AT, details={"rows": 0})


def test_an_alert_reaches_the_receiver_once_with_its_id(
    world: Any, sensor: dg.SensorDefinition, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", receiver.address)
    assert [raise_alert(), raise_alert()] == [True, False]
    assert "fault-1 sent (receiver answered 200)" in world.reason(sensor)
    assert "no alert is waiting" in world.reason(sensor)
    ((body, key),) = receiver.received
    assert key == "recorded/fault-1"
    assert body == world.ledgers.read(naming.ALERTS, "fault-1")
    assert (body["id"], body["kind"], body["details"]) == ("fault-1", "fault", {"rows": 0})
    world.cursors.clear()
    assert "was delivered before" in world.reason(sensor)
    assert len(receiver.received) == 1


def test_a_receiver_that_was_down_gets_it_later_and_in_order(
    world: Any, sensor: dg.SensorDefinition, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", receiver.address)
    monkeypatch.setattr(alerts, "PAUSES", (0, 1))
    receiver.status = 503
    raise_alert("first")
    raise_alert("second")
    assert "first not delivered (receiver answered 503)" in world.reason(sensor)
    assert "first not delivered" in world.reason(sensor)
    assert "next try after 1 tick" in world.reason(sensor)
    receiver.status = 200
    world.reason(sensor)
    assert [body["id"] for body, _ in receiver.received] == ["first", "second"]


def test_a_missing_receiver_is_waited_for_and_a_refusal_is_not_repeated(
    world: Any, sensor: dg.SensorDefinition, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", f"http://127.0.0.1:9/{SECRET}")
    raise_alert("first")
    assert "first not delivered (receiver: ConnectError)" in world.reason(sensor)
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", receiver.address)
    receiver.status = 400
    assert "first refused (receiver answered 400)" in world.reason(sensor)
    receiver.status = 200
    world.cursors.clear()
    world.reason(sensor)
    assert receiver.received == []


def test_without_a_webhook_the_alert_is_recorded_and_logged(world: Any, sensor: dg.SensorDefinition) -> None:
    raise_alert()
    assert "recorded only: DRIFTLINE_ALERT_WEBHOOK is not set" in world.reason(sensor)
    assert "no alert is waiting" in world.reason(sensor)
    assert [alert["id"] for alert in world.alerts()] == ["fault-1"]


def test_an_alert_recorded_but_not_queued_when_killed_is_queued_later(world: Any) -> None:
    record = {"id": "lost", "product": "recorded", "kind": "fault", "text": "x", "at_utc": "", "details": {}}
    world.ledgers.create(naming.ALERTS, "lost", record)
    assert raise_alert("lost") is False
    assert raise_alert("lost") is False
    assert [item["id"] for _, item in world.ledgers.records(naming.ALERT_QUEUE)] == ["lost"]


def test_the_address_appears_nowhere(
    world: Any,
    sensor: dg.SensorDefinition,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    outputs = []
    for number, address in enumerate(
        (receiver.address, f"http://127.0.0.1:9/{SECRET}", f"http://127.0.0.1:bad/{SECRET}")
    ):
        monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", address)
        settings = Settings.from_environment()
        assert settings.alert_webhook.get_secret_value() == address
        outputs += [repr(settings), str(settings), settings.model_dump_json(), str(settings.to_environment())]
        assert settings.child_environment()["DRIFTLINE_ALERT_WEBHOOK"] == address
        raise_alert(f"alert-{number}")
        outputs.append(world.reason(sensor))
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", f"ftp://{SECRET}")
    with pytest.raises(SettingsProblem, match="DRIFTLINE_ALERT_WEBHOOK is not an http or https address") as problem:
        Settings.from_environment()
    outputs += [str(problem.value), caplog.text, str(world.alerts())]
    assert [text for text in outputs if SECRET in text] == []


def test_ids_name_the_episode_and_are_valid_ledger_keys() -> None:
    assert episode_id("fault", "2013-03-09", "weather", "frozen_columns") == "fault-2013-03-09-weather-frozen_columns"
    odd, other = episode_id("fault", "frozen columns"), episode_id("fault", "frozen/columns")
    assert odd != other and odd.startswith("fault-frozen_columns-")
    assert len(episode_id("x" * 500)) <= 120
    assert episode_id("/").startswith("alert-")


@pytest.mark.parametrize(
    ("outcomes", "done", "failures", "pause"),
    [
        (["empty"], 4, 0, 0),
        (["sent", "refused", "recorded", "empty"], 7, 0, 0),
        (["sent", "unreachable"], 5, 1, 0),
        (["unreachable"], 4, 3, 2),
    ],
)
def test_the_queue_is_processed_in_order(outcomes: list[Any], done: int, failures: int, pause: int) -> None:
    deliveries = [Delivery(outcome=outcome, alert_id="a", message="b") for outcome in outcomes]
    before = 2 if outcomes == ["unreachable"] else 0
    result = alerts.plan(deliveries, done=4, failures=before)
    assert result.state == alerts.State(done=done, failures=failures, pause=pause)
