"""A file that changes after its key was closed raises one alert, with the remedy; the same bytes again raise none."""

from typing import Any

import dagster as dg
import pytest

from platform_assets.base import naming
from platform_assets.data import changed_files
from platform_assets.sensors import freshness
from platform_assets.store import landing
from platform_assets.store.artifacts import sha256
from tests.doubles import documents, recorded

pytestmark = pytest.mark.slow

KEY = "2020-01-03"


@pytest.fixture
def sensor(monkeypatch: pytest.MonkeyPatch) -> dg.SensorDefinition:
    monkeypatch.setattr(freshness, "LOOK_EVERY_S", 0.0)
    return freshness.watch.build([recorded.SPEC])


def take_in(world: Any, source: str, text: str) -> None:
    """Write a file and its record where landing and the stage `raw` do."""
    world.land(source, KEY, text)
    mark = landing.channels(world.spec, world.settings.root)[source].probe(KEY)
    inputs = {"file": sha256(text.encode())}
    world.tables.record(f"raw_{source}", KEY, content_digest="0", inputs=inputs, code="0", notes={"mark": mark})


@pytest.fixture
def closed(world: Any) -> Any:
    """Return a world in which the key is closed, with its plans and without its readings."""
    take_in(world, "plans", "one\n")
    notes = {"is_missing": True}
    world.tables.record("raw_readings", KEY, content_digest="0", inputs={"file": "missing"}, code="0", notes=notes)
    for key in ("2020-01-01", "2020-01-02", KEY):
        world.decide(key)
    world.move("2020-01-04T00:00:00+00:00")
    return world


def changed(world: Any) -> list[str]:
    return [alert["text"] for alert in world.alerts() if alert["kind"] == "changed"]


def test_a_changed_file_raises_one_alert_until_it_is_taken_in(closed: Any, sensor: dg.SensorDefinition) -> None:
    assert "changed" not in closed.reason(sensor)
    closed.land("plans", KEY, "one\ntwo\n")
    for _ in range(2):
        assert f"changed since they were taken in: plans {KEY}" in closed.reason(sensor)
    then, now = (sha256(text)[:12] for text in (b"one\n", b"one\ntwo\n"))
    assert changed(closed) == [
        (
            f"plans of {KEY} changed after it was taken in (sha256 was {then}, now {now}). To take it in, launch "
            "repair__recorded with the key and a reason."
        )
    ]
    take_in(closed, "plans", "one\ntwo\n")
    assert closed.ended() == []
    assert "changed" not in closed.reason(sensor)
    assert closed.ended() == [closed.alerts()[0]["id"]]
    closed.land("plans", KEY, "three\n")
    closed.reason(sensor)
    assert (len(changed(closed)), len(closed.ended())) == (2, 1), "another change is another episode"


def test_the_same_bytes_delivered_again_are_read_once_and_are_not_a_change(
    closed: Any, sensor: dg.SensorDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = closed.land("plans", KEY, "one\n")
    path.rename(path.with_suffix(".moved")).rename(path)
    read: list[bytes] = []
    real = changed_files.sha256
    monkeypatch.setattr(changed_files, "sha256", lambda data: read.append(data) or real(data))
    for _ in range(3):
        assert "changed" not in closed.reason(sensor)
    assert (changed(closed), read) == ([], [b"one\n"])


def test_a_file_that_lands_after_its_key_was_closed_without_it_raises_an_alert(
    closed: Any, sensor: dg.SensorDefinition
) -> None:
    closed.land("readings", KEY, "late\n")
    closed.reason(sensor)
    assert changed(closed) == [
        (
            f"readings of {KEY} landed complete after its key had been closed without it. To take it in, launch "
            "repair__recorded with the key and a reason."
        )
    ]


def test_a_change_already_requested_raises_no_alert(closed: Any, sensor: dg.SensorDefinition) -> None:
    closed.land("plans", KEY, "one\ntwo\n")
    closed.ledgers.append(naming.REQUESTS, documents.advance(KEY))
    closed.reason(sensor)
    assert changed(closed) == []


def test_a_record_of_an_older_version_has_no_mark_and_is_compared_by_its_bytes(
    closed: Any, sensor: dg.SensorDefinition
) -> None:
    inputs = {"file": sha256(b"one\n")}
    closed.tables.record("raw_plans", KEY, content_digest="0", inputs=inputs, code="0")
    assert "changed" not in closed.reason(sensor)
    closed.land("plans", KEY, "two\n")
    assert f"plans {KEY}" in closed.reason(sensor)


def test_a_file_in_place_of_one_that_could_not_be_read_is_requested_once(
    closed: Any, sensor: dg.SensorDefinition
) -> None:
    notes = {"mark": "of the file before", "unreadable": "the file is empty (0 bytes)."}
    inputs = {"file": sha256(b"")}
    closed.tables.record("raw_plans", KEY, content_digest="0", inputs=inputs, code="0", notes=notes)
    closed.land("plans", KEY, "one\ntwo\n")
    for _ in range(2):
        closed.reason(sensor)
    [request] = [record for _, record in closed.ledgers.records(naming.REQUESTS)]
    assert (request["first"], changed(closed)) == (KEY, [])
    assert request["why"] == f"plans of {KEY} was delivered again; the file before could not be read"
