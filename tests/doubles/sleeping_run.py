"""Execute a run that sleeps, in a process that a test can kill: `python -m tests.doubles.sleeping_run HOME JOB`."""

import sys
import time

import dagster as dg


def main(home: str, name: str) -> None:
    with dg.DagsterInstance.from_config(home) as instance:

        @dg.op
        def sleep() -> None:
            time.sleep(600)

        @dg.job(name=name)
        def sleeping() -> None:
            sleep()

        sleeping.execute_in_process(instance=instance)


if __name__ == "__main__":
    main(*sys.argv[1:])
