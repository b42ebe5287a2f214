"""Each failed run is recorded once; equal failures raise one alert; other runs are not recorded."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation import failed_runs
from platform_assets.base import naming
from platform_assets.sensors import run_failures
from platform_assets.store.records.alerts import Failure
from tests.doubles import recorded

pytestmark = pytest.mark.slow

RANGE = {"dagster/asset_partition_range_start": "2020-01-02", "dagster/asset_partition_range_end": "2020-01-04"}
AT = datetime(2020, 1, 5, tzinfo=UTC)
SENSOR = run_failures.watch.build([recorded.SPEC])


def failed(error: str, tags: Mapping[str, str] = RANGE, run_id: str = "r1") -> Failure:
    return failed_runs.record_of("advance__recorded", run_id, tags, step="features", error=error, at=AT)


def alert_id(error: str, tags: Mapping[str, str] = RANGE, run_id: str = "r1") -> str:
    return run_failures.alert_of(failed(error, tags, run_id)).id


def test_the_record_names_range_step_and_first_line() -> None:
    result = failed("\n  rows are missing\nmore of it\n")
    assert (
        run_failures.alert_of(result).text
        == "advance__recorded for 2020-01-02 to 2020-01-04 failed in features: rows are missing"
    )
    assert (result.first, result.last) == ("2020-01-02", "2020-01-04")
    assert result.error == "rows are missing"
    cutoff = failed("no", {"dagster/partition": "2020-01-08"})
    assert (cutoff.first, cutoff.last) == ("2020-01-08", "2020-01-08")
    assert failed("", {}).error == "no error message"


def test_the_same_failure_has_the_same_alert_whatever_process_it_names() -> None:
    assert alert_id("process 123 is gone", run_id="r2") == alert_id("process 99 is gone")
    assert alert_id("another") != alert_id("one")
    assert alert_id("one", {"dagster/partition": "2020-01-08"}) != alert_id("one")


def failing(name: str, problem: Exception | None, tags: Mapping[str, str] | None = None) -> dg.JobDefinition:
    @dg.op(name=f"op_of_{name}")
    def step() -> None:
        if problem is not None:
            raise problem

    @dg.job(name=name, tags=dict(tags or {}))
    def job() -> None:
        step()

    return job


def test_failed_runs_are_recorded_and_raise_one_alert(world: Any) -> None:
    assert "from now on" in world.reason(SENSOR)
    for _ in range(2):
        failing("advance__recorded", ValueError("rows are missing\nand more")).execute_in_process(
            instance=world.instance, raise_on_error=False, tags=dict(RANGE)
        )
    failing("release__recorded", dg.Failure("refused: it failed its evaluation")).execute_in_process(
        instance=world.instance, raise_on_error=False
    )
    failing("advance__recorded", None).execute_in_process(instance=world.instance)
    failing("elsewhere", ValueError("not ours")).execute_in_process(instance=world.instance, raise_on_error=False)
    reason = world.reason(SENSOR)
    assert (
        reason.count("(alert raised)") == 2
        and reason.count("(alert raised before)") == 1
        and "belongs to no product" in reason
    )
    assert "no run has failed since" in world.reason(SENSOR)
    noted = [item for _, item in world.ledgers.records(naming.FAILURES)]
    assert [item["error"] for item in noted] == ["ValueError: rows are missing"] * 2 + [
        "refused: it failed its evaluation"
    ]
    assert {item["step"] for item in noted} == {"op_of_advance__recorded", "op_of_release__recorded"}
    assert [alert["kind"] for alert in world.alerts()] == ["failure", "failure"]


def test_a_repeated_tick_records_nothing_twice(world: Any) -> None:
    world.reason(SENSOR)
    before = world.cursors["run_failures"]
    failing("advance__recorded", ValueError("no")).execute_in_process(instance=world.instance, raise_on_error=False)
    for _ in range(2):
        world.cursors["run_failures"] = before
        world.reason(SENSOR)
    assert len(list(world.ledgers.records(naming.FAILURES))) == 1


def test_a_run_that_dagster_marked_as_failed_is_recorded_with_what_it_wrote_before(world: Any) -> None:
    world.reason(SENSOR)
    for before, message in (
        ("Run execution process exited with exit code -9", None),
        ("started", "too long\nto start"),
    ):
        run = world.instance.create_run_for_job(failing("advance__recorded", None), tags=dict(RANGE))
        world.instance.report_engine_event(before, run)
        world.instance.report_run_failed(run, message)
    assert world.reason(SENSOR).count("(alert raised)") == 2
    noted = [item for _, item in world.ledgers.records(naming.FAILURES)]
    assert [item["error"] for item in noted] == ["Run execution process exited with exit code -9", "too long"]
    assert {item["step"] for item in noted} == {None}
