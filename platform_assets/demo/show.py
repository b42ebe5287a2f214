"""Show work that goes on: a bar while it lasts on a terminal, and one line for good when it is done.

Belongs here: how a run or a stream of things looks to a person. What is done does not belong here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from platform_assets.demo.graphql import Dagster, DagsterProblem, Event

T = TypeVar("T")

_EPOCH = re.compile(r"epoch (\d+) of (\d+)")
_STEP_ENDS = ("ExecutionStepSuccessEvent", "ExecutionStepSkippedEvent")


def done(console: Console, what: str, started_s: float) -> None:
    """Print one line for a piece of work that is done."""
    console.print(f"[green]✓[/] {what} [dim]({perf_counter() - started_s:.1f} s)[/]", highlight=False)


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """Give a place for progress bars, which vanish at the end; nothing is drawn without a terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, expand=True, disable=not console.is_terminal) as progress:
        yield progress


def each(console: Console, what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """Yield the items behind a bar."""
    with bars(console) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Turn a wheel while something of unknown length goes on."""
    with bars(console) as progress:
        progress.add_task(what, total=None)
        yield


def run(
    console: Console, dagster: Dagster, job: str, tags: Mapping[str, str], *, check: Callable[[], None], about: str
) -> str:
    """Launch a job, show its steps and epochs while it runs, and return the run's id once it has succeeded.

    Args:
        console: where to show it.
        dagster: the webserver.
        job: the job's name.
        tags: of the run: its partition or range.
        check: raises when waiting has become useless.
        about: what the run does, for a person.
    """
    started_s = perf_counter()
    with waiting(console, f"{job}: being planned"):
        run_id = dagster.launch(job, tags)
    console.print(f"  {about}: {dagster.run_address(run_id)}", highlight=False, soft_wrap=True)
    try:
        keys = _follow(console, dagster, job, run_id, check)
    except BaseException:
        with suppress(DagsterProblem):
            dagster.cancel(run_id)
        raise
    count = len(dagster.steps(run_id))
    done(console, f"{job}: {count} steps" + (f", {keys} keys" if keys > 1 else ""), started_s)
    return run_id


def _follow(console: Console, dagster: Dagster, job: str, run_id: str, check: Callable[[], None]) -> int:
    """Draw a run's progress until it has succeeded; return how many keys it materialised."""
    with bars(console) as progress:
        steps = progress.add_task(f"{job}: waiting for its start", total=len(dagster.steps(run_id)) or None)
        epochs: TaskID | None = None
        keys: set[str] = set()
        for event in dagster.follow(run_id, check):
            if event.partition:
                keys.add(event.partition)
            if event.kind == "ExecutionStepStartEvent":
                progress.update(steps, description=f"{job}: {_bare(event)}")
            elif event.kind in _STEP_ENDS:
                progress.advance(steps)
            elif found := _EPOCH.search(event.message):
                done_epochs, all_epochs = map(int, found.groups())
                if epochs is None:
                    epochs = progress.add_task("training: epochs", total=all_epochs)
                progress.update(epochs, completed=done_epochs)
    return len(keys)


def _bare(event: Event) -> str:
    """Return a step's asset without its product: `flight_delays__raw_weather` is `raw_weather`."""
    return (event.step or "").split("__", 1)[-1]
