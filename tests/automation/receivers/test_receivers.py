"""Each receiver, for real: an hour of its absence and a restart of the sensor lose nothing and repeat nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.alerting import AlertsResource
from platform_assets.automation.sensors import alerts
from platform_assets.base.settings import REPOSITORY
from tests.doubles import alertmanager_server, mail_server, recorded, webhook_server
from tests.doubles.alertmanager_server import AlertmanagerServer
from tests.doubles.mail_server import MailServer
from tests.doubles.webhook_server import WebhookServer

AT = datetime(2026, 11, 30, tzinfo=UTC)
TICKS = 720
"""Of an hour."""
LONGEST = max(alerts.PAUSES) + 1
"""Ticks after which it is tried again at the latest."""


class Receiver(ABC):
    """One kind of receiver."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the variables by which it gets alerts."""

    @abstractmethod
    def leave(self) -> None:
        """Take nothing from now on."""

    @abstractmethod
    def return_(self) -> None:
        """Take everything again."""

    @abstractmethod
    def ids(self, count: int) -> list[str]:
        """Return the ids that people were told of, in order, once there are as many."""


class Webhook(Receiver):
    def __init__(self, server: WebhookServer) -> None:
        self.server = server

    def environment(self) -> dict[str, str]:
        return {"DRIFTLINE_ALERT_WEBHOOK": self.server.address}

    def leave(self) -> None:
        self.server.status = 500

    def return_(self) -> None:
        assert self.server.refused > 0
        self.server.status = 200

    def ids(self, count: int) -> list[str]:
        return [f"{key}" for _, key in self.server.received]


class Mail(Receiver):
    def __init__(self, server: MailServer) -> None:
        self.server = server

    def environment(self) -> dict[str, str]:
        return self.server.environment()

    def leave(self) -> None:
        self.server.switch("away", on=True)

    def return_(self) -> None:
        self.server.switch("away", on=False)

    def ids(self, count: int) -> list[str]:
        return [mail["Message-ID"] for mail in self.server.mails(count)]


class Alertmanager(Receiver):
    """What it tells people is what counts: to it an alert is repeated."""

    def __init__(self, server: AlertmanagerServer) -> None:
        self.server = server

    def environment(self) -> dict[str, str]:
        return {"DRIFTLINE_ALERTMANAGER": self.server.address}

    def leave(self) -> None:
        self.server.stop()

    def return_(self) -> None:
        self.server.start()

    def ids(self, count: int) -> list[str]:
        self.server.wait_for(lambda: len(self.server.told()) >= count)
        return [f"{alert['annotations']['id']}" for body, _ in self.server.people.received for alert in body["alerts"]]


@pytest.fixture(params=["webhook", "mail", "alertmanager"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with ExitStack() as stack:
        if request.param == "webhook":
            one: Receiver = Webhook(stack.enter_context(webhook_server.running()))
        elif request.param == "mail":
            one = Mail(stack.enter_context(mail_server.running()))
        else:
            one = Alertmanager(stack.enter_context(alertmanager_server.running(tmp_path, ("alertname", "stage"))))
        for name, value in one.environment().items():
            monkeypatch.setenv(name, value)
        yield one


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return alerts.watch.build([recorded.SPEC])


def raise_alert(name: str) -> None:
    details = {"stage": name}
    AlertsResource().record("recorded", f"stale-{name}", kind="stale", text=f"{name} is stale", at=AT, details=details)


def test_after_an_hour_away_it_gets_each_alert_once_in_order(
    world: Any, sensor: dg.SensorDefinition, receiver: Receiver
) -> None:
    receiver.leave()
    for number in range(TICKS):
        if number in (0, 100, 700):
            raise_alert(f"s{number}")
        assert "not delivered" in (reason := world.reason(sensor)) or "was unreachable" in reason
        if number == 400:
            world.cursors.clear()
    receiver.return_()
    for _ in range(LONGEST):
        world.reason(sensor)
    world.cursors.clear()
    for _ in range(3):
        world.reason(sensor)
    ids = receiver.ids(3)
    assert len(ids) == len(set(ids)) == 3
    if not isinstance(receiver, Mail):
        assert set(ids) == {"recorded/stale-s0", "recorded/stale-s100", "recorded/stale-s700"}
    if isinstance(receiver, Webhook):
        assert ids == sorted(ids, key=lambda name: int(name.rpartition("s")[2]))


def test_killed_between_sending_and_recording_it_sends_again_under_the_same_id(
    world: Any, sensor: dg.SensorDefinition, receiver: Receiver, tmp_path: Path
) -> None:
    raise_alert("features")
    program = (
        "import os, signal\n"
        "import dagster as dg\n"
        "from platform_assets.automation.alerting import AlertsResource\n"
        "from platform_assets.automation.sensors import alerts\n"
        "from tests.doubles import instances, recorded\n"
        "AlertsResource.note = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with instances.ephemeral() as instance:\n"
        "    alerts.watch.build([recorded.SPEC])(dg.build_sensor_context(instance=instance))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "stale-features sent" in world.reason(sensor)
    assert "no alert is waiting" in world.reason(sensor)
    if isinstance(receiver, Alertmanager):
        assert receiver.ids(1) == ["recorded/stale-features"], "an alert that it has already is the same alert"
        assert len(receiver.server.alerts()) == 1
    else:
        first, second = receiver.ids(2)
        assert first == second


def test_a_receiver_that_is_away_does_not_hold_up_the_others(
    world: Any, sensor: dg.SensorDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", "http://127.0.0.1:9")
    monkeypatch.setenv("DRIFTLINE_MAIL_SERVER", "smtp://127.0.0.1:9")
    monkeypatch.setenv("DRIFTLINE_MAIL_SENDER", "driftline@example.org")
    monkeypatch.setenv("DRIFTLINE_MAIL_TO", "others@example.org")
    with webhook_server.running() as server:
        monkeypatch.setenv("DRIFTLINE_ALERT_WEBHOOK", server.address)
        for name in ("raw", "features"):
            raise_alert(name)
        reason = world.reason(sensor)
        raise_alert("outcomes")
        world.reason(sensor)
    assert [body["id"] for body, _ in server.received] == ["stale-raw", "stale-features", "stale-outcomes"]
    assert "alertmanager: stale-raw not delivered (receiver: ConnectError)" in reason
    assert "mail: stale-raw not delivered (server: ConnectionRefusedError)" in reason
