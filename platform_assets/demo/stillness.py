"""Say what a demo waits for where no run has begun or ended for a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from platform_assets.demo.runs import Run

SILENT_S = 60.0
LOOK_S = 5.0
"""Between two looks at Dagster's runs."""


class Runs(Protocol):
    """What knows of runs: `runs.Dagster`."""

    address: str

    def runs(self, *, job: str | None = None, limit: int = 100) -> list[Run]:
        """Return runs, the newest first."""


class Stillness:
    """A check that a demo calls while it waits, which also says for what."""

    def __init__(self, check: Callable[[], None], dagster: Runs, silent_s: float = SILENT_S) -> None:
        """Count from now.

        Args:
            check: raises when waiting is pointless.
        """
        self._check, self._dagster, self._silent_s = check, dagster, silent_s
        self._seen: tuple[tuple[str, bool], ...] = ()
        self._moved_s = self._looked_s = time.monotonic()

    def __call__(self) -> None:
        """Check, and look at the runs now and then."""
        self._check()
        now_s = time.monotonic()
        if now_s - self._looked_s < min(LOOK_S, self._silent_s):
            return
        self._looked_s, runs = now_s, self._dagster.runs(limit=20)
        seen = tuple((run.id, run.is_under_way) for run in runs)
        if seen != self._seen:
            self._seen, self._moved_s = seen, now_s
        elif now_s - self._moved_s >= self._silent_s:
            print(f"  nothing has moved for {now_s - self._moved_s:.0f} s; waiting for {self._what(runs)}", flush=True)
            self._moved_s = now_s

    def _what(self, runs: list[Run]) -> str:
        running = [f"{run.job}, which runs: {self._dagster.address}/runs/{run.id}" for run in runs if run.is_under_way]
        return "; ".join(running) or f"a sensor to begin a run: {self._dagster.address}/automation"
