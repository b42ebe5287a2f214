"""Execute a run that sleeps, in a process that a test can kill: `python -m tests.doubles.sleeping_run HOME JOB`."""

from __future__ import annotations

import sys
import time

import dagster as dg


def job_of(name: str) -> dg.JobDefinition:
    @dg.op
    def sleep() -> None:
        time.sleep(600)

    @dg.job(name=name)
    def sleeping() -> None:
        sleep()

    return sleeping


def main(home: str, name: str) -> None:
    """Execute the job on the instance of a Dagster home."""
    with dg.DagsterInstance.from_config(home) as instance:
        job_of(name).execute_in_process(instance=instance)


if __name__ == "__main__":
    main(*sys.argv[1:])
