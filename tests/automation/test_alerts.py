"""An alert and its end are recorded once, reach the receiver at least once, and never show its address."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from platform_assets.alerts.alertmanager import Delivery
from platform_assets.alerts.resource import AlertsResource
from platform_assets.base import naming
from platform_assets.base.settings import Settings, SettingsProblem
from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id, row_of
from platform_assets.sensors import alerts
from tests.doubles import recorded, webhook_server
from tests.doubles.webhook_server import SECRET, WebhookServer

pytestmark = pytest.mark.slow

AT = datetime(2020, 1, 8, tzinfo=UTC)
SENSOR = alerts.watch.build([recorded.SPEC])


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    """A server in Alertmanager's place, which keeps what is posted."""
    with webhook_server.running() as server:
        monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", server.address)
        yield server


def raise_alert(alert_id: str = "fault-1") -> bool:
    alert = Alert(id=alert_id, kind=Kind.FAULT, text="it broke", details={"rows": 0})
    return AlertsResource().record("recorded", alert, AT)


def ids(receiver: WebhookServer) -> list[str]:
    """Return the ids of the alerts that were posted, without repetitions of what lasts."""
    posted = [alert["annotations"]["id"].removeprefix("recorded/") for body, _ in receiver.received for alert in body]
    return [name for name in dict.fromkeys(posted) if ", " not in name]


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_of_alert_is_a_row_of_the_page_and_of_its_records(kind: Kind, repository: Any) -> None:
    """A kind is its row, so none can be raised without one; the page has its name and both of its texts."""
    assert row_of(kind.recorded, {}) is kind.value
    page = (repository / "docs" / "operate.md").read_text(encoding="utf-8")
    assert kind is Kind.TEST or f"| `{kind.recorded}` | {kind.value.meaning} | {kind.value.remedy} |" in page


def test_an_alert_reaches_the_receiver_once_with_its_id(world: Any, receiver: WebhookServer) -> None:
    assert [raise_alert(), raise_alert()] == [True, False]
    assert "fault-1 sent (receiver answered 200)" in world.reason(SENSOR)
    assert "no alert is waiting" in world.reason(SENSOR)
    assert receiver.received[0][0][0]["annotations"]["summary"] == "it broke"
    world.cursors.clear()
    assert "was delivered before" in world.reason(SENSOR)


def test_a_receiver_that_was_down_gets_it_later_and_in_order(
    world: Any, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "PAUSES_S", (0, 5))
    receiver.status = 503
    raise_alert("first")
    raise_alert("second")
    assert "first not delivered (receiver answered 503)" in world.reason(SENSOR)
    assert "first not delivered" in world.reason(SENSOR)
    world.wait(-60)
    assert "next try in 5 s" in world.reason(SENSOR), "the clock was set back"
    world.wait(1)
    assert "was unreachable; next try in 4 s" in world.reason(SENSOR)
    receiver.status = 200
    world.wait(4)
    world.reason(SENSOR)
    assert ids(receiver) == ["first", "second"]


def test_a_missing_receiver_is_waited_for_and_a_refusal_is_not_repeated(
    world: Any, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", f"http://127.0.0.1:9/{SECRET}")
    raise_alert("first")
    assert "first not delivered (receiver: ConnectError)" in world.reason(SENSOR)
    monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", receiver.address)
    receiver.status = 400
    assert "first refused (receiver answered 400)" in world.reason(SENSOR)
    receiver.status = 200
    world.cursors.clear()
    world.reason(SENSOR)
    assert receiver.received == []


def test_without_a_receiver_the_alert_is_recorded_and_one_that_comes_gets_what_is_raised_from_then_on(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_alert()
    assert "1 entry recorded only: no receiver is set" in world.reason(SENSOR)
    assert "no alert is waiting" in world.reason(SENSOR)
    assert [alert["id"] for alert in world.alerts()] == ["fault-1"]
    with webhook_server.running() as server:
        monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", server.address)
        raise_alert("after")
        world.reason(SENSOR)
        assert ids(server) == ["after"]


def test_what_was_recorded_but_not_queued_when_killed_is_queued_later(world: Any) -> None:
    record = {"id": "lost", "product": "recorded", "kind": "fault", "text": "x", "at_utc": "", "details": {}}
    world.ledgers.create(naming.ALERTS, "lost", {**record, "severity": "ticket"})
    assert [raise_alert("lost"), raise_alert("lost")] == [False, False]
    world.ledgers.create(naming.ALERTS, "lost.ended", {"id": "lost", "at_utc": AT.isoformat()})
    for _ in range(2):
        assert AlertsResource().end("recorded", "lost", AT)
    queue = [(item["id"], "is_end" in item) for _, item in world.ledgers.records(naming.ALERT_QUEUE)]
    assert queue == [("lost", False), ("lost", True)]
    assert not AlertsResource().end("recorded", "never", AT), "no such alert was raised"


def test_the_address_appears_nowhere(
    world: Any, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    outputs = []
    for number, address in enumerate(
        (receiver.address, f"http://127.0.0.1:9/{SECRET}", f"http://127.0.0.1:bad/{SECRET}")
    ):
        monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", address)
        settings = Settings.from_environment()
        assert settings.alertmanager_addresses == [address]
        outputs += [repr(settings), str(settings), settings.model_dump_json(), str(settings.to_environment())]
        assert settings.child_environment()["DRIFTLINE_ALERTMANAGER"] == address
        raise_alert(f"alert-{number}")
        outputs.append(world.reason(SENSOR))
    monkeypatch.setenv("DRIFTLINE_ALERTMANAGER", f"ftp://{SECRET}")
    with pytest.raises(SettingsProblem, match="DRIFTLINE_ALERTMANAGER is not an http or https address") as problem:
        Settings.from_environment()
    outputs += [str(problem.value), caplog.text, str(world.alerts())]
    assert [text for text in outputs if SECRET in text] == []


def test_ids_name_the_episode_and_are_valid_ledger_keys() -> None:
    assert episode_id("fault", "2013-03-09", "weather", "frozen_columns") == "fault-2013-03-09-weather-frozen_columns"
    odd, other = episode_id("fault", "frozen columns"), episode_id("fault", "frozen/columns")
    assert odd != other and odd.startswith("fault-frozen_columns-")
    assert len(episode_id("x" * 500)) <= 120
    assert episode_id("/").startswith("alert-")


def test_an_alert_of_an_earlier_version_is_not_sent(world: Any, receiver: WebhookServer) -> None:
    """It has no end on record, so Alertmanager would be told of it forever."""
    record = {"id": "old", "product": "recorded", "kind": "fault", "text": "x", "at_utc": "", "details": {}}
    world.ledgers.create(naming.ALERTS, "old", record)
    world.ledgers.append(naming.ALERT_QUEUE, {"id": "old"})
    assert "was raised by an earlier version" in world.reason(SENSOR)
    assert receiver.received == []


def test_pauses_grow_while_a_receiver_is_away() -> None:
    place, pauses = alerts.Place(), []
    for _ in range(len(alerts.PAUSES_S) + 1):
        place = place.after(Delivery(outcome="unreachable", message="away"), 0.0)
        pauses.append(place.pause_s)
    assert pauses == [*alerts.PAUSES_S, alerts.PAUSES_S[-1]]
    assert place.after(Delivery(outcome="sent", message="back"), 0.0) == alerts.Place()
