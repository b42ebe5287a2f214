"""The states of an attempt at a step, as values: prepared, launched. `tries.py` takes it from one to the next.

What is known at the start is worked out once, and every later state carries it.
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from platform_assets.base.logs import OF_STEP
from platform_assets.base.wording import one_line
from platform_assets.engine.outside import Work
from platform_assets.launch.endings import Try
from platform_assets.launch.labels import PRODUCT, TEAM, label
from platform_assets.launch.profiles import StepProfile
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import Launch, ProcessLocation

if TYPE_CHECKING:
    import dagster as dg
    from dagster_pipes import PipesParams

LAST_LINES = 20
MOST_LINES = 2000
"""Lines of a step that are copied to the run's event log; the last lines are shown in any case."""
LONGEST_LINE = 4000
"""Characters per line; the rest of a longer line is cut."""


@dataclass(frozen=True)
class StepRequest:
    """A requested step: the arguments of `StepLauncher.run`, and its next try.

    Attributes:
        is_shared: whether the processes of the profile share it.
        withdrawn: set by another thread when nobody waits for the step any more.
    """

    context: dg.AssetExecutionContext
    module: str
    extras: object
    work: Work | None
    plan: Try
    is_shared: bool = False
    withdrawn: threading.Event = field(default_factory=threading.Event)

    def pause(self, seconds: float) -> None:
        """Wait this long.

        Raises:
            KeyboardInterrupt: it was withdrawn before or meanwhile.
        """
        if self.withdrawn.wait(seconds):
            raise KeyboardInterrupt


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An attempt that may start: what is known of it from then on, to a launcher and to whoever finds it later.

    Attributes:
        root: of the store that has its records.
        launch: what its record, its step's input and its pod contain from the start.
        work: what it is for; "none" for what a request left out.
        name: of its pod.
    """

    root: str
    launch: Launch
    work: Work
    name: str

    @cached_property
    def ledgers(self) -> Ledgers:
        """Where its records are."""
        return Ledgers(self.root, self.work.product)

    @property
    def messages(self) -> PipesParams | None:
        """Where its step writes messages already; None for one that has not started."""
        return None

    @property
    def facts(self) -> dict[str, str]:
        """The facts that a pod's labels and annotations contain, unabridged."""
        return {
            "app.kubernetes.io/name": "driftline-step",
            "app.kubernetes.io/component": "step",
            "app.kubernetes.io/managed-by": "driftline",
            PRODUCT: self.work.product,
            **({} if self.work.owner is None else {TEAM: self.work.owner.removeprefix("team:")}),
            "driftline/step": self.work.step,
            "driftline/cutoff": self.work.cutoff,
            "driftline/fingerprint": self.work.fingerprint,
            "driftline/attempt": self.launch.id,
            "driftline/run-id": self.launch.run_id,
            "driftline/profile": self.launch.profile,
            "driftline/spot": str(self.launch.is_spot).lower(),
        }

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its pod."""
        return {key: label(value) for key, value in self.facts.items()} | self.selector

    @property
    def selector(self) -> dict[str, str]:
        """The labels that find the pods of all attempts at the same work."""
        # A fingerprint has 64 characters, and a label's value 63 at most.
        return {"driftline/fingerprint": label(self.work.fingerprint[:40]), "driftline/step": label(self.work.step)}


def begin(work: Work | None, plan: Try, *, run_id: str, launcher: str) -> Launch:
    """Return the launch of an attempt that starts now; it is also part of the step's input."""
    size = plan.profile
    per_node = size.usd_per_hour if size.on_demand_usd_per_hour is None else size.on_demand_usd_per_hour
    return Launch(
        id=uuid.uuid4().hex,
        product=work.product if work else None,
        step=work.step if work else None,
        fingerprint=work.fingerprint if work else None,
        cutoff=work.cutoff if work else None,
        run_id=run_id,
        launcher=launcher,
        profile=size.name,
        is_spot=size.is_spot,
        memory_gb=plan.memory_gb,
        usd_per_hour=size.usd_per_hour_in_all,
        on_demand_usd_per_hour=size.nodes * per_node,
        priced_on=size.priced_on,
        requested_at_utc=datetime.now(UTC).isoformat(),
        save_limit_s=size.save_s,
        data_zone=size.data_zone,
        cross_zone_usd_per_gb=size.cross_zone_usd_per_gb,
    )


def prepare(root: str, launch: Launch, owner: str | None = None) -> Prepared:
    """Return an attempt by its launch: a new one's, or that which a pod or a record has of another one.

    The name is a DNS label that starts with product and step. The same attempt has the same name, so creating its pod
    twice is a conflict instead of a second pod.

    Args:
        owner: of the product, for a new one's labels.
    """
    work = Work(
        product=launch.product or "none",
        step=launch.step or "none",
        cutoff=launch.cutoff or "none",
        fingerprint=launch.fingerprint or "none",
        owner=owner,
    )
    identity = "\n".join([work.product, work.step, work.cutoff, work.fingerprint, launch.id])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    readable = re.sub(r"[^a-z0-9]+", "-", f"{work.product}-{work.step}".lower()).strip("-")
    # A label has 63 characters. Pods of a Job add a dash and their number, and Kubernetes refuses a Job without room.
    name = "-".join(part for part in ("driftline", readable[:32].strip("-"), digest) if part)
    return Prepared(root=root, launch=launch, work=work, name=name)


def new(root: str, request: StepRequest, launcher: str) -> Prepared:
    """Return an attempt that starts now, at a request's next try."""
    launch = begin(request.work, request.plan, run_id=request.context.run.run_id, launcher=launcher)
    return prepare(root, launch, request.work.owner if request.work else None)


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
        waits_for: why it has no node, see `Launched.note_wait`; empty once it has one.
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
        if self.is_over or OF_STEP in line:  # those come by Pipes
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
class Launched:
    """An attempt whose step has its input, and whose messages are read.

    Attributes:
        prepared: what was known before.
        request: whose try it is.
        session: the step's input and its messages.
        observation: filled in while it runs.
    """

    prepared: Prepared
    request: StepRequest
    session: dg.PipesSession
    observation: Observation

    @property
    def size(self) -> StepProfile:
        """The profile in which it runs."""
        return self.request.plan.profile

    @property
    def log(self) -> dg.DagsterLogManager:
        """The log of the run that waits for it."""
        return self.request.context.log

    def note_wait(self, what: str, message: str) -> None:
        """Log what the step waits for, in a scheduler's or a queue's words, as often as these change."""
        reason = one_line(message)
        if reason and reason != self.observation.waits_for:
            self.log.info(f"the step waits {what} ({self.size.name}): {reason}")
        self.observation.waits_for = reason
