"""Write the record of a try: what it was for, where it ran, how it ended, what it cost.

Belongs here: the launcher's half, which knows why a try ended and what is paid for. Does not belong here: the step's
half (`platform_assets/steps/attempt.py`), which knows how far it came and cannot speak when it was killed.

Both write a record under the same id; readers take the launcher's (`platform_assets.records.attempts.unique_attempts`).
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime

from platform_assets import naming
from platform_assets.failures import CODE, NODE_LOST, PREEMPTED
from platform_assets.records.attempts import (
    ANNOUNCED,
    ATTEMPTS,
    BACKTEST_ATTEMPTS,
    LAUNCHER,
    PROGRESS,
    Announced,
    Attempt,
    Launch,
    ProcessLocation,
)
from platform_assets.records.base import Number, Part, RecordKind
from platform_assets.settings import Settings
from platform_assets.storage.ledgers import Ledgers
from resources.launchers.endings import Ending, Try, Work

BY = LAUNCHER
FINISHED, UNDER_WAY = "finished", "under_way"
LOOKED_BACK = 4
"""Among how many holders of a lease an attempt is looked for; the next one may hold it already. As many of the newest
announcements of a work are looked at: whoever launches it settles those before, so that one is open, two if two did."""
UNKNOWN = {"host": "", "pid": 0, "resumed_from_step": 0, "steps_done": 0, "steps_saved": 0, "fence": 0}
"""Of an attempt that nobody saw at work."""


class Reported(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What of a step's result stands in its record: the digest of what it made, by its own name, and what it used."""

    bundle: str | None = None
    checkpoint: str | None = None
    fit: str | None = None
    cpu_s: Number | None = None
    peak_memory_mb: Number | None = None

    @property
    def digest(self) -> str | None:
        """Of what it made."""
        return self.bundle or self.checkpoint or self.fit


def begun(work: Work | None, plan: Try, *, run_id: str, launcher: str) -> Launch:
    """Return what is known of an attempt that starts now; the step is told it too."""
    size = plan.profile
    on_demand = size.usd_per_hour if size.on_demand_usd_per_hour is None else size.on_demand_usd_per_hour
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
        usd_per_hour=size.usd_per_hour,
        on_demand_usd_per_hour=on_demand,
        priced_on=size.priced_on,
        requested_at_utc=datetime.now(UTC).isoformat(),
    )


def work_of(launch: Launch) -> Work:
    """Return what an attempt is for."""
    return Work(
        product=launch.product or "none",
        step=launch.step or "none",
        cutoff=launch.cutoff or "none",
        fingerprint=launch.fingerprint or "none",
        ledger=naming.BACKTEST_ATTEMPTS if launch.step == "backtest" else naming.ATTEMPTS,
    )


def write(
    settings: Settings,
    work: Work,
    launch: Launch,
    ending: Ending,
    where: ProcessLocation,
    started_at: datetime | None,
    *,
    result: Reported | None = None,
    reason: str | None = None,
) -> Attempt:
    """Append an attempt's record and return it.

    Args:
        launch: from `begun`.
        where: what was seen of its host and process.
        started_at: of its process, where the ending does not know.
        result: what it reported, when it finished.
        reason: instead of the ending's class.

    Raises:
        LedgerProblem: the store does not take it.
    """
    ledgers = Ledgers(settings.root, work.product)
    record = record_of(launch, ending, where, started_at, _progress(ledgers, work, launch.id), result, reason)
    ledgers.of(_kind(work)).append(record)
    return record


def announce(settings: Settings, work: Work, launch: Launch) -> None:
    """Append that an attempt is under way, before anything of it is started; its own record stands once it ends.

    A ledger of the work's own says from which number on the attempt is told of: others may tell of a hundred meanwhile.

    Raises:
        LedgerProblem: the store does not take it; then nothing is started.
    """
    ledgers = Ledgers(settings.root, work.product)
    ledgers.of(_announced(work)).append(Announced(id=launch.id, after=ledgers.newest_number(work.ledger)))
    nothing = {"by": BY, "reason": UNDER_WAY, "said": "", "steps_lost": 0}
    times = {"started_at_utc": "", "ended_at_utc": "", "wall_s": 0.0}
    costs = {"cost_usd": 0.0, "on_demand_cost_usd": 0.0}
    document = {**UNKNOWN, **launch.document(), **nothing, **times, **costs}
    ledgers.of(_kind(work)).append(ATTEMPTS.read(document, f"attempt {launch.id}"))


def abandoned(settings: Settings, work: Work) -> list[Attempt]:
    """Return the announced attempts at this work of which no end is on record."""
    ledgers = Ledgers(settings.root, work.product)
    newest = [_told(ledgers, work, record) for _, record in ledgers.of(_announced(work)).newest(LOOKED_BACK)]
    return [record for record in reversed(newest) if record is not None and record.reason == UNDER_WAY]


