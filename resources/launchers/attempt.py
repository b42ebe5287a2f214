"""Hold what a launcher knows of one try while it makes it: what was asked for, and what it has seen so far.

Belongs here: values that the parts of a launcher hand to each other. Does not belong here: making a try, or what a
record says of it (`records.py`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg

from platform_assets.profiles import StepProfile
from platform_assets.records.attempts import Launch, ProcessLocation
from resources.launchers.endings import Try

LAST_LINES = 20
MOST_LINES = 2000
"""What a step writes goes into the run's event log up to here; the last lines are shown in any case."""
LONGEST_LINE = 4000
"""Of a line that is longer than these many characters the rest is not shown."""


@dataclass
class Seen:
    """What a launcher has learned of a try so far; the record of a try is made of it however the try ends.

    Attributes:
        where: what is known of it.
        asked_at, started_at: of the step's process, by the clock of the place where it runs.
        ended_at: when it was found to be over, by the clock of the place where it ran.
        lines: how many it wrote.
        last_lines: the newest of them.
        is_over: whether the run has gone on; a line that comes later finds no log to go to.
    """

    where: ProcessLocation = field(default_factory=ProcessLocation)
    asked_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    lines: int = 0
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    is_over: bool = False

    def wrote(self, line: str, log: dg.DagsterLogManager) -> None:
        """Take note of a line of the step, and forward it to the run's log while that has room."""
        if self.is_over:
            return
        self.lines += 1
        if len(line) > LONGEST_LINE:
            line = f"{line[:LONGEST_LINE]} ... (cut short)"
        self.last_lines.append(line)
        if self.lines <= MOST_LINES:
            log.info(line)
        elif self.lines == MOST_LINES + 1:
            log.warning(f"the step wrote more than {MOST_LINES} lines; what follows is not copied to this log.")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a step, under way.

    Attributes:
        context: of the asset that waits.
        session: what the step is told and how it answers.
        module: of the step.
        plan: the size of this try.
        launch: what stands in its record from the start.
        seen: to be filled while it runs.
    """

    context: dg.AssetExecutionContext
    session: dg.PipesSession
    module: str
    plan: Try
    launch: Launch
    seen: Seen

    @property
    def id(self) -> str:
        """Of its record."""
        return self.launch.id

    @property
    def size(self) -> StepProfile:
        """The profile in which it runs."""
        return self.plan.profile
