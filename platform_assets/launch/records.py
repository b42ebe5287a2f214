"""Write the record of a try: what it was for, where it ran, how it ended, what it cost.

The launcher knows why a try ended and what is paid for. The step itself (`platform_assets/training/steps/attempt.py`)
knows how far it got, and cannot write when it was killed. Both write a record under the same id; readers take the
launcher's (`platform_assets.store.records.attempts.unique_attempts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from platform_assets.base.failures import CODE, KILLED, NODE_LOST, OUT_OF_MEMORY, PREEMPTED
from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.launch.attempt import Prepared
from platform_assets.launch.endings import Ending
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records import attempts
from platform_assets.store.records.attempts import Attempt, Launch, ProcessLocation
from platform_assets.store.records.base import Number, Part, RecordKind

BY = attempts.LAUNCHER
FINISHED, UNDER_WAY = "finished", "under_way"
LOOKED_BACK = 4
"""How many of a lease's newest holders are searched for an attempt: the next one may hold the lease already. Also how
many of a work's newest announcements are read: a launch settles those before it, so one is open, or two after two
launches at once."""
NEARLY_ALL = 0.95
MEASURED = 20
"""How many of the newest attempts say how long a save takes."""
UNKNOWN = {"host": "", "pid": 0, "resumed_from_step": 0, "steps_done": 0, "steps_saved": 0, "fence": 0}
"""For an attempt that nobody saw at work."""


class Reported(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The recorded part of a step's result: the digest of its output, under one of two names, and its usage."""

    bundle: str | None = None
    checkpoint: str | None = None
    cpu_s: Number | None = None
    peak_memory_mb: Number | None = None

    @property
    def digest(self) -> str | None:
        """The digest of its output."""
        return self.bundle or self.checkpoint


def write(
    prepared: Prepared,
    ending: Ending,
    location: ProcessLocation,
    started_at: datetime | None,
    *,
    result: Reported | None = None,
    reason: str | None = None,
) -> Attempt:
    """Append an attempt's record and return it.

    Args:
        location: host, node and process, as far as observed.
        started_at: of its process, used if the ending has none.
        result: what it reported when it finished.
        reason: overrides the ending's class.

    Raises:
        LedgerProblem: the store did not accept it.
    """
    record = record_of(prepared.launch, ending, location, started_at, own_record(prepared), result, reason)
    prepared.ledgers.of(attempts.ATTEMPTS).append(record)
    return record


def announce(prepared: Prepared) -> None:
    """Record that an attempt is under way, before it is started; a record of its end follows.

    A ledger of the work's own states the number after which the attempt's records are: others may write a hundred
    meanwhile.

    Raises:
        LedgerProblem: the store did not accept it; then nothing is started.
    """
    launch, ledgers = prepared.launch, prepared.ledgers
    announced = attempts.Announced(id=launch.id, after=ledgers.newest_number(attempts.ATTEMPTS.ledger))
    ledgers.of(_announced(prepared.work)).append(announced)
    nothing = {"by": BY, "reason": UNDER_WAY, "said": "", "steps_lost": 0}
    times = {"started_at_utc": "", "ended_at_utc": "", "wall_s": 0.0}
    costs = {"cost_usd": 0.0, "on_demand_cost_usd": 0.0}
    document = {**UNKNOWN, **launch.document(), **nothing, **times, **costs}
    ledgers.of(attempts.ATTEMPTS).append(attempts.ATTEMPTS.read(document, f"attempt {launch.id}"))


def open_attempts(settings: Settings, work: Work) -> list[Attempt]:
    """Return the announced attempts at this work that have no end on record."""
    ledgers = Ledgers(settings.root, work.product)
    newest = [_last_record(ledgers, record) for _, record in ledgers.of(_announced(work)).newest(LOOKED_BACK)]
    return [record for record in reversed(newest) if record is not None and record.reason == UNDER_WAY]


def longest_save_s(settings: Settings, work: Work) -> float | None:
    """Return the longest save of the newest attempts at the step, of any cutoff; None if none was measured."""
    newest = Ledgers(settings.root, work.product).of(attempts.ATTEMPTS).newest(MEASURED)
    measured = [record.save_s for _, record in newest if record.step == work.step and record.save_s is not None]
    return max(measured, default=None)


def _announced(work: Work) -> RecordKind[attempts.Announced]:
    return attempts.ANNOUNCED.of(f"{work.step}-{work.fingerprint}")


def _last_record(ledgers: Ledgers, announced: attempts.Announced) -> Attempt | None:
    """Return a launcher's last record of an announced attempt; None if it was killed before it wrote one."""
    last = None
    for _, record in ledgers.of(attempts.ATTEMPTS).records(announced.after + 1):
        if record.id == announced.id and record.by == BY:
            last = record
            if last.reason != UNDER_WAY:
                break
    return last


def settle(prepared: Prepared, ending: Ending, signs: Sequence[datetime]) -> None:
    """Record the end of an attempt whose pod is gone and was not watched.

    Args:
        ending: as far as its pod's events show it.
        signs: of life, by the cluster's clock.
    """
    progress = own_record(prepared)
    ending = replace(ending, evidence=f"nobody watched it: {ending.evidence}")
    if progress and progress.reason == FINISHED:
        ending = replace(ending, failure=None, evidence=f"{ending.evidence}; the step itself recorded that it finished")
    requested_at = datetime.fromisoformat(prepared.launch.requested_at_utc)
    write(prepared, complete(prepared, ending, requested_at, signs), ProcessLocation(), None)


