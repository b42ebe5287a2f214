"""Launch steps from a terminal: each launcher needs a run of Dagster's, which the records of attempts name."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from platform_assets.base import naming
from platform_assets.base.settings import Settings

T = TypeVar("T")
BEAT_S = 30.0
"""How often a run says that it is alive."""
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
        with _saying_alive(context.instance, context.run_id):
            results.append(work(dg.AssetExecutionContext(context)))

    graph = dg.GraphDefinition(name=job, node_defs=[steps])
    # A sensor ends pods whose run does not exist; other steps die with this process.
    is_lasting = settings.launcher == "kubernetes"
    with ExitStack() as stack:
        with OPENING:
            opened = dg.DagsterInstance.get() if is_lasting else dg.DagsterInstance.ephemeral()
            instance = stack.enter_context(opened)
        graph.to_job(tags=_alive()).execute_in_process(
            instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
        )
    return results[0]


def _alive() -> dict[str, str]:
    return {naming.TAG_ALIVE: f"{time.time():.0f}"}


@contextmanager
def _saying_alive(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Have a run say that it is alive meanwhile: it has no pod in which a cluster's daemon could see that."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(BEAT_S):
            with suppress(SQLAlchemyError):  # the database is away; the next one may arrive
                instance.add_run_tags(run_id, _alive())

    thread = threading.Thread(target=beat, name="say that the run is alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
