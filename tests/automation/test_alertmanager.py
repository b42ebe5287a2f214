"""Alerts in a real Alertmanager: one with the rule's about the same, over when the episode is, silenced and grouped."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_assets.alerts import alertmanager
from platform_assets.alerts.alertmanager import Message
from platform_assets.alerts.resource import AlertsResource
from platform_assets.base import clock
from platform_assets.base.settings import REPOSITORY, Settings
from platform_assets.cli import main
from platform_assets.monitoring import alert_kinds
from platform_assets.monitoring.alert_kinds import Kind
from platform_assets.sensors import alerts
from platform_assets.store.records.alerts import Alert
from tests.doubles import alertmanager_server, recorded
from tests.doubles.alertmanager_server import AlertmanagerServer

pytestmark = pytest.mark.slow

AT = datetime(2026, 11, 30, tzinfo=UTC)
DETAILS = {"fault": {"source": "readings", "check": "volume"}, "stale": {"stage": "features"}}
OURS = {"severity": "ticket", "owner": recorded.SPEC.owner, "product": "recorded"}
HELD = {"alertname": "KeyHeld", **OURS}
STALE = {"alertname": "StageStale", "stage": "features", **OURS}
SENSOR = alerts.watch.build([recorded.SPEC])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlertmanagerServer]:
    """An Alertmanager, of which every tick is a minute, and where nothing is kept longer than it must be."""
    monkeypatch.setattr(alerts, "REPEATED_EVERY", timedelta())
    monkeypatch.setattr(alertmanager, "NOTICED", timedelta())
    with alertmanager_server.running(tmp_path) as one:
        monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", one.address)
        yield one


def raise_alert(alert_id: str) -> None:
    kind = alert_id.partition("-")[0]
    alert = alert_kinds.Alert(id=alert_id, kind=Kind[kind.upper()], text="it broke", details=DETAILS[kind])
    AlertsResource().record("recorded", alert, AT)


def end(alert_id: str) -> None:
    assert AlertsResource().end("recorded", alert_id, AT + timedelta(hours=1))


def test_people_are_told_once_of_an_episode_and_once_of_its_end(world: Any, server: AlertmanagerServer) -> None:
    raise_alert("stale-1")
    for _ in range(5):
        world.reason(SENSOR)
    (alert,) = server.alerts()
    assert (alert["labels"], alert["annotations"]["summary"]) == (STALE, "it broke")
    assert datetime.fromisoformat(alert["startsAt"]) == AT
    left = datetime.fromisoformat(alert["endsAt"]) - clock.wall()
    assert left > timedelta(minutes=5), "what is not repeated within the server's resolve_timeout would be over"
    server.wait_for(lambda: server.told() == [("firing", [STALE])])
    end("stale-1")
    for _ in range(3):
        world.reason(SENSOR)
    server.wait_for(lambda: server.told() == [("firing", [STALE]), ("resolved", [STALE])])
    assert server.alerts() == []


def test_it_lasts_until_the_last_episode_with_its_labels_has_ended(world: Any, server: AlertmanagerServer) -> None:
    for name in ("stale-1", "stale-2"):
        raise_alert(name)
    world.reason(SENSOR)
    server.wait_for(lambda: server.told() == [("firing", [STALE])])
    end("stale-1")
    assert "the end of stale-1 sent (another episode of this alert goes on)" in world.reason(SENSOR)
    (alert,) = server.alerts()
    assert alert["annotations"]["id"] == "recorded/stale-2"
    end("stale-2")
    world.reason(SENSOR)
    server.wait_for(lambda: server.told() == [("firing", [STALE]), ("resolved", [STALE])])


def test_with_the_rules_alert_it_is_one_notification(
    world: Any, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prometheus adds its own labels; its alert begins later and goes on for longer."""
    monkeypatch.setenv("DRIFTLINE_ALERTMANAGER_LABELS", "cluster=north, namespace=driftline")
    labels = {**HELD, "cluster": "north", "namespace": "driftline"}

    def by_rule(ends_in: timedelta) -> None:
        now = clock.wall()
        times = {"startsAt": now.isoformat(), "endsAt": (now + ends_in).isoformat()}
        server.post("alerts", [{"labels": labels, "annotations": {"summary": "Keys are held."}, **times}])

    raise_alert("fault-1")
    world.reason(SENSOR)
    by_rule(timedelta(minutes=4))
    world.reason(SENSOR)
    (alert,) = server.alerts()
    assert (alert["labels"], datetime.fromisoformat(alert["startsAt"])) == (labels, AT)
    server.wait_for(lambda: server.told() == [("firing", [labels])])
    end("fault-1")
    world.reason(SENSOR)
    by_rule(timedelta(minutes=4))
    raise_alert("stale-1")
    world.reason(SENSOR)
    server.wait_for(lambda: ("firing", "StageStale") in server.names())
    assert server.names() == [("firing", "KeyHeld"), ("firing", "StageStale")], "the rule's alert goes on"
    by_rule(timedelta())
    server.wait_for(lambda: ("resolved", "KeyHeld") in server.names())
    assert server.names() == [("firing", "KeyHeld"), ("firing", "StageStale"), ("resolved", "KeyHeld")]


