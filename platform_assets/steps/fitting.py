"""Fit the rows that a run names, once per fingerprint: what training and backtest share.

`platform_assets.makers.checkpoint` defines how a fit is learned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

import msgspec

from platform_assets import specs
from platform_assets.compute import suspects
from platform_assets.compute.learn import Learned
from platform_assets.digests import reads
from platform_assets.learners.base import History
from platform_assets.makers.checkpoint import Learning
from platform_assets.makers.rows import Rows
from platform_assets.records import attempts
from platform_assets.records.base import RecordKind
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import instructions, process
from platform_assets.steps.attempt import TTL_S, Attempt
from platform_assets.steps.jobs import Job
from platform_assets.steps.progress import StepProgress, Watched
from platform_assets.steps.state import saves
from platform_assets.steps.use import Columns
from platform_assets.storage.artifacts import ArtifactStore
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore

J = TypeVar("J", bound=Job)


def _unseen(done: int, steps: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was learned: the labelled rows, their preprocessing, the model's files, and losses per epoch."""

    rows: Rows
    learned: Learned
    blobs: dict[str, bytes]
    history: History


@dataclass(frozen=True)
class Fitting(ABC, Generic[J]):
    """A job under way; a subclass defines what is stored of the fit, and the step's result.

    Attributes:
        log: takes one line per epoch, and others.
        stop: checked between steps; a request saves the current step and raises `Preempted`.
        ttl_s: of the lease.
        save_every_s: how much work a kill may cost; None for the save store's own value.
        shown: takes done and all steps, after each, for a progress bar.
        attempts_ledger: the ledger of its attempts.
    """

    spec: ProductSpec
    job: J
    settings: Settings
    _: KW_ONLY
    log: Callable[[str], None]
    stop: process.StopRequest = field(default_factory=process.StopRequest)
    ttl_s: float = TTL_S
    save_every_s: float | None = None
    shown: Callable[[int, int], None] = _unseen
    attempts_ledger: ClassVar[RecordKind[attempts.Attempt]] = attempts.ATTEMPTS

    @abstractmethod
    def is_made(self) -> bool:
        """Return whether the result of the fit is on record and complete."""

    @abstractmethod
    def make(self, attempt: Attempt) -> Columns | None:
        """Fit, and record the result while the lease is held. Return what was used, if that counts."""

    @abstractmethod
    def report(self, attempt: Attempt, used: Columns | None, *, is_reused: bool) -> msgspec.Struct:
        """Return the step's result."""

    def run(self) -> object:
        """Make, resume or reuse the fit; return the step's result, as JSON values.

        Raises:
            TrainingProblem: nothing can be learned from these rows or with this configuration.
            Preempted: stopped on request.
            ArtifactProblem: blobs on record are damaged and cannot be made again here.
        """
        with self.attempt() as attempt:
            is_holder = self._goes_on() and attempt.acquire(wait=self._goes_on)
            is_new = is_holder and self._goes_on()
            with reads.guarded(self.spec.module, Learning.of(self.spec)):
                used = self.make(attempt) if is_new else None
            if is_holder:
                saves(self.settings, self.job.fingerprint).forget()
        with reads.guarded(self.spec.module, Learning.of(self.spec)):
            return msgspec.to_builtins(self.report(attempt, used, is_reused=not is_new))

    def attempt(self) -> Attempt:
        """Return a try at the job; it holds no lease yet."""
        return Attempt(
            self.settings,
            self.ledgers,
            fingerprint=self.job.fingerprint,
            cutoff=self.job.cutoff,
            profile_name=self.spec.training.profile,
            ttl_s=self.ttl_s,
            records=self.attempts_ledger,
            launch=self.job.attempt,
        )

    def _goes_on(self) -> bool:
        self.stop.check()
        return not self.is_made()

    @cached_property
    def store(self) -> ArtifactStore:
        """The blobs of all products."""
        return ArtifactStore(self.settings.root)

    @cached_property
    def ledgers(self) -> Ledgers:
        """The product's ledgers."""
        return Ledgers(self.settings.root, self.spec.name)

    @property
    def known_before(self) -> datetime | None:
        """The moment from which on a label counts as not yet known; None where all count."""
        if self.job.known_before is not None:
            return datetime.fromisoformat(self.job.known_before)
        return None if self.spec.grain.kind == "batch" else self.spec.grain.instant(self.job.cutoff)

    def fit(self, attempt: Attempt) -> Fit:
        """Learn from the rows that the job names, resuming from the newest save.

        Raises:
            TrainingProblem: nothing can be learned from these rows or with this configuration.
            Preempted: stopped on request; the current step is saved.
        """
        job, maker = self.job, Learning.of(self.spec)
        maker.prepare(job.device, job.precision)
        tables = TableStore(self.settings.root, self.spec.name)
        rows = maker.rows(tables, job.training_keys, job.features, job.outcomes, self.known_before).labelled()
        learned = maker.learn(rows)
        self.log(f"{self.spec.name} {job.cutoff}: {len(rows.inputs)} labelled rows of {len(job.training_keys)} keys.")
        for name in suspects.empty(rows.inputs, maker.fields):
            self.log(f"{name} is null in all of them, so nothing is learned from it; look at features().")
        watched = Watched(job, self.settings, self.log, self.stop, self.save_every_s, self.shown)
        progress = StepProgress(watched, attempt)
        blobs = maker.fit(learned, rows, job.training_keys, progress, job.device, job.precision)
        return Fit(rows=rows, learned=learned, blobs=blobs, history=progress.history)


def main(fitting: Callable[..., Fitting[J]], job: type[J]) -> None:
    """Run the step that Dagster Pipes describes."""
    process.die_with_parent()
    stop = process.StopRequest().listen()
    with instructions.opened() as context:
        work = job.from_extras(context.extras)
        spec = specs.load(work.product)
        instructions.check_maker(context.extras, Learning.of(spec))
        instructions.check_libraries(context.extras)
        step = fitting(spec, work, Settings.from_environment(), log=context.log.info, stop=stop)
        context.report_custom_message(step.run())
