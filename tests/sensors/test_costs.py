"""Unreported attempts are reported once, when nothing that spends is under way, and not after a good retrain."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from platform_assets import naming
from platform_assets.history import money
from sensors import costs
from tests.doubles import empty_jobs, histories, recorded

ATTEMPT = {"cutoff": "2020-01-08", "wall_s": 3600.0, "usd_per_hour": 1.0, "reason": "code"}
STARTED, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return costs.watch.build([recorded.SPEC], empty_jobs.of("cost", [recorded.SPEC]))


def report(world: Any) -> None:
    history = histories.of(world.ledgers)
    document = {money.FORMAT: money.cache_format(), money.RECORDS: history.updated_cache(history.cached())}
    world.ledgers.overwrite(naming.COST, money.CACHE_NAME, document)


@pytest.mark.parametrize(
    ("newest", "reported", "busy", "is_needed", "reason"),
    [
        (5, 5, None, False, "all attempts are reported"),
        (7, 5, None, True, "not reported yet: 2 records of attempts"),
        (7, 5, "r1", False, "waiting for run r1 to end"),
        (0, 0, "r1", False, "all attempts are reported"),
    ],
)
def test_a_run_is_needed_when_records_are_not_reported(
    newest: int, reported: int, busy: str | None, is_needed: bool, reason: str
) -> None:
    assert costs.plan({"attempts": newest}, {"attempts": reported}, busy=busy) == (is_needed, reason)


def test_attempts_of_a_failed_run_are_reported_after_its_end(world: Any, sensor: dg.SensorDefinition) -> None:
    assert world.reason(sensor) == "recorded: all attempts are reported"
    retrain = dg.DagsterRun(job_name="retrain__recorded", status=STARTED)
    world.instance.add_run(retrain)
    world.ledgers.append(naming.ATTEMPTS, ATTEMPT)
    assert f"waiting for run {retrain.run_id} to end" in world.reason(sensor)
    world.instance.delete_run(retrain.run_id)
    request = world.request(sensor)
    assert (request.job_name, request.run_key) == ("cost__recorded", "cost-recorded-1-0")
    assert "all attempts are reported" in world.reason(sensor), "requested once, even before the run exists"
    world.ledgers.append(naming.BACKTEST_ATTEMPTS, ATTEMPT)
    assert world.request(sensor).run_key == "cost-recorded-1-1"


def test_a_retrain_that_reported_its_attempts_needs_no_run(world: Any, sensor: dg.SensorDefinition) -> None:
    world.ledgers.append(naming.ATTEMPTS, ATTEMPT)
    report(world)
    assert "all attempts are reported" in world.reason(sensor)
    world.ledgers.append(naming.ATTEMPTS, ATTEMPT)
    world.cursors.clear()
    assert world.request(sensor).run_key == "cost-recorded-2-0"