def test_one_that_a_rule_has_too_is_over_when_it_is_not_repeated(
    world: Any, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alertmanager, "LASTS", timedelta(seconds=4))
    raise_alert("fault-1")
    world.reason(SENSOR)
    end("fault-1")
    assert "the end of fault-1 sent (it is not repeated any more)" in world.reason(SENSOR)
    server.wait_for(lambda: server.told() == [("firing", [HELD]), ("resolved", [HELD])])


def test_after_a_restart_it_has_the_alert_again_and_tells_nobody_twice(world: Any, server: AlertmanagerServer) -> None:
    raise_alert("stale-1")
    world.reason(SENSOR)
    server.wait_for(lambda: server.told() == [("firing", [STALE])])
    server.stop()
    assert "1 alert that last not delivered (receiver: ConnectError)" in world.reason(SENSOR)
    server.start()
    assert server.alerts() == []
    world.reason(SENSOR)
    server.wait_for(server.alerts)
    raise_alert("fault-1")
    world.reason(SENSOR)
    server.wait_for(lambda: ("firing", "KeyHeld") in server.names())
    end("stale-1")
    world.reason(SENSOR)
    server.wait_for(lambda: ("resolved", "StageStale") in server.names())
    assert server.names() == [("firing", "StageStale"), ("firing", "KeyHeld"), ("resolved", "StageStale")]


def test_a_sensor_without_its_cursor_repeats_what_lasts_and_nothing_that_is_over(
    world: Any, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_alert("stale-1")
    raise_alert("fault-1")
    world.reason(SENSOR)
    server.wait_for(lambda: len(server.told()) == 2)
    end("stale-1")
    world.reason(SENSOR)
    server.wait_for(lambda: ("resolved", "StageStale") in server.names())
    world.cursors.clear()
    monkeypatch.setattr(alerts, "MAX_PER_TICK", 1)  # the end is read in a later tick than its alert
    server.stop()
    server.start()
    for _ in range(4):
        world.reason(SENSOR)
        assert "StageStale" not in [alert["labels"]["alertname"] for alert in server.alerts()]
    assert [alert["labels"]["alertname"] for alert in server.alerts()] == ["KeyHeld"]


def test_an_episode_that_was_over_before_it_could_be_sent_is_told_too(
    world: Any, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alertmanager, "NOTICED", timedelta(minutes=5))
    monkeypatch.setattr(alertmanager, "LASTS", timedelta(seconds=4))
    server.stop()
    raise_alert("stale-1")
    world.reason(SENSOR)
    end("stale-1")
    server.start()
    world.reason(SENSOR)
    server.wait_for(lambda: ("resolved", "StageStale") in server.names())
    assert server.names() == [("firing", "StageStale"), ("resolved", "StageStale")]


def test_a_failed_run_is_over_by_itself(
    world: Any, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alertmanager, "LASTS", timedelta(seconds=3))
    now = clock.wall()
    details = {"job": "advance__recorded", "location": "driftline"}
    alert = alert_kinds.Alert(id="failure-1", kind=Kind.FAILURE, text="it failed", details=details)
    AlertsResource().record("recorded", alert, now)
    world.reason(SENSOR)
    assert "failure-1" in world.cursors["alerts"]
    world.wait(360)
    world.reason(SENSOR)
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


@pytest.mark.costly
def test_killed_between_sending_and_recording_it_sends_again_and_it_is_the_same_alert(
    world: Any, server: AlertmanagerServer
) -> None:
    raise_alert("stale-1")
    program = (
        "import os, signal\n"
        "import dagster as dg\n"
        "from platform_assets.alerts.resource import AlertsResource\n"
        "from platform_assets.sensors import alerts\n"
        "from tests.doubles import instances, recorded\n"
        "AlertsResource.note = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with instances.ephemeral() as instance:\n"
        "    alerts.watch.build([recorded.SPEC])(dg.build_sensor_context(instance=instance))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "stale-1 sent" in world.reason(SENSOR)
    assert "no alert is waiting" in world.reason(SENSOR)
    server.wait_for(lambda: server.told() == [("firing", [STALE])])
    assert len(server.alerts()) == 1


def test_the_doctor_sends_a_test_alert_that_is_not_on_record(
    settings: Settings, server: AlertmanagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "receivers"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["ok", "alertmanager"]
    server.wait_for(lambda: server.names() == [("firing", "DriftlineTest")])
    server.stop()
    assert main(["doctor", "receivers"]) == 1
    assert capsys.readouterr().out == (
        "FAILED  alertmanager  receiver: ConnectError: look at DRIFTLINE_ALERTMANAGER.\n"
    )
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.crt")
    assert main(["doctor", "receivers"]) == 1
    assert "alertmanager  receiver: FileNotFoundError" in capsys.readouterr().out
    monkeypatch.delenv("DRIFTLINE_ALERTMANAGER")
    assert main(["doctor", "receivers"]) == 1
    output = "No receiver is set, so alerts are recorded only. Set DRIFTLINE_ALERTMANAGER.\n"
    assert capsys.readouterr().out == output
    assert not list(Path(settings.root).glob("**/alerts/*"))
