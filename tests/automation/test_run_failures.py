"""Each failed run is recorded once; equal failures raise one alert; other runs are not recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.sensors import run_failures
from platform_assets.base import naming
from tests.doubles import recorded

RANGE = {"dagster/asset_partition_range_start": "2020-01-02", "dagster/asset_partition_range_end": "2020-01-04"}
AT = datetime(2020, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return run_failures.watch.build([recorded.SPEC])


def planned(error: str, tags: Mapping[str, str] = RANGE, run_id: str = "r1") -> run_failures.Plan:
    return run_failures.plan("advance__recorded", run_id, tags, step="features", error=error, at=AT)


def test_the_record_names_range_step_and_first_line() -> None:
    result = planned("\n  rows are missing\nmore of it\n")
    assert result.text == "advance__recorded for 2020-01-02 to 2020-01-04 failed in features: rows are missing"
    assert (result.record.first, result.record.last) == ("2020-01-02", "2020-01-04")
    assert result.record.error == "rows are missing"
    cutoff = planned("no", {"dagster/partition": "2020-01-08"})
    assert (cutoff.record.first, cutoff.record.last) == ("2020-01-08", "2020-01-08")
    assert planned("", {}).record.error == "no error message"


def test_the_same_failure_has_the_same_alert_whatever_process_it_names() -> None:
    assert planned("process 123 is gone", run_id="r2").alert_id == planned("process 99 is gone").alert_id
    assert planned("another").alert_id != planned("one").alert_id
    assert planned("one", {"dagster/partition": "2020-01-08"}).alert_id != planned("one").alert_id


def failing(name: str, problem: Exception | None, tags: Mapping[str, str] | None = None) -> dg.JobDefinition:
    @dg.op(name=f"op_of_{name}")
    def step() -> None:
        if problem is not None:
            raise problem

    @dg.job(name=name, tags=dict(tags or {}))
    def job() -> None:
        step()

    return job


def test_failed_runs_are_recorded_and_raise_one_alert(world: Any, sensor: dg.SensorDefinition) -> None:
    assert "from now on" in world.reason(sensor)
    for _ in range(2):
        failing("advance__recorded", ValueError("rows are missing\nand more")).execute_in_process(
            instance=world.instance, raise_on_error=False, tags=dict(RANGE)
        )
    failing("release__recorded", dg.Failure("refused: it failed its evaluation")).execute_in_process(
        instance=world.instance, raise_on_error=False
    )
    failing("advance__recorded", None).execute_in_process(instance=world.instance)
    failing("elsewhere", ValueError("not ours")).execute_in_process(instance=world.instance, raise_on_error=False)
    reason = world.reason(sensor)
    assert (
        reason.count("(alert raised)") == 2
        and reason.count("(alert raised before)") == 1
        and "belongs to no product" in reason
    )
    assert "no run has failed since" in world.reason(sensor)
    noted = [item for _, item in world.ledgers.records(naming.FAILURES)]
    assert [item["error"] for item in noted] == ["ValueError: rows are missing"] * 2 + [
        "refused: it failed its evaluation"
    ]
    assert {item["step"] for item in noted} == {"op_of_advance__recorded", "op_of_release__recorded"}
    assert [alert["kind"] for alert in world.alerts()] == ["failure", "failure"]


def test_a_repeated_tick_records_nothing_twice(world: Any, sensor: dg.SensorDefinition) -> None:
    world.reason(sensor)
    before = world.cursors["run_failures"]
    failing("advance__recorded", ValueError("no")).execute_in_process(instance=world.instance, raise_on_error=False)
    for _ in range(2):
        world.cursors["run_failures"] = before
        world.reason(sensor)
    assert len(list(world.ledgers.records(naming.FAILURES))) == 1


def test_a_run_that_dagster_marked_as_failed_is_recorded_with_what_it_wrote_before(
    world: Any, sensor: dg.SensorDefinition
) -> None:
    world.reason(sensor)
    for before, message in (
        ("Run execution process exited with exit code -9", None),
        ("started", "too long\nto start"),
    ):
        run = world.instance.create_run_for_job(failing("advance__recorded", None), tags=dict(RANGE))
        world.instance.report_engine_event(before, run)
        world.instance.report_run_failed(run, message)
    assert world.reason(sensor).count("(alert raised)") == 2
    noted = [item for _, item in world.ledgers.records(naming.FAILURES)]
    assert [item["error"] for item in noted] == ["Run execution process exited with exit code -9", "too long"]
    assert {item["step"] for item in noted} == {None}