def complete(prepared: Prepared, ending: Ending, until: datetime, signs: Sequence[datetime] | None = None) -> Ending:
    """Complete the ending of a process whose end no status showed.

    A step that was asked to stop, or failed by its own error, has time to record that, and its record is taken: a pod
    that ends within its grace is often gone before the next poll. Any other process is over by now, and nothing shows
    since when. It is paid for until now if its node can be asked, and until its last sign of life if not; that sign may
    be its own last record.

    Args:
        until: when this was decided, or its node fell silent, by the cluster's clock.
        signs: of life of a process that nobody can ask, other than its own records; None for one that runs elsewhere.
    """
    progress = own_record(prepared)
    if ending.started_at is None and progress and progress.started_at_utc:
        ending = replace(ending, started_at=datetime.fromisoformat(progress.started_at_utc))
    if ending.failure is NODE_LOST and progress and progress.reason and progress.ended_at_utc:
        ending = replace(ending, ended_at=datetime.fromisoformat(progress.ended_at_utc))
        if progress.reason == PREEMPTED.name:
            evidence = f"{ending.evidence}; the step itself recorded that it was asked to stop"
            return replace(ending, failure=PREEMPTED, evidence=evidence)
        if progress.reason == CODE.name:
            return replace(
                ending, failure=CODE, evidence=f"{ending.evidence}; the step itself recorded: {progress.said}"
            )
        return ending
    if signs is not None:
        own = [datetime.fromisoformat(progress.ended_at_utc)] if progress and progress.ended_at_utc else []
        until = max([*signs, *own], default=until)
    return replace(ending, ended_at=until)


def explain_kill(prepared: Prepared, ending: Ending) -> Ending:
    """Explain a SIGKILL that the cluster does not by the step's own last record, if it had used nearly all its memory.

    A runtime reports why a container was killed apart from its end, and may be too late.
    """
    if ending.failure is not KILLED:
        return ending
    limit_mb, progress = prepared.launch.memory_gb * 1000, own_record(prepared)
    peak_mb = (progress and progress.peak_memory_mb) or 0.0
    if peak_mb < NEARLY_ALL * limit_mb:
        return ending
    evidence = f"{ending.evidence}; by its own last record it had used {peak_mb:.0f} MB of {limit_mb:.0f} MB of memory"
    return replace(ending, failure=OUT_OF_MEMORY, evidence=evidence)


def record_of(
    launch: Launch,
    ending: Ending,
    location: ProcessLocation,
    started_at: datetime | None,
    progress: Attempt | None,
    result: Reported | None,
    reason: str | None = None,
) -> Attempt:
    """Return an attempt's record. Paid is the time from its process's start to its end; times are of one clock.

    On several nodes it is their mean, for the price of all of them.
    """
    requested_at = datetime.fromisoformat(launch.requested_at_utc)
    ended_at = ending.ended_at or datetime.now(UTC)
    began_at = ending.started_at or started_at
    span_s = 0.0 if began_at is None else (ended_at - began_at).total_seconds()
    wall_s = round(max(0.0, span_s if ending.node_s is None else ending.node_s), 3)
    waited_s = ((began_at or ended_at) - (ending.asked_at or requested_at)).total_seconds()
    # A step without a lease, such as an export, states its usage only in its result.
    used = result.members(("cpu_s", "peak_memory_mb")) if result else {}
    lost = (progress.steps_done or 0) - (progress.steps_saved or 0) if progress else 0
    outcome = reason or (ending.failure.name if ending.failure else FINISHED)
    document = {
        **UNKNOWN,
        **used,
        **(progress.document() if progress else {}),
        **location.document(),
        **launch.document(),
        "by": BY,
        "reason": outcome,
        "said": ending.evidence,
        "exit_code": ending.exit_code,
        "started_at_utc": (began_at or ended_at).isoformat(),
        "ended_at_utc": ended_at.isoformat(),
        "wall_s": wall_s,
        "waited_s": round(max(0.0, waited_s), 3),
        "steps_lost": 0 if outcome == FINISHED else max(0, lost),
        "cost_usd": wall_s / 3600 * launch.usd_per_hour,
        "on_demand_cost_usd": wall_s / 3600 * launch.on_demand_usd_per_hour,
        "digest": result.digest if result else None,
    }
    if launch.data_zone is not None and location.zone is not None and document.get("received_bytes") is not None:
        # Bytes that came from the data's zone into another one, and their price where it is known.
        crossed = 0 if location.zone == launch.data_zone else document["received_bytes"]
        document["cross_zone_bytes"] = crossed
        if (price := launch.cross_zone_usd_per_gb) is not None:
            document["cross_zone_usd"] = crossed / 1e9 * price
    return attempts.ATTEMPTS.read(document, f"attempt {launch.id}")


def own_record(prepared: Prepared) -> Attempt | None:
    """Return the step's last progress record, or None if it never held the lease."""
    ledger = prepared.ledgers.of(attempts.PROGRESS.of(prepared.work.fingerprint))
    newest = ledger.newest_number()
    for fence in range(newest, max(0, newest - LOOKED_BACK), -1):
        progress = ledger.read(f"{fence}.progress")
        if progress is not None and progress.id == prepared.launch.id:
            return progress
    return None
