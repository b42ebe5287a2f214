"""A file with one job, for Dagster's command line."""

import dagster as dg


@dg.op
def work() -> None: ...


@dg.job
def works() -> None:
    work()
