"""Show runs that sensors launch, and one line for each piece of work that is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter

from platform_assets.demo.runs import POLL_S, SENSOR, Dagster, DagsterProblem, Run, RunFailed

PATIENCE_S = 1_800.0


def done(text: str, started_s: float) -> None:
    """Print one line for a piece of work that is done."""
    print(f"✓ {text} ({perf_counter() - started_s:.1f} s)", flush=True)


def runs_until(
    dagster: Dagster, job: str, is_over: Callable[[], bool], *, check: Callable[[], None], about: str
) -> None:
    """Show a job's runs, which sensors launch, until their result exists.

    A failed run is shown, and waiting goes on: its sensor tries again, a bounded number of times.

    Args:
        dagster: where they run.
        job: whose runs.
        is_over: whether the result exists.
        check: raises when waiting is pointless.
        about: what the runs do, for the terminal.

    Raises:
        TimeoutError: nothing came in `PATIENCE_S`.
    """
    finished = {run.id for run in dagster.runs(job=job) if not run.is_under_way}
    deadline = perf_counter() + PATIENCE_S
    while not is_over():
        check()
        if perf_counter() > deadline:
            raise TimeoutError(f"{about} did not end within {PATIENCE_S:.0f} s; see {dagster.address}/runs.")
        for run in reversed(dagster.runs(job=job)):
            if run.id not in finished:
                finished.add(run.id)
                _show(dagster, run, check, about)
        time.sleep(POLL_S)


def _show(dagster: Dagster, run: Run, check: Callable[[], None], about: str) -> None:
    """Show one run until it ends; cancel it when this process is interrupted, so that it does not look alive."""
    started_s = perf_counter()
    launcher = run.tags.get(SENSOR, "a person")
    print(f"  {about}, launched by {launcher}: {dagster.run_address(run.id)}", flush=True)
    try:
        dagster.wait_for_run(run.id, check)
    except RunFailed as problem:
        print(f"! {problem}", flush=True)
        return
    except BaseException:  # Ctrl-C too: a run must not go on when nobody waits for it
        with suppress(DagsterProblem):
            dagster.cancel(run.id)
        raise
    done(run.job, started_s)
