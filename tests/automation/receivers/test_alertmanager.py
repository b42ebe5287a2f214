"""Alerts in a real Alertmanager: one with the rule's about the same, over when the episode is, silenced and grouped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.alerting import AlertsResource
from platform_assets.automation.receivers import alertmanager
from platform_assets.automation.receivers.api import Message
from platform_assets.automation.sensors import alerts
from platform_assets.base import clock
from platform_assets.base.settings import Settings
from platform_assets.store.records.alerts import Alert
from tests.doubles import alertmanager_server, recorded
from tests.doubles.alertmanager_server import AlertmanagerServer

AT = datetime(2026, 11, 30, tzinfo=UTC)
DETAILS = {"fault": {"source": "readings", "check": "volume"}, "stale": {"stage": "features"}}
OURS = {"severity": "ticket", "owner": recorded.SPEC.owner, "product": "recorded"}
HELD = {"alertname": "KeyHeld", **OURS}
STALE = {"alertname": "StageStale", "stage": "features", **OURS}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlertmanagerServer]:
    """An Alertmanager, of which every tick is a minute, and where nothing is kept longer than it must be."""
    monkeypatch.setattr(alerts, "REPEATED_EVERY", timedelta())
    monkeypatch.setattr(alertmanager, "NOTICED", timedelta())
    with alertmanager_server.running(tmp_path) as one:
        monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", one.address)
        yield one


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return alerts.watch.build([recorded.SPEC])


def raise_alert(alert_id: str) -> None:
    kind = alert_id.partition("-")[0]
    AlertsResource().record("recorded", alert_id, kind=kind, text="it broke", at=AT, details=DETAILS[kind])


def end(alert_id: str) -> None:
    assert AlertsResource().end("recorded", alert_id, AT + timedelta(hours=1))


def test_people_are_told_once_of_an_episode_and_once_of_its_end(
    world: Any, sensor: dg.SensorDefinition, server: AlertmanagerServer
) -> None:
    raise_alert("stale-1")
    for _ in range(5):
        world.reason(sensor)
    (alert,) = server.alerts()
    assert (alert["labels"], alert["annotations"]["summary"]) == (STALE, "it broke")
    assert datetime.fromisoformat(alert["startsAt"]) == AT
    left = datetime.fromisoformat(alert["endsAt"]) - clock.wall()
    assert left > timedelta(minutes=5), "what is not repeated within the server's resolve_timeout would be over"
    server.wait_for(lambda: server.told() == [("firing", [STALE])])
    end("stale-1")
    for _ in range(3):
        world.reason(sensor)
    server.wait_for(lambda: server.told() == [("firing", [STALE]), ("resolved", [STALE])])
    assert server.alerts() == []


def test_it_lasts_until_the_last_episode_with_its_labels_has_ended(
    world: Any, sensor: dg.SensorDefinition, server: AlertmanagerServer
) -> None:
    for name in ("stale-1", "stale-2"):
        raise_alert(name)
    world.reason(sensor)
    server.wait_for(lambda: server.told() == [("firing", [STALE])])
    end("stale-1")
    assert "the end of stale-1 sent (another episode of this alert goes on)" in world.reason(sensor)
    (alert,) = server.alerts()
    assert alert["annotations"]["id"] == "recorded/stale-2"
    end("stale-2")
    world.reason(sensor)
    server.wait_for(lambda: server.told() == [("firing", [STALE]), ("resolved", [STALE])])


def test_with_the_rules_alert_it_is_one_notification(
    world: Any, sensor: dg.SensorDefinition, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prometheus adds its own labels; its alert begins later and goes on for longer."""
    monkeypatch.setenv("DRIFTLINE_ALERTMANAGER_LABELS", "cluster=north, namespace=driftline")
    labels = {**HELD, "cluster": "north", "namespace": "driftline"}

    def by_rule(ends_in: timedelta) -> None:
        now = clock.wall()
        times = {"startsAt": now.isoformat(), "endsAt": (now + ends_in).isoformat()}
        server.post("alerts", [{"labels": labels, "annotations": {"summary": "Keys are held."}, **times}])

    raise_alert("fault-1")
    world.reason(sensor)
    by_rule(timedelta(minutes=4))
    world.reason(sensor)
    (alert,) = server.alerts()
    assert (alert["labels"], datetime.fromisoformat(alert["startsAt"])) == (labels, AT)
    server.wait_for(lambda: server.told() == [("firing", [labels])])
    end("fault-1")
    world.reason(sensor)
    by_rule(timedelta(minutes=4))
    raise_alert("stale-1")
    world.reason(sensor)
    server.wait_for(lambda: ("firing", "StageStale") in server.names())
    assert server.names() == [("firing", "KeyHeld"), ("firing", "StageStale")], "the rule's alert goes on"
    by_rule(timedelta())
    server.wait_for(lambda: ("resolved", "KeyHeld") in server.names())
    assert server.names() == [("firing", "KeyHeld"), ("firing", "StageStale"), ("resolved", "KeyHeld")]


