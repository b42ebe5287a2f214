"""Launch steps from a terminal: each launcher needs a run of Dagster's, which the records of attempts name."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import dagster as dg

from platform_assets.base.settings import Settings

T = TypeVar("T")
OPENING = threading.Lock()
"""Of a Dagster instance: two threads would both create the tables of a new one."""


def in_a_run(settings: Settings, job: str, pool: str, work: Callable[[dg.AssetExecutionContext], T]) -> T:
    """Do work in a run of its own, whose warnings are printed; return its result.

    Args:
        pool: of which the run takes a slot, so that others wait; it does not wait for one itself.

    Raises:
        dagster.Failure: a step failed.
    """
    results: list[T] = []

    @dg.op(name="steps", pool=pool)
    def steps(context: dg.OpExecutionContext) -> None:
        results.append(work(dg.AssetExecutionContext(context)))

    graph = dg.GraphDefinition(name=job, node_defs=[steps])
    # A sensor ends pods whose run does not exist; other steps die with this process.
    is_lasting = settings.launcher == "kubernetes"
    with ExitStack() as stack:
        with OPENING:
            opened = dg.DagsterInstance.get() if is_lasting else dg.DagsterInstance.ephemeral()
            instance = stack.enter_context(opened)
        graph.execute_in_process(
            instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
        )
    return results[0]
