"""Train one product for one cutoff, once per fingerprint. `launch.train` runs it as a step.

After a kill at any moment, the next attempt resumes and ends with the same bytes. A finished fingerprint is reused.
The result is a checkpoint manifest in the artifact store, which names weights, learned preprocessing, baselines,
configuration and data by digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from numpy.typing import NDArray

from platform_assets.base import clock, naming
from platform_assets.base.settings import Settings
from platform_assets.engine import digests
from platform_assets.engine.digests import reads
from platform_assets.product.learned import Learned
from platform_assets.product.learner import History
from platform_assets.product.spec import Product
from platform_assets.product.tasks import Task
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore, canonical, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records import trainings
from platform_assets.store.records.base import Number
from platform_assets.store.records.leases import TTL_S
from platform_assets.store.records.trainings import CHECKPOINTS, TRAININGS, Checkpoint, CheckpointManifest, WorldSizes
from platform_assets.store.tables import TableStore
from platform_assets.training import gpu_memory, libraries, suspects
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.labelled_rows import Rows
from platform_assets.training.steps import parameters, process
from platform_assets.training.steps.attempt import Attempt
from platform_assets.training.steps.jobs import Job, Trained
from platform_assets.training.steps.progress import FollowerProgress, StepProgress
from platform_assets.training.steps.state import saves
from platform_assets.training.steps.use import Use

if TYPE_CHECKING:
    from platform_assets.training.process_group import ProcessGroup

Quality = Callable[[NDArray[Any], NDArray[Any], Task], Mapping[str, Number | None]]
"""Measure answers [N] or [N, P] against labels [N]."""


def _unseen(done: int, steps: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was learned: labelled rows, preprocessing, the model's files, losses per epoch, processes that shared it."""

    rows: Rows
    learned: Learned
    blobs: dict[str, bytes]
    history: History
    world_sizes: WorldSizes