def _announced(work: Work) -> RecordKind[Announced]:
    return ANNOUNCED.of(f"{work.step}-{work.fingerprint}")


def _kind(work: Work) -> RecordKind[Attempt]:
    return BACKTEST_ATTEMPTS if work.ledger == BACKTEST_ATTEMPTS.ledger else ATTEMPTS


def _told(ledgers: Ledgers, work: Work, announced: Announced) -> Attempt | None:
    """Return what a launcher told last of an announced attempt; None when it was killed before it told anything."""
    told = None
    for _, record in ledgers.of(_kind(work)).records(announced.after + 1):
        if record.id == announced.id and record.by == BY:
            told = record
            if told.reason != UNDER_WAY:
                break
    return told


def settle(settings: Settings, work: Work, launch: Launch) -> None:
    """Record the end of an attempt whose pod is gone and whose launcher saw nothing of it: by the step's last word."""
    told = _progress(Ledgers(settings.root, work.product), work, launch.id)
    heard_at = datetime.fromisoformat((told and told.ended_at_utc) or launch.requested_at_utc)
    ending = Ending(failure=NODE_LOST, said="its pod is gone, and nobody watched it", ended_at=heard_at)
    if told and told.reason == FINISHED:
        ending = replace(ending, failure=None, said=f"{ending.said}; the step itself said that it finished")
    write(settings, work, launch, unseen(settings, launch, ending, heard_at), ProcessLocation(), None)


def unseen(settings: Settings, launch: Launch, ending: Ending, until: datetime) -> Ending:
    """Complete the ending of a process whose end no status showed.

    A step that was told to stop, or failed by its own error, has time to say so, and then its word stands: a pod that
    ends within its grace is often gone before anybody polls. Of every other one nothing is known but that it is over
    now, and what is not known to have stopped is paid for.

    Args:
        until: when its place was given up, or when this was decided, by the cluster's clock.
    """
    work = work_of(launch)
    told = _progress(Ledgers(settings.root, work.product), work, launch.id)
    if ending.started_at is None and told and told.started_at_utc:
        ending = replace(ending, started_at=datetime.fromisoformat(told.started_at_utc))
    if ending.failure is NODE_LOST and told and told.reason and told.ended_at_utc:
        ending = replace(ending, ended_at=datetime.fromisoformat(told.ended_at_utc))
        if told.reason == PREEMPTED.name:
            said = f"{ending.said}; the step itself said that it was told to stop"
            return replace(ending, failure=PREEMPTED, said=said)
        if told.reason == CODE.name:
            return replace(ending, failure=CODE, said=f"{ending.said}; the step itself said: {told.said}")
        return ending
    return replace(ending, ended_at=until)


def record_of(
    launch: Launch,
    ending: Ending,
    where: ProcessLocation,
    started_at: datetime | None,
    progress: Attempt | None,
    result: Reported | None,
    reason: str | None = None,
) -> Attempt:
    """Return an attempt's record: paid is the time from its process's start to its end; times are of one clock."""
    requested_at = datetime.fromisoformat(launch.requested_at_utc)
    ended_at = ending.ended_at or datetime.now(UTC)
    began_at = ending.started_at or started_at
    wall_s = 0.0 if began_at is None else max(0.0, (ended_at - began_at).total_seconds())
    waited_s = ((began_at or ended_at) - (ending.asked_at or requested_at)).total_seconds()
    # A step that holds no lease, such as an export, tells what it used only in its result.
    used = result.members(("cpu_s", "peak_memory_mb")) if result else {}
    lost = (progress.steps_done or 0) - (progress.steps_saved or 0) if progress else 0
    why = reason or (ending.failure.name if ending.failure else FINISHED)
    document = {
        **UNKNOWN,
        **used,
        **(progress.document() if progress else {}),
        **where.document(),
        **launch.document(),
        "by": BY,
        "reason": why,
        "said": ending.said,
        "exit_code": ending.exit_code,
        "started_at_utc": (began_at or ended_at).isoformat(),
        "ended_at_utc": ended_at.isoformat(),
        "wall_s": round(wall_s, 3),
        "waited_s": round(max(0.0, waited_s), 3),
        "steps_lost": 0 if why == FINISHED else max(0, lost),
        "cost_usd": wall_s / 3600 * launch.usd_per_hour,
        "on_demand_cost_usd": wall_s / 3600 * launch.on_demand_usd_per_hour,
        "digest": result.digest if result else None,
    }
    return ATTEMPTS.read(document, f"attempt {launch.id}")


def _progress(ledgers: Ledgers, work: Work, attempt: str) -> Attempt | None:
    """Return what the step said last of itself, or None when it never held the lease."""
    ledger = ledgers.of(PROGRESS.of(work.fingerprint))
    newest = ledger.newest_number()
    for fence in range(newest, max(0, newest - LOOKED_BACK), -1):
        progress = ledger.read(f"{fence}.progress")
        if progress is not None and progress.id == attempt:
            return progress
    return None
