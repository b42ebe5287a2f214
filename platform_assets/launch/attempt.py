"""Hold the state of one try while it runs: the request, and what the launcher has observed so far."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg

from platform_assets.launch.endings import Try
from platform_assets.launch.profiles import StepProfile
from platform_assets.store.records.attempts import Launch, ProcessLocation

LAST_LINES = 20
MOST_LINES = 2000
"""Lines of a step that are copied to the run's event log; the last lines are shown in any case."""
LONGEST_LINE = 4000
"""Characters per line; the rest of a longer line is cut."""


@dataclass
class Observation:
    """What a launcher has observed of a try so far; its record is made from this, however the try ends.

    Attributes:
        location: host, node and process, as far as known.
        asked_at, started_at: of the step's process, by the clock of its host.
        ended_at: when the process was observed to be over, by the clock of its host.
        lines: number of lines it wrote.
        last_lines: the newest of them.
        is_over: whether the run has gone on; a line that arrives later has no log to go to.
        waits_for: why it has no node, in the scheduler's words; empty once it has one.
    """

    location: ProcessLocation = field(default_factory=ProcessLocation)
    asked_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    lines: int = 0
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    is_over: bool = False
    waits_for: str = ""

    def add_line(self, line: str, log: dg.DagsterLogManager) -> None:
        """Store a line of the step, and forward it to the run's log until the limit is reached."""
        if self.is_over:
            return
        self.lines += 1
        if len(line) > LONGEST_LINE:
            line = f"{line[:LONGEST_LINE]} ... (truncated)"
        self.last_lines.append(line)
        if self.lines <= MOST_LINES:
            log.info(line)
        elif self.lines == MOST_LINES + 1:
            log.warning(f"the step wrote more than {MOST_LINES} lines; the rest is not copied to this log.")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a step, under way.

    Attributes:
        context: of the asset that waits for the step.
        session: the step's input and its messages.
        module: of the step.
        plan: profile and memory of this try.
        launch: what its record contains from the start.
        observation: filled in while it runs.
    """

    context: dg.AssetExecutionContext
    session: dg.PipesSession
    module: str
    plan: Try
    launch: Launch
    observation: Observation

    @property
    def size(self) -> StepProfile:
        """The profile in which it runs."""
        return self.plan.profile