@dataclass(frozen=True)
class Training:
    """A training under way: it makes a checkpoint of the rows that a run names, once per fingerprint.

    Attributes:
        log: takes one line per epoch, and others.
        stop: checked between steps; a request saves the current step and raises `Preempted`.
        ttl_s: of the lease.
        save_every_s: how much work a kill may cost; None for the save store's own value.
        on_step: takes done and all steps after each step, for a progress bar.
        quality: measures answers on the holdout, for the record of the training; None to measure nothing.
        usd_per_hour: the price of this machine, for the record of a try that no launcher made.
        group: the processes that share the fit; the first one has lease, saves, log and records.
    """

    spec: Product
    job: Job
    settings: Settings
    _: KW_ONLY
    log: Callable[[str], None]
    stop: process.StopRequest = field(default_factory=process.StopRequest)
    ttl_s: float = TTL_S
    save_every_s: float | None = None
    on_step: Callable[[int, int], None] = _unseen
    quality: Quality | None = None
    usd_per_hour: float = 0.0
    group: ProcessGroup | None = None

    def run(self) -> object:
        """Make, resume or reuse the fit; return the step's result, as JSON values. Only the first process has one.

        Raises:
            TrainingProblem: nothing can be learned from these rows or with this configuration.
            Preempted: stopped on request.
            ArtifactProblem: blobs on record are damaged and cannot be made again here.
            PeerLost: another process of the group is gone.
        """
        if self.group is not None and self.group.rank:
            if self.group.is_any(False)[0]:  # the first process says whether there is a fit to share
                with reads.guarded(self.spec.module, Learning.for_product(self.spec)):
                    self.fit(None)
            return None
        with self.attempt() as attempt:
            is_holder = self._goes_on() and attempt.acquire(wait=self._goes_on)
            is_new = is_holder and self._goes_on()
            if self.group is not None:
                self.group.is_any(is_new)  # the others wait for this
            with reads.guarded(self.spec.module, Learning.for_product(self.spec)):
                used = self.make(attempt) if is_new else None
            if is_holder:
                saves(self.settings, self.job.fingerprint).forget()
        with reads.guarded(self.spec.module, Learning.for_product(self.spec)):
            record = self.ledgers.of(CHECKPOINTS).read(self.job.fingerprint)
            assert record is not None
            manifest = msgspec.convert(self.store.get_json(record.manifest), CheckpointManifest)
            done = Trained(
                checkpoint=record.manifest,
                history=manifest.history,
                device=manifest.computed.device,
                precision=manifest.computed.precision,
                world_sizes=record.world_sizes,
                baselines=self.store.get_json(manifest.baselines)["train_log_loss"],
                is_reused=not is_new,
                resumed_from_step=attempt.facts.resumed_from_step,
                cpu_s=round(process.cpu_s(), 3),
                peak_memory_mb=round(process.peak_memory_mb(), 1),
                used=used,
            )
        return msgspec.to_builtins(done)

    def attempt(self) -> Attempt:
        """Return a try at the job; it holds no lease yet."""
        return Attempt(
            self.settings,
            self.ledgers,
            fingerprint=self.job.fingerprint,
            cutoff=self.job.cutoff,
            profile_name=self.spec.training.profile,
            usd_per_hour=self.usd_per_hour,
            ttl_s=self.ttl_s,
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

    def fit(self, attempt: Attempt | None) -> Fit:
        """Learn from the rows that the job names, resuming from the newest save.

        Args:
            attempt: None in a process other than the first.

        Raises:
            TrainingProblem: nothing can be learned from these rows or with this configuration.
            Preempted: stopped on request; the current step is saved.
            PeerLost: another process of the group is gone.
        """
        job, maker = self.job, Learning.for_product(self.spec)
        maker.prepare(job.device, job.precision)
        if self.group is not None:
            self.group.check_device(job.device)
        if job.device == "cuda" and self.settings.gpu_memory_gb is not None:
            gpu_memory.limit(self.settings.gpu_memory_gb)
        tables = TableStore(self.settings.root, self.spec.name)
        rows = maker.rows(tables, job.training_keys, job.features, job.outcomes, self.known_before).labelled()
        learned = maker.learn(rows)
        self.log(f"{self.spec.name} {job.cutoff}: {len(rows.inputs)} labelled rows of {len(job.training_keys)} keys.")
        for name in suspects.empty(rows.inputs, maker.fields):
            self.log(f"{name} is null in all of them, so nothing is learned from it; look at features().")
        if self.group is not None:
            # What determines the fit, as this process has it; texts count by their vocabularies.
            parts = [rows.inputs.numeric, rows.labels, *([] if rows.inputs.image is None else [rows.inputs.image])]
            self.group.check_equal(
                configuration=sha256(canonical([asdict(maker.training), msgspec.to_builtins(job)])),
                data=sha256(canonical([learned.to_json(), *(sha256(part.tobytes()) for part in parts)])),
                code=sha256(canonical([digests.code_digest(maker), libraries.installed()])),
            )
        progress: StepProgress | FollowerProgress
        if attempt is None:
            assert self.group is not None
            progress = FollowerProgress(self.stop, self.group)
        else:
            members = (self.settings, self.log, self.stop, self.save_every_s, self.on_step, attempt, self.group)
            progress = StepProgress(job, *members)
        with gpu_memory.explained(self.spec.name, job.device):
            blobs = maker.fit(learned, rows, job.training_keys, progress, job.device, job.precision)
        sizes = progress.world_sizes if len(progress.world_sizes) > 1 else []
        return Fit(rows=rows, learned=learned, blobs=blobs, history=progress.history, world_sizes=sizes)

    def is_made(self) -> bool:
        """Return whether the checkpoint is on record and complete."""
        record = self.ledgers.of(CHECKPOINTS).read(self.job.fingerprint)
        return record is not None and self.store.is_whole(record.manifest, naming.CHECKPOINT_BLOBS)

    def make(self, attempt: Attempt) -> dict[str, float]:
        """Fit with its baselines, and record the checkpoint; return what the process used."""
        with Use() as use:
            fitted = self.fit(attempt)
        attempt.beat(is_due=True)
        maker = Learning.for_product(self.spec)
        baselines = maker.baselines(fitted.learned, fitted.rows)
        self.stop.check()
        members = (fitted.blobs, fitted.learned, baselines, fitted.history)
        stored = maker.manifest(self.store, self.job, self.known_before, self.spec.training, *members)
        manifest = self.store.put_json(msgspec.to_builtins(stored))
        if not attempt.conclude(CHECKPOINTS, Checkpoint(manifest=manifest, world_sizes=fitted.world_sizes)):
            self.log("this checkpoint is already on record and is used; blobs that were damaged are restored.")
        if not self.is_made():
            raise ArtifactProblem(
                f"{self.spec.name} {self.job.cutoff}: blobs of its checkpoint are damaged, and training again here "
                "gave other bytes; restore them from a backup, or train with its number of processes or another seed."
            )
        job, tables = self.job, TableStore(self.settings.root, self.spec.name)
        holdout = maker.rows(tables, job.holdout_keys, job.features, job.outcomes, self.known_before).labelled()
        quality: dict[str, Number | None] = {}
        if self.quality is not None and len(holdout.inputs):
            labels, answers = holdout.labels, maker.answers(fitted.blobs, fitted.learned, holdout)
            quality |= self.quality(labels, answers, self.spec.task)
        record = trainings.Training(
            fingerprint=job.fingerprint,
            cutoff=job.cutoff,
            purpose=job.purpose,
            at_utc=clock.now(self.settings, self.spec.name, is_live=True).isoformat(),
            profile=self.spec.training.profile,
            learner=type(maker.learner).__name__,
            parameters=parameters.describe(maker),
            code=digests.code_digest(maker),
            data=sha256(canonical({"features": job.features, "outcomes": job.outcomes})),
            checkpoint=manifest,
            training_keys=len(job.training_keys),
            holdout_keys=len(job.holdout_keys),
            rows=len(fitted.rows.inputs),
            curve=fitted.history,
            quality=quality,
            cpu_s=round(process.cpu_s(), 3),
            wall_s=round(attempt.wall_s, 3),
            peak_memory_mb=round(process.peak_memory_mb(), 1),
        )
        self.ledgers.of(TRAININGS).append(record)
        return use.summary()
