"""A fault launches one verification per episode, which fails while a key is held and raises no second alert."""

from typing import Any

import pytest

from platform_assets.base import naming
from platform_assets.jobs import verification
from platform_assets.sensors import held_keys, retrain
from tests.doubles import documents, empty_jobs, recorded

pytestmark = pytest.mark.slow

FAULT = {
    "source": "readings",
    "check": "volume",
    "column": None,
    "came": "1 rows",
    "expected": "6",
    "episode": "2020-01-02",
}
VERIFY = naming.job(verification.VERB, recorded.SPEC.name)
SENSOR = held_keys.watch.build([recorded.SPEC], empty_jobs.of(verification.VERB, [recorded.SPEC]))


@pytest.fixture(autouse=True)
def _clock(world: Any) -> None:
    world.move("2020-01-10T00:00:00+00:00")


def test_an_episode_of_several_keys_is_verified_once(world: Any) -> None:
    assert world.reason(SENSOR) == "recorded: no new decision"
    world.decide("2020-01-01")
    assert world.reason(SENSOR) == "recorded: no fault up to 2020-01-01"
    world.decide("2020-01-02", "alert_fault", fault=FAULT)
    first = world.request(SENSOR)
    assert (first.job_name, first.run_key) == (VERIFY, f"{VERIFY}:2020-01-02:readings:volume")
    world.decide("2020-01-03", "alert_fault", fault=FAULT)
    again = world.request(SENSOR)
    assert again.run_key == first.run_key, "the daemon launches each run key once"
    assert world.reason(SENSOR) == "recorded: no new decision"


def test_one_run_covers_the_episodes_of_one_tick(world: Any) -> None:
    world.decide("2020-01-01", "alert_fault", fault={**FAULT, "episode": "2020-01-01"})
    world.decide("2020-01-02", "alert_fault", fault={**FAULT, "check": "frozen_columns"})
    assert world.request(SENSOR).run_key == f"{VERIFY}:2020-01-02:readings:frozen_columns"


def test_the_alert_of_a_fault_ends_when_none_of_its_keys_is_held(world: Any) -> None:
    alerts = retrain.watch.build([recorded.SPEC], empty_jobs.of("retrain", [recorded.SPEC]))
    parts = {"episode": "2020-01-02", "check": "volume"}
    world.decide("2020-01-01")
    for key in ("2020-01-02", "2020-01-03"):
        world.decide(key, "alert_fault", fault=FAULT)
        world.tables.record("drift", key, content_digest="0", inputs={}, code="0", notes={"is_faulty": True})
        world.ledgers.append(f"faults/{key}", documents.fault("fault", key, **parts))
    world.tick(SENSOR)
    assert world.ended() == [], "its alert is raised by another SENSOR"
    world.tick(alerts)
    (alert,) = world.alerts()
    assert (alert["details"]["source"], alert["details"]["check"]) == ("readings", "volume")
    world.ledgers.append("faults/2020-01-02", documents.fault("accept", "2020-01-02"))
    world.tick(SENSOR)
    world.ledgers.append("faults/2020-01-03", documents.fault("repair", "2020-01-03"))
    world.tick(SENSOR)
    assert world.ended() == [], "a new delivery is not judged yet"
    world.ledgers.append("faults/2020-01-03", documents.fault("repaired", "2020-01-03"))
    for _ in range(2):
        world.tick(SENSOR)
    assert world.ended() == [alert["id"]]
    world.cursors.clear()
    world.tick(SENSOR)
    assert world.ended() == [alert["id"]]
