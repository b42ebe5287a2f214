"""Execute one of our runs in its pod: `python -m platform_assets.instance.cluster_run RUN JOB ACCOUNT`.

`dagster api execute_run` loads the code that the run's row names, whenever it reads it: after the launcher has looked
at the row, too. This loads the code of its own image, once, and checks the row that it executes. Written for dagster
1.13.27 and tested with it.
"""

from __future__ import annotations

import os
import sys
from typing import cast

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._core.execution.api import execute_run_iterator
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts

from platform_assets.instance import own_runs
from platform_assets.instance.run_coordinator import RunRefused
from platform_assets.instance.run_launcher import RunLauncher


def main(run_id: str, job: str, account: str) -> None:
    """Execute a run.

    Args:
        job: that the launcher started this pod for.
        account: that it has.

    Raises:
        RunRefused: the row is not, or no longer, of this job and account, or says what only our files may say.
    """
    with capture_interrupts(), dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        if run is None:
            raise RunRefused(f"run {run_id} of {job} is not in Dagster's database any more.")
        try:
            check(run, job, account, cast("RunLauncher", instance.run_launcher).job_image)
            code = recon_job_from_origin(own_runs.origin(job))
            code.get_definition()
            instance.report_engine_event(
                f"Started process for run (pid: {os.getpid()}).", run, EngineEventData.in_process(os.getpid())
            )
            newest = instance.get_run_by_id(run.run_id)
            if newest is not None:  # somebody may have cancelled it while the code was loaded
                run = run.with_status(newest.status)
            try:
                for _ in execute_run_iterator(code, run, instance):
                    pass
            except (KeyboardInterrupt, DagsterExecutionInterruptedError):
                _fail(instance, run)
                instance.report_engine_event("Run execution terminated by interrupt", run)
                raise
        except Exception:
            error = EngineEventData.engine_error(serializable_error_info_from_exc_info(sys.exc_info()))
            instance.report_engine_event("The run could not be executed.", run, error)
            _fail(instance, run)
            raise
        finally:
            instance.report_engine_event(f"Process for run exited (pid: {os.getpid()}).", run)


def check(run: dg.DagsterRun, job: str, account: str, image: str | None) -> None:
    """Check that a row still fits the pod that was started for it.

    Args:
        image: of this deployment's runs.

    Raises:
        RunRefused: it does not.
    """
    own_account = own_runs.account_of(run).name
    if not own_runs.is_own(run) or (run.job_name, own_account) != (job, account):
        raise RunRefused(
            f"run {run.run_id} is of {run.job_name} with the account {own_account}; this pod was started for {job} "
            f"with the account {account}. The row was changed in Dagster's database after the launch."
        )
    for problem in own_runs.problems(run, image):
        raise RunRefused(problem)


def _fail(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    newest = instance.get_run_by_id(run.run_id)
    if newest is not None and not newest.is_finished:
        instance.report_run_failed(newest)


if __name__ == "__main__":
    main(*sys.argv[1:])
