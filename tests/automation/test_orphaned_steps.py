"""A run whose process is gone is marked as failed, with a reason; a run with a process never is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from platform_assets.base.settings import Settings
from platform_assets.instance import home
from platform_assets.instance.copying_launcher import PROCESS
from platform_assets.launch import orphaned_runs
from platform_assets.launch.orphaned_runs import Process, plan
from platform_assets.sensors import orphaned_steps
from tests.doubles import recorded

pytestmark = pytest.mark.slow

STARTING, STARTED = dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED
CANCELING, FAILURE = dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.FAILURE
LOGGED_AT_S = 1000.0
ALIVE, ANOTHER = Process(created_at_s=999.0, is_zombie=False), Process(created_at_s=1100.0, is_zombie=False)
ZOMBIE = Process(created_at_s=999.0, is_zombie=True)
SENSOR = orphaned_steps.watch.build([recorded.SPEC])


@pytest.mark.parametrize(
    ("status", "workers", "announced_s", "action"),
    [
        (STARTED, [(LOGGED_AT_S, ALIVE)], None, "leave"),
        (STARTED, [(LOGGED_AT_S, None)], None, "fail"),
        (STARTED, [(LOGGED_AT_S, ANOTHER)], None, "fail"),
        (STARTED, [(LOGGED_AT_S, ZOMBIE)], None, "fail"),
        (STARTED, [(LOGGED_AT_S, None), (LOGGED_AT_S, ALIVE)], None, "leave"),
        (STARTED, [], None, "leave"),
        (CANCELING, [(LOGGED_AT_S, ALIVE)], None, "leave"),
        (CANCELING, [(LOGGED_AT_S, None)], None, "cancel"),
        (CANCELING, [], None, "cancel"),
        (STARTING, [], 5.0, "leave"),
        (STARTING, [], None, "leave"),
        (STARTING, [], 61.0, "fail"),
        (STARTING, [(LOGGED_AT_S, None)], 5.0, "fail"),
        (STARTING, [(LOGGED_AT_S, ALIVE)], 500.0, "leave"),
    ],
)
def test_a_run_is_left_failed_or_cancelled_by_the_state_of_its_process(
    status: Any, workers: Any, announced_s: float | None, action: str
) -> None:
    result = plan(status.value, workers, starting_s=announced_s)
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
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=[STARTED])):
            if instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_START).records:
                return run
        time.sleep(0.1)
    raise TimeoutError(f"{job} did not start")


def evaluate(instance: dg.DagsterInstance) -> str:
    result = SENSOR(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SensorResult) and result.skip_reason is not None
    return result.skip_reason.skip_message or ""


@pytest.mark.costly
def test_a_killed_run_is_marked_as_failed_and_a_running_one_left_alone(
    settings: Settings, repository: Path, local: dg.DagsterInstance
) -> None:
    killed = start(settings, repository, "advance__recorded")
    alive = start(settings, repository, "retrain__recorded")
    foreign = start(settings, repository, "advance__elsewhere")
    try:
        runs = {
            job: wait_for_run(local, job) for job in ("advance__recorded", "retrain__recorded", "advance__elsewhere")
        }
        assert evaluate(local) == "under way and alive: 2 runs"
        for process in (killed, foreign):
            os.kill(process.pid, signal.SIGKILL)
        for process in (killed, foreign):  # gone and not reaped: a zombie counts as gone
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        reason = evaluate(local)
        assert f"advance__recorded {runs['advance__recorded'].run_id}: its process is gone" in reason
        statuses = {job: local.get_run_by_id(run.run_id).status for job, run in runs.items()}
        assert statuses == {
            "advance__recorded": FAILURE,
            "retrain__recorded": STARTED,
            "advance__elsewhere": STARTED,
        }, "a run of an unknown product is not ours"
        assert evaluate(local) == "under way and alive: 1 run"
        events = local.get_records_for_run(
            runs["advance__recorded"].run_id, of_type=dg.DagsterEventType.RUN_FAILURE
        ).records
        assert "its process is gone" in (events[0].event_log_entry.dagster_event.message or "")
    finally:
        for process in (killed, alive, foreign):
            process.kill()
            process.wait()


def test_a_lost_run_is_marked_as_failed_among_any_number_of_newer_ones(
    local: dg.DagsterInstance, crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dg.DagsterRun(job_name="advance__recorded", status=STARTING)
    local.add_run(run)
    announced = dg.DagsterEvent(event_type_value="PIPELINE_STARTING", job_name=run.job_name)
    local.report_dagster_event(announced, run_id=run.run_id)
    crowd(local, 51)
    monkeypatch.setattr(orphaned_runs, "START_S", -1.0)
    own = psutil.Process()
    local.add_run_tags(run.run_id, {PROCESS: f"{own.pid} {own.create_time()}"})
    assert evaluate(local) == "under way and alive: 1 run", "slow to start"
    local.add_run_tags(run.run_id, {PROCESS: ""})
    assert "the launch was interrupted" in evaluate(local)
    assert local.get_run_by_id(run.run_id).status is FAILURE


def test_runs_of_other_launchers_are_left_alone(instance: dg.DagsterInstance) -> None:
    assert "not as processes of this machine" in evaluate(instance)
