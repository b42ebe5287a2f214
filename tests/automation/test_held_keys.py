"""A fault launches one verification per episode, which fails while a key is held and raises no second alert."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.jobs import verification
from platform_assets.automation.sensors import held_keys, retrain
from platform_assets.base import naming
from tests.doubles import documents, empty_jobs, recorded

FAULT = {
    "source": "readings",
    "check": "volume",
    "column": None,
    "came": "1 rows",
    "expected": "6",
    "episode": "2020-01-02",
}
VERIFY = naming.job(verification.VERB, recorded.SPEC.name)


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return held_keys.watch.build([recorded.SPEC], empty_jobs.of(verification.VERB, [recorded.SPEC]))


@pytest.fixture(autouse=True)
def _clock(world: Any) -> None:
    world.move("2020-01-10T00:00:00+00:00")


def test_an_episode_of_several_keys_is_verified_once(world: Any, sensor: dg.SensorDefinition) -> None:
    assert world.reason(sensor) == "recorded: no new decision"
    world.decide("2020-01-01")
    assert world.reason(sensor) == "recorded: no fault up to 2020-01-01"
    world.decide("2020-01-02", "alert_fault", fault=FAULT)
    first = world.request(sensor)
    assert (first.job_name, first.run_key) == (VERIFY, f"{VERIFY}:2020-01-02:readings:volume")
    world.decide("2020-01-03", "alert_fault", fault=FAULT)
    again = world.request(sensor)
    assert again.run_key == first.run_key, "the daemon launches each run key once"
    assert world.reason(sensor) == "recorded: no new decision"


def test_another_check_is_another_episode(world: Any, sensor: dg.SensorDefinition) -> None:
    world.decide("2020-01-01", "alert_fault", fault={**FAULT, "episode": "2020-01-01"})
    assert world.request(sensor).run_key == f"{VERIFY}:2020-01-01:readings:volume"
    world.decide("2020-01-02", "alert_fault", fault={**FAULT, "check": "frozen_columns"})
    assert world.request(sensor).run_key == f"{VERIFY}:2020-01-02:readings:frozen_columns"


def test_one_run_covers_the_episodes_of_one_tick(world: Any, sensor: dg.SensorDefinition) -> None:
    world.decide("2020-01-01", "alert_fault", fault={**FAULT, "episode": "2020-01-01"})
    world.decide("2020-01-02", "alert_fault", fault={**FAULT, "check": "frozen_columns"})
    assert world.request(sensor).run_key == f"{VERIFY}:2020-01-02:readings:frozen_columns"


def test_the_alert_of_a_fault_ends_when_none_of_its_keys_is_held(world: Any, sensor: dg.SensorDefinition) -> None:
    alerts = retrain.watch.build([recorded.SPEC], empty_jobs.of("retrain", [recorded.SPEC]))
    parts = {"episode": "2020-01-02", "check": "volume"}
    world.decide("2020-01-01")
    for key in ("2020-01-02", "2020-01-03"):
        world.decide(key, "alert_fault", fault=FAULT)
        world.tables.record("drift", key, content_digest="0", inputs={}, code="0", notes={"is_faulty": True})
        world.ledgers.append(f"faults/{key}", documents.fault("fault", key, **parts))
    world.tick(sensor)
    assert world.ended() == [], "its alert is raised by another sensor"
    world.tick(alerts)
    (alert,) = world.alerts()
    assert (alert["details"]["source"], alert["details"]["check"]) == ("readings", "volume")
    world.ledgers.append("faults/2020-01-02", documents.fault("accept", "2020-01-02"))
    world.tick(sensor)
    world.ledgers.append("faults/2020-01-03", documents.fault("repair", "2020-01-03"))
    world.tick(sensor)
    assert world.ended() == [], "a new delivery is not judged yet"
    world.ledgers.append("faults/2020-01-03", documents.fault("repaired", "2020-01-03"))
    for _ in range(2):
        world.tick(sensor)
    assert world.ended() == [alert["id"]]
    world.cursors.clear()
    world.tick(sensor)
    assert world.ended() == [alert["id"]]