def test_one_that_a_rule_has_too_is_over_when_it_is_not_repeated(
    world: Any, sensor: dg.SensorDefinition, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alertmanager, "LASTS", timedelta(seconds=4))
    raise_alert("fault-1")
    world.reason(sensor)
    end("fault-1")
    assert "the end of fault-1 sent (it is not repeated any more)" in world.reason(sensor)
    server.wait_for(lambda: server.told() == [("firing", [HELD]), ("resolved", [HELD])])


def test_after_a_restart_it_has_the_alert_again_and_tells_nobody_twice(
    world: Any, sensor: dg.SensorDefinition, server: AlertmanagerServer
) -> None:
    raise_alert("stale-1")
    world.reason(sensor)
    server.wait_for(lambda: server.told() == [("firing", [STALE])])
    server.stop()
    assert "1 alert that last not delivered (receiver: ConnectError)" in world.reason(sensor)
    server.start()
    assert server.alerts() == []
    world.reason(sensor)
    server.wait_for(server.alerts)
    raise_alert("fault-1")
    world.reason(sensor)
    server.wait_for(lambda: ("firing", "KeyHeld") in server.names())
    end("stale-1")
    world.reason(sensor)
    server.wait_for(lambda: ("resolved", "StageStale") in server.names())
    assert server.names() == [("firing", "StageStale"), ("firing", "KeyHeld"), ("resolved", "StageStale")]


def test_a_sensor_without_its_cursor_repeats_what_lasts_and_nothing_that_is_over(
    world: Any, sensor: dg.SensorDefinition, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_alert("stale-1")
    raise_alert("fault-1")
    world.reason(sensor)
    server.wait_for(lambda: len(server.told()) == 2)
    end("stale-1")
    world.reason(sensor)
    server.wait_for(lambda: ("resolved", "StageStale") in server.names())
    world.cursors.clear()
    monkeypatch.setattr(alerts, "MAX_PER_TICK", 1)  # the end is read in a later tick than its alert
    server.stop()
    server.start()
    for _ in range(4):
        world.reason(sensor)
        assert "StageStale" not in [alert["labels"]["alertname"] for alert in server.alerts()]
    assert [alert["labels"]["alertname"] for alert in server.alerts()] == ["KeyHeld"]


def test_an_episode_that_was_over_before_it_could_be_sent_is_told_too(
    world: Any, sensor: dg.SensorDefinition, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alertmanager, "NOTICED", timedelta(minutes=5))
    monkeypatch.setattr(alertmanager, "LASTS", timedelta(seconds=4))
    server.stop()
    raise_alert("stale-1")
    world.reason(sensor)
    end("stale-1")
    server.start()
    world.reason(sensor)
    server.wait_for(lambda: ("resolved", "StageStale") in server.names())
    assert server.names() == [("firing", "StageStale"), ("resolved", "StageStale")]


def test_a_failed_run_is_over_by_itself(
    world: Any, sensor: dg.SensorDefinition, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alertmanager, "LASTS", timedelta(seconds=3))
    now = clock.wall()
    details = {"job": "advance__recorded", "location": "driftline"}
    record = AlertsResource().record
    record("recorded", "failure-1", kind="failure", text="it failed", at=now, details=details)
    world.reason(sensor)
    assert "failure-1" in world.cursors["alerts"]
    monkeypatch.setattr(alerts.clock, "wall", lambda: now + timedelta(minutes=6))
    world.reason(sensor)
    assert "failure-1" not in world.cursors["alerts"]
    server.wait_for(lambda: ("resolved", "RunsFail") in server.names())
    assert server.names() == [("firing", "RunsFail"), ("resolved", "RunsFail")]


def test_silences_hold_and_fifty_products_are_one_notification(tmp_path: Path) -> None:
    """What Alertmanager does with labels, it does with ours: no code of ours is for that."""
    with alertmanager_server.running(tmp_path, ("alertname",)) as server:
        now = clock.wall()
        matcher = {"name": "owner", "value": "team:quiet", "isRegex": False, "isEqual": True}
        until = {"startsAt": now.isoformat(), "endsAt": (now + timedelta(hours=1)).isoformat()}
        server.post("silences", {"matchers": [matcher], **until, "createdBy": "ada", "comment": "known"})
        receiver = alertmanager.Alertmanager(Settings(root=str(tmp_path), state=tmp_path, alertmanager=server.address))

        def send(product: str, owner: str) -> Message:
            alert = Alert(
                id="fault-1",
                product=product,
                kind="fault",
                text="the bucket is gone",
                at_utc=now.isoformat(),
                details={"source": "orders", "check": "missing_delivery"},
                severity="page",
            )
            return Message(alert=alert, owner=owner)

        messages = [send("quiet", "team:quiet"), *(send(f"shop_{number}", "team:shop") for number in range(50))]
        assert receiver.repeat(messages).outcome == "sent"
        server.wait_for(server.told)
        ((status, labels),) = server.told()
        assert (status, len(labels)) == ("firing", 50)
        assert {f"{alert['alertname']} {alert['owner']} {alert['severity']}" for alert in labels} == {
            "FeedDead team:shop page"
        }
