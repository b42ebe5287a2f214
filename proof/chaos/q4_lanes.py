"""Keep launchers at work side by side: a lane launches one work again and again until it finished, then the next."""

import itertools
import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from proof.chaos.q4_launch import FAILED, Launch, start
from tests.cluster.step_runs import StepRuns
from tests.doubles.marks import BucketMarks

STEPS, STEP_S, EVERY = 112, 0.25, 4
"""A work takes 28 s when nothing happens to it, and loses a second of work at most."""
IN_ORDERS = ("image", "unschedulable")
"""Faults of how a work is ordered: they are inflicted when a new work begins."""


@dataclass
class Lane:
    """One work and its launcher.

    Attributes:
        is_watching: whether nothing was done to the launcher; a pod whose launcher was just killed has had enough.
    """

    launch: Launch
    process: ForkServerProcess
    is_watching: bool = True

    @property
    def marks(self) -> BucketMarks:
        """Of the step's own state."""
        return BucketMarks(self.launch.count["folder"])

    def kill(self) -> None:
        self.is_watching = False
        self.process.kill()
        self.process.join()

    def signal(self, number: int) -> bool:
        self.is_watching = False
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        return True


@dataclass
class Lanes:
    """Launchers side by side.

    Attributes:
        faults: of the next orders.
        exits: how launchers ended, by exit code.
    """

    runs: StepRuns
    folder: Path
    count: int
    faults: deque[str] = field(default_factory=deque)
    exits: Counter[int] = field(default_factory=Counter)
    lanes: list[Lane] = field(default_factory=list)
    works: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = self.runs.process_environment()

    def turn(self, *, is_last: bool) -> bool:
        """Launch what is to be launched; return whether anything is at work.

        Args:
            is_last: whether to begin no new work, but for those that are to fail in their order.
        """
        for lane in [lane for lane in self.lanes if not lane.process.is_alive()]:
            code = lane.process.exitcode or 0
            self.exits[code] += 1
            self.lanes.remove(lane)
            if code:
                again = Launch(**{**vars(lane.launch), "fault": None})
                self.lanes.append(Lane(again, start(again)))
        while len(self.lanes) < self.count and (self.faults or not is_last):
            new = self._launch(next(self.works), self.faults.popleft() if self.faults else None)
            self.lanes.append(Lane(new, start(new)))
        return bool(self.lanes)

    def close(self) -> None:
        for lane in self.lanes:
            lane.kill()

    @property
    def odd(self) -> int:
        """How many launchers ended as none should: neither well, nor for the step's failure, nor by a signal."""
        return sum(count for code, count in self.exits.items() if code > 0 and code not in (FAILED, CANCELLED))

    def _launch(self, work: int, fault: str | None) -> Launch:
        place = f"{self.runs.settings.root}/works/{work}"
        return Launch(
            folder=self.folder,
            environment=self.environment,
            work=work,
            profile="cpu_spot" if work % 3 else "cpu_small",
            fault=fault,
            count={"folder": place, "steps": STEPS, "step_s": STEP_S, "every": EVERY},
        )


CANCELLED = 1
"""The exit code of Python for an exception, Dagster's interruption among them."""
