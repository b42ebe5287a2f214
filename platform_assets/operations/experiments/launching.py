"""Launch steps from a terminal: each launcher needs a run of Dagster's, which the records of attempts name."""

from collections.abc import Callable
from typing import TypeVar

import dagster as dg

from platform_assets.base.settings import Settings

T = TypeVar("T")


def in_a_run(settings: Settings, job: str, work: Callable[[dg.AssetExecutionContext], T]) -> T:
    """Do work in a run of its own, whose warnings are printed; return its result.

    Raises:
        dagster.Failure: a step failed.
    """
    results: list[T] = []

    @dg.op(name="steps")
    def steps(context: dg.OpExecutionContext) -> None:
        results.append(work(dg.AssetExecutionContext(context)))

    graph = dg.GraphDefinition(name=job, node_defs=[steps])
    # A sensor ends pods whose run does not exist; other steps die with this process.
    is_lasting = settings.launcher == "kubernetes"
    with dg.DagsterInstance.get() if is_lasting else dg.DagsterInstance.ephemeral() as instance:
        graph.execute_in_process(
            instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
        )
    return results[0]
