"""Show progress: a bar on a terminal while work lasts, and one line when it is done."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from platform_assets.demo.runs import POLL_S, SENSOR, Dagster, DagsterProblem, Run, RunFailed
from platform_assets.wording import counted

T = TypeVar("T")

PATIENCE_S = 1_800.0
_EPOCH = re.compile(r"epoch (\d+) of (\d+)")


def done(console: Console, what: str, started_s: float) -> None:
    """Print one line for a piece of work that is done."""
    console.print(f"[green]✓[/] {what} [dim]({perf_counter() - started_s:.1f} s)[/]", highlight=False)


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """Yield a display for progress bars, which disappear at the end; without a terminal nothing is drawn."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, expand=True, disable=not console.is_terminal) as progress:
        yield progress


def behind_bar(console: Console, what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """Yield the items behind a bar."""
    with bars(console) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Show a spinner during work of unknown length."""
    with bars(console) as progress:
        progress.add_task(what, total=None)
        yield


def runs_until(
    console: Console, dagster: Dagster, job: str, is_over: Callable[[], bool], *, check: Callable[[], None], about: str
) -> None:
    """Show a job's runs, which sensors launch, until their result exists.

    A failed run is shown, and waiting goes on: its sensor tries again, a bounded number of times.

    Args:
        console: where to show it.
        job: whose runs.
        is_over: whether the result exists.
        check: raises when waiting is pointless.
        about: what the runs do, for the terminal.

    Raises:
        TimeoutError: nothing came in `PATIENCE_S`.
    """
    seen = {run.id for run in dagster.runs(job=job) if not run.is_under_way}
    deadline = perf_counter() + PATIENCE_S
    while not is_over():
        check()
        if perf_counter() > deadline:
            raise TimeoutError(f"{about} did not end within {PATIENCE_S:.0f} s; see {dagster.address}/runs.")
        for run in reversed(dagster.runs(job=job)):
            if run.id not in seen:
                seen.add(run.id)
                _show(console, dagster, run, check, about)
        time.sleep(POLL_S)


def _show(console: Console, dagster: Dagster, run: Run, check: Callable[[], None], about: str) -> None:
    """Show one run until it ends; cancel it when this process is interrupted, so that it does not look alive."""
    started_s = perf_counter()
    by = run.tags.get(SENSOR, "a person")
    console.print(f"  {about}, launched by {by}: {dagster.run_address(run.id)}", highlight=False, soft_wrap=True)
    try:
        keys = _follow(console, dagster, run.job, run.id, check)
    except RunFailed as problem:
        console.print(f"[yellow]![/] {problem}", highlight=False, soft_wrap=True)
        return
    except BaseException:  # Ctrl-C too: a run must not go on when nobody waits for it
        with suppress(DagsterProblem):
            dagster.cancel(run.id)
        raise
    count = len(dagster.steps(run.id))
    done(console, f"{run.job}: {counted(count, 'step')}" + (f", {keys} keys" if keys > 1 else ""), started_s)


class Keys:
    """A bar over the replayed keys, and one below for the steps within a key."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._keys = progress.add_task("replaying keys", total=total)
        self._within = progress.add_task("", total=None)

    def show(self, what: str, done: int, total: int) -> None:
        """Show what goes on within the key, as a moving bar while nothing of it is done; see `replay.Player`."""
        if done:
            self._progress.update(self._within, description=what, completed=done, total=total)
        else:  # an update to no total would leave the last one
            self._progress.remove_task(self._within)
            self._within = self._progress.add_task(what, total=None)

    def advance(self) -> None:
        """Count one more key."""
        self._progress.advance(self._keys)


def _follow(console: Console, dagster: Dagster, job: str, run_id: str, check: Callable[[], None]) -> int:
    """Draw a run's progress until it has succeeded; return how many keys it materialised."""
    with bars(console) as progress:
        steps = progress.add_task(f"{job}: waiting for its start", total=len(dagster.steps(run_id)) or None)
        epochs: TaskID | None = None
        keys: set[str] = set()
        for entry in dagster.follow(run_id, check):
            event = entry.dagster_event
            if event and event.is_step_materialization and event.partition:
                keys.add(event.partition)
            if event and event.is_step_start:
                progress.update(steps, description=f"{job}: {_bare(event.step_key)}")
            elif event and (event.is_step_success or event.is_step_skipped):
                progress.advance(steps)
            elif match := _EPOCH.search(entry.message):
                done_epochs, all_epochs = map(int, match.groups())
                if epochs is None:
                    epochs = progress.add_task("training: epochs", total=all_epochs)
                progress.update(epochs, completed=done_epochs)
    return len(keys)


def _bare(step: str | None) -> str:
    """Return a step's asset without its product: `orders__raw_customers` is `raw_customers`."""
    return (step or "").split("__", 1)[-1]
