"""An alert and its end are recorded once, reach a real webhook at least once, and never show its address."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.alerting import AlertsResource, episode_id
from platform_assets.automation.receivers.api import Delivery
from platform_assets.automation.sensors import alerts
from platform_assets.base import naming
from platform_assets.base.settings import Settings, SettingsProblem
from tests.doubles import recorded, webhook_server
from tests.doubles.webhook_server import SECRET, WebhookServer

AT = datetime(2020, 1, 8, tzinfo=UTC)


@pytest.fixture
def receiver() -> Iterator[WebhookServer]:
    with webhook_server.running() as server:
        yield server


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return alerts.watch.build([recorded.SPEC])


def raise_alert(alert_id: str = "fault-1", product: str = "recorded") -> bool:
    return AlertsResource().record(product, alert_id, kind="fault", text="it broke", at=AT, details={"rows": 0})


def test_an_alert_reaches_the_receiver_once_with_its_id(
    world: Any, sensor: dg.SensorDefinition, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", receiver.address)
    assert [raise_alert(), raise_alert()] == [True, False]
    assert "fault-1 sent (receiver answered 200)" in world.reason(sensor)
    assert "no alert is waiting" in world.reason(sensor)
    ((body, key),) = receiver.received
    assert key == "recorded/fault-1"
    assert body == {**world.ledgers.read(naming.ALERTS, "fault-1"), "owner": recorded.SPEC.owner}
    assert (body["id"], body["kind"], body["details"]) == ("fault-1", "fault", {"rows": 0})
    world.cursors.clear()
    assert "was delivered before" in world.reason(sensor)
    assert len(receiver.received) == 1


def test_a_receiver_that_was_down_gets_it_later_and_in_order(
    world: Any, sensor: dg.SensorDefinition, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
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
    world: Any, sensor: dg.SensorDefinition, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
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
    assert "1 entry recorded only: no receiver is set" in world.reason(sensor)
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
    receiver: WebhookServer,
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


def test_the_end_of_an_episode_is_sent_after_it_with_the_same_id(
    world: Any, sensor: dg.SensorDefinition, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", receiver.address)
    resource = AlertsResource()
    assert not resource.end("recorded", "fault-1", AT), "no such alert was raised"
    raise_alert()
    assert [resource.end("recorded", "fault-1", AT) for _ in range(2)] == [True, True]
    assert "the end of fault-1 sent (receiver answered 200)" in world.reason(sensor)
    world.cursors.clear()
    world.reason(sensor)
    assert [key for _, key in receiver.received] == ["recorded/fault-1", "recorded/fault-1/ended"]
    assert [body.get("ended_at_utc") for body, _ in receiver.received] == [None, AT.isoformat()]
    assert [body["severity"] for body, _ in receiver.received] == ["ticket", "ticket"]


def test_an_end_recorded_but_not_queued_when_killed_is_queued_later(world: Any) -> None:
    raise_alert()
    world.ledgers.create(naming.ALERTS, "fault-1.ended", {"id": "fault-1", "at_utc": AT.isoformat()})
    assert world.ended() == []
    for _ in range(2):
        AlertsResource().end("recorded", "fault-1", AT)
    assert world.ended() == ["fault-1"]


def test_a_new_receiver_gets_what_is_raised_from_then_on(
    world: Any, sensor: dg.SensorDefinition, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_alert("before")
    world.reason(sensor)
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", receiver.address)
    raise_alert("after")
    world.reason(sensor)
    assert [body["id"] for body, _ in receiver.received] == ["after"]


def test_a_cursor_from_before_there_were_several_receivers_goes_on_where_it_was(
    world: Any, sensor: dg.SensorDefinition, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", receiver.address)
    raise_alert("old")
    raise_alert("new")
    world.cursors["alerts"] = json.dumps({"recorded": {"done": 1, "failures": 2, "pause": 0}})
    world.reason(sensor)
    assert [body["id"] for body, _ in receiver.received] == ["new"]


def test_an_alert_of_an_earlier_version_goes_to_the_webhook_alone(
    world: Any, sensor: dg.SensorDefinition, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no end on record, so Alertmanager would be told of it forever."""
    monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", receiver.address)
    monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", receiver.address)
    record = {"id": "old", "product": "recorded", "kind": "fault", "text": "x", "at_utc": "", "details": {}}
    world.ledgers.create(naming.ALERTS, "old", record)
    world.ledgers.append(naming.ALERT_QUEUE, {"id": "old"})
    assert "was raised by an earlier version" in world.reason(sensor)
    assert [key for _, key in receiver.received] == ["recorded/old"]


def test_pauses_grow_while_a_receiver_is_away() -> None:
    place, pauses = alerts.Place(), []
    for _ in range(len(alerts.PAUSES) + 1):
        place = place.after(Delivery(outcome="unreachable", message="away"))
        pauses.append(place.pause)
    assert pauses == [*alerts.PAUSES, alerts.PAUSES[-1]]
    assert place.after(Delivery(outcome="sent", message="back")) == alerts.Place()
