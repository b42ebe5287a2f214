"""A fault launches one verification per episode, which fails while a key is held and raises no second alert."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.jobs import verification
from platform_assets.automation.sensors import held_keys
from platform_assets.base import naming
from tests.doubles import empty_jobs, recorded

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
