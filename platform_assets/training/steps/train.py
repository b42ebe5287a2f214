"""Train one product for one cutoff: `python -m platform_assets.steps.train`, input by Dagster Pipes.

After a kill at any moment, the next attempt resumes and ends with the same bytes. A finished fingerprint is reused.
The result is a checkpoint manifest in the artifact store, which names weights, learned preprocessing, baselines,
configuration and data by digest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass, field
from datetime import datetime
from functools import cached_property

import msgspec

from platform_assets import clock, digests, naming, specs
from platform_assets.compute import rare, suspects
from platform_assets.compute.learn import Learned
from platform_assets.compute.measures.of_task import measures_of
from platform_assets.digests import reads
from platform_assets.learners.base import History
from platform_assets.makers.checkpoint import Learning
from platform_assets.makers.rows import Rows
from platform_assets.records import trainings
from platform_assets.records.base import Number
from platform_assets.records.leases import TTL_S
from platform_assets.records.models import CHECKPOINTS, Checkpoint, CheckpointManifest, Computed, Data
from platform_assets.records.trainings import TRAININGS
from platform_assets.settings import Settings
from platform_assets.specs.base import ProductSpec
from platform_assets.steps import instructions, parameters, process
from platform_assets.steps.attempt import Attempt
from platform_assets.steps.jobs import Job, Trained
from platform_assets.steps.models import stored_model
from platform_assets.steps.progress import StepProgress
from platform_assets.steps.state import saves
from platform_assets.steps.use import Columns, Use
from platform_assets.storage.artifacts import ArtifactProblem, ArtifactStore, canonical, sha256
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore

FORMAT = 1


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
class Training:
    """A training under way: it makes a checkpoint of the rows that a run names, once per fingerprint.

    Attributes:
        log: takes one line per epoch, and others.
        stop: checked between steps; a request saves the current step and raises `Preempted`.
        ttl_s: of the lease.
        save_every_s: how much work a kill may cost; None for the save store's own value.
        shown: takes done and all steps, after each, for a progress bar.
    """

    spec: ProductSpec
    job: Job
    settings: Settings
    _: KW_ONLY
    log: Callable[[str], None]
    stop: process.StopRequest = field(default_factory=process.StopRequest)
    ttl_s: float = TTL_S
    save_every_s: float | None = None
    shown: Callable[[int, int], None] = _unseen

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
        progress = StepProgress(job, self.settings, self.log, self.stop, self.save_every_s, self.shown, attempt)
        blobs = maker.fit(learned, rows, job.training_keys, progress, job.device, job.precision)
        return Fit(rows=rows, learned=learned, blobs=blobs, history=progress.history)

    def is_made(self) -> bool:
        """Return whether the checkpoint is on record and complete."""
        record = self.ledgers.of(CHECKPOINTS).read(self.job.fingerprint)
        return record is not None and self.store.is_whole(record.manifest, naming.CHECKPOINT_BLOBS)

    def make(self, attempt: Attempt) -> Columns:
        """Fit with its baselines, and record the checkpoint; return what the process used."""
        with Use() as use:
            fitted = self.fit(attempt)
        attempt.beat(is_due=True)
        manifest = self.store.put_json(msgspec.to_builtins(self._manifest(fitted)))
        if not attempt.conclude(CHECKPOINTS, Checkpoint(manifest=manifest)):
            self.log("this checkpoint is already on record and is used; blobs that were damaged are restored.")
        if not self.is_made():
            raise ArtifactProblem(
                f"{self.spec.name} {self.job.cutoff}: blobs of its checkpoint are damaged, and training again on this "
                "machine gave other bytes; restore them from a backup, or train with another seed."
            )
        self.ledgers.of(TRAININGS).append(self._record(fitted, manifest, attempt))
        return use.columns()

    def _record(self, fitted: Fit, manifest: str, attempt: Attempt) -> trainings.Training:
        """Return the record of the training, with the model's quality on the holdout."""
        job, maker = self.job, Learning.of(self.spec)
        tables = TableStore(self.settings.root, self.spec.name)
        holdout = maker.rows(tables, job.holdout_keys, job.features, job.outcomes, self.known_before).labelled()
        quality: dict[str, Number | None] = {}
        if len(holdout.inputs):
            labels, answers = holdout.labels, maker.answers(fitted.blobs, fitted.learned, holdout)
            quality |= {
                **rare.quality(labels, answers, self.spec.task),
                **measures_of(self.spec.task).quality(labels, answers),
            }
        return trainings.Training(
            fingerprint=job.fingerprint,
            cutoff=job.cutoff,
            purpose=job.purpose,
            at_utc=clock.now(self.settings, self.spec.name, is_live=True).isoformat(),
            profile=self.spec.training.profile,
            learner=type(maker.learner).__name__,
            parameters=parameters.of(maker),
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

    def _manifest(self, fitted: Fit) -> CheckpointManifest:
        """Store what was learned, and return the manifest that names it."""
        job, store, known_before = self.job, self.store, self.known_before
        baselines = Learning.of(self.spec).baselines(fitted.learned, fitted.rows)
        self.stop.check()
        return CheckpointManifest(
            product=job.product,
            cutoff=job.cutoff,
            weights=stored_model(store, fitted.blobs),
            learned=store.put_json(fitted.learned.to_json()),
            baselines=store.put_json(dict(baselines)),
            config=store.put_json({"format": FORMAT, "training": asdict(self.spec.training)}),
            computed=Computed(device=job.device, precision=job.precision),
            data=Data(features=job.features, outcomes=job.outcomes),
            known_before=None if known_before is None else known_before.isoformat(),
            training_keys=job.training_keys,
            holdout_keys=job.holdout_keys,
            history=fitted.history,
        )

    def report(self, attempt: Attempt, used: Columns | None, *, is_reused: bool) -> Trained:
        """Return the checkpoint, and parts of it for the asset's metadata."""
        record = self.ledgers.of(CHECKPOINTS).read(self.job.fingerprint)
        assert record is not None
        manifest = msgspec.convert(self.store.get_json(record.manifest), CheckpointManifest)
        return Trained(
            checkpoint=record.manifest,
            history=manifest.history,
            device=manifest.computed.device,
            precision=manifest.computed.precision,
            baselines=self.store.get_json(manifest.baselines)["train_log_loss"],
            is_reused=is_reused,
            resumed_from_step=attempt.facts.resumed_from_step,
            cpu_s=round(process.cpu_s(), 3),
            peak_memory_mb=round(process.peak_memory_mb(), 1),
            use=used,
        )


def main() -> None:
    """Run the step that Dagster Pipes describes."""
    process.die_with_parent()
    stop = process.StopRequest().listen()
    with instructions.opened() as context:
        job = Job.from_extras(context.extras)
        spec = specs.load(job.product)
        instructions.check_maker(context.extras, Learning.of(spec))
        instructions.check_libraries(context.extras)
        training = Training(spec, job, Settings.from_environment(), log=context.log.info, stop=stop)
        context.report_custom_message(training.run())


if __name__ == "__main__":
    main()
