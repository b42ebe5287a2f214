"""A run whose process is gone is marked as failed, with a reason; a run with a process never is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.automation.sensors import orphaned_steps
from platform_assets.automation.sensors.orphaned_steps import Process, Worker, plan
from platform_assets.base.settings import Settings
from platform_assets.instance import home
from tests.doubles import recorded

STARTING, STARTED = dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED
CANCELING, FAILURE = dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.FAILURE
WORKER = Worker(pid=7, logged_at_s=1000.0)
ALIVE, ANOTHER = Process(created_at_s=999.0, is_zombie=False), Process(created_at_s=1100.0, is_zombie=False)
ZOMBIE = Process(created_at_s=999.0, is_zombie=True)


@pytest.fixture(scope="module")
def sensor() -> dg.SensorDefinition:
    return orphaned_steps.watch.build([recorded.SPEC])


@pytest.mark.parametrize(
    ("status", "workers", "announced_s", "action"),
    [
        (STARTED, [(WORKER, ALIVE)], None, "leave"),
        (STARTED, [(WORKER, None)], None, "fail"),
        (STARTED, [(WORKER, ANOTHER)], None, "fail"),
        (STARTED, [(WORKER, ZOMBIE)], None, "fail"),
        (STARTED, [(WORKER, None), (WORKER, ALIVE)], None, "leave"),
        (STARTED, [], None, "leave"),
        (CANCELING, [(WORKER, ALIVE)], None, "leave"),
        (CANCELING, [(WORKER, None)], None, "cancel"),
        (CANCELING, [], None, "cancel"),
        (STARTING, [], 5.0, "leave"),
        (STARTING, [], None, "leave"),
        (STARTING, [], 61.0, "fail"),
        (STARTING, [(WORKER, None)], 5.0, "fail"),
        (STARTING, [(WORKER, ALIVE)], 500.0, "leave"),
    ],
)
def test_a_run_is_left_failed_or_cancelled_by_the_state_of_its_process(
    status: Any, workers: Any, announced_s: float | None, action: str
) -> None:
    result = plan(status, workers, starting_s=announced_s)
    assert result.action == action
    assert result.reason


@pytest.fixture
def local(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The instance of this test's Dagster home, which starts runs as processes."""
    with dg.DagsterInstance.from_config(str(home.prepare(settings))) as instance:
        yield instance


def start(settings: Settings, repository: Path, job: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.doubles.sleeping_run", str(settings.dagster_home), job]
    return subprocess.Popen(command, cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_run(instance: dg.DagsterInstance, job: str) -> dg.DagsterRun:
    """Wait until the run's step has begun, so that its process is on record."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=[STARTED])):
            if instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_START).records:
                return run
        time.sleep(0.1)
    raise TimeoutError(f"{job} did not start")


def evaluate(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> str:
    result = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SensorResult) and result.skip_reason is not None
    return result.skip_reason.skip_message or ""


def test_a_killed_run_is_marked_as_failed_and_a_running_one_left_alone(
    settings: Settings, repository: Path, local: dg.DagsterInstance, sensor: dg.SensorDefinition
) -> None:
    killed = start(settings, repository, "advance__recorded")
    alive = start(settings, repository, "retrain__recorded")
    foreign = start(settings, repository, "advance__elsewhere")
    try:
        runs = {
            job: wait_for_run(local, job) for job in ("advance__recorded", "retrain__recorded", "advance__elsewhere")
        }
        assert evaluate(sensor, local) == "under way and alive: 2 runs"
        for process in (killed, foreign):
            os.kill(process.pid, signal.SIGKILL)
        for process in (killed, foreign):  # gone and not reaped: a zombie counts as gone
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        reason = evaluate(sensor, local)
        assert f"advance__recorded {runs['advance__recorded'].run_id}: its process is gone" in reason
        statuses = {job: local.get_run_by_id(run.run_id).status for job, run in runs.items()}
        assert statuses == {
            "advance__recorded": FAILURE,
            "retrain__recorded": STARTED,
            "advance__elsewhere": STARTED,
        }, "a run of an unknown product is not ours"
        assert evaluate(sensor, local) == "under way and alive: 1 run"
        events = local.get_records_for_run(
            runs["advance__recorded"].run_id, of_type=dg.DagsterEventType.RUN_FAILURE
        ).records
        assert "its process is gone" in (events[0].event_log_entry.dagster_event.message or "")
    finally:
        for process in (killed, alive, foreign):
            process.kill()
            process.wait()


def test_a_run_whose_launch_was_interrupted_is_marked_as_failed_after_a_while(
    local: dg.DagsterInstance, sensor: dg.SensorDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dg.DagsterRun(job_name="advance__recorded")
    local.add_run(run)
    announced = dg.DagsterEvent(event_type_value="PIPELINE_STARTING", job_name=run.job_name)
    local.report_dagster_event(announced, run_id=run.run_id)
    assert evaluate(sensor, local) == "under way and alive: 1 run"
    monkeypatch.setattr(orphaned_steps, "START_S", -1.0)
    assert "the launch was interrupted" in evaluate(sensor, local)
    assert local.get_run_by_id(run.run_id).status is FAILURE


def test_a_lost_run_is_marked_as_failed_among_any_number_of_newer_ones(
    local: dg.DagsterInstance, sensor: dg.SensorDefinition, crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dg.DagsterRun(job_name="advance__recorded", status=STARTING)
    local.add_run(run)
    announced = dg.DagsterEvent(event_type_value="PIPELINE_STARTING", job_name=run.job_name)
    local.report_dagster_event(announced, run_id=run.run_id)
    crowd(local, 51)
    monkeypatch.setattr(orphaned_steps, "START_S", -1.0)
    assert "the launch was interrupted" in evaluate(sensor, local)
    assert local.get_run_by_id(run.run_id).status is FAILURE


def test_runs_of_other_launchers_are_left_alone(instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> None:
    assert "not as processes of this machine" in evaluate(sensor, instance)
