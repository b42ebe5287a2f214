"""Train one product for one cutoff: `python -m platform_assets.steps.train`, input by Dagster Pipes.

After a kill at any moment, the next attempt resumes and ends with the same bytes. A finished fingerprint is reused.
The result is a checkpoint manifest in the artifact store, which names weights, learned preprocessing, baselines,
configuration and data by digest.
"""

from __future__ import annotations

from dataclasses import asdict

import msgspec

from platform_assets import clock, digests, naming
from platform_assets.compute import rare
from platform_assets.makers.checkpoint import Learning
from platform_assets.records import trainings
from platform_assets.records.base import Number
from platform_assets.records.models import CHECKPOINTS, Checkpoint, CheckpointManifest, Computed, Data
from platform_assets.records.trainings import TRAININGS
from platform_assets.steps import fitting, parameters, process
from platform_assets.steps.attempt import Attempt
from platform_assets.steps.fitting import Fit, Fitting
from platform_assets.steps.jobs import Job, Trained
from platform_assets.steps.models import stored_model
from platform_assets.steps.use import Columns, Use
from platform_assets.storage.artifacts import ArtifactProblem, canonical, sha256
from platform_assets.storage.tables import TableStore

FORMAT = 1


class Training(Fitting[Job]):
    """Makes a checkpoint of the fit."""

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
            quality |= {**rare.quality(labels, answers, self.spec.task), **self.spec.task.quality(labels, answers)}
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
    fitting.main(Training, Job)


if __name__ == "__main__":
    main()
