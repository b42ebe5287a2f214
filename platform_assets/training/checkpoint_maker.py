"""Train a model on labelled rows: preprocessing, the product's learner, baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from platform_assets.store.records.trainings import CheckpointManifest, Computed, Data
from platform_assets.training.learners.network import learner_of
from platform_assets.training.stored_models import stored_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from platform_assets.product.fields import Field
    from platform_assets.product.learned import Learned
    from platform_assets.product.learner import Blobs, Context, History, Learner, Progress
    from platform_assets.product.modelling import Training
    from platform_assets.product.spec import Product
    from platform_assets.product.tasks import Task
    from platform_assets.store.artifacts import ArtifactStore
    from platform_assets.store.tables import TableStore
    from platform_assets.training.baselines import Baselines
    from platform_assets.training.labelled_rows import Rows
    from platform_assets.training.steps.jobs import Request

FORMAT = 1
"""Of the configuration in a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Trains a product's model; the members are those of `Product`."""

    fields: tuple[Field, ...]
    task: Task
    learner: Learner
    training: Training

    @staticmethod
    def for_product(spec: Product) -> Learning:
        """Return the maker for a product."""
        # The profile decides where training runs, not its bytes; device and precision are passed to `prepare`.
        training = replace(spec.training, profile=type(spec.training).profile)
        return Learning(fields=spec.bare_fields, task=spec.task, learner=learner_of(spec), training=training)

    def prepare(self, device: str, precision: str) -> None:
        """Make this process deterministic on a device. Call it before anything is placed there.

        Raises:
            TrainingProblem: the device is missing or does not support the precision.
        """
        from platform_assets.training import libraries

        if device == "cpu" and not libraries.has_torch():
            return
        from platform_assets.training import determinism
        from platform_assets.training.train import check_device

        check_device(device, precision)
        determinism.fix(self.training.threads, device)

    def rows(
        self,
        tables: TableStore,
        keys: Sequence[str],
        features: Mapping[str, str],
        outcomes: Mapping[str, str],
        known_before: datetime | None,
    ) -> Rows:
        """Load rows with their labels; see `training.labelled_rows.read`."""
        from platform_assets.training import labelled_rows as rows

        digests = {"features": features, "outcomes": outcomes}
        return rows.read(self.fields, self.task, tables, keys=keys, known_before=known_before, **digests)

    def learn(self, rows: Rows) -> Learned:
        """Learn the preprocessing from labelled rows.

        Raises:
            TrainingProblem: nothing can be learned from these labels, or a field gives them away.
        """
        from platform_assets.product.learner import TrainingProblem
        from platform_assets.training.learn import learn
        from platform_assets.training.suspects import check_labels, giving_away

        labels = rows.labels
        check_labels(labels, self.task)
        if leaks := giving_away(rows.inputs, labels, self.fields, self.task):
            raise TrainingProblem(
                f"the field {leaks[0]} alone determines the label of all {len(labels):,} training rows; expected only "
                "what is known before the label. Fix features() or remove the field, in the product's file."
            )
        return learn(rows.inputs, self.fields, target=self.task.target_of(labels))

    def fit(
        self, learned: Learned, rows: Rows, keys: Sequence[str], progress: Progress, device: str, precision: str
    ) -> dict[str, bytes]:
        """Fit the model on labelled rows; return its files.

        Args:
            keys: of the training, in order; the last ones may judge the fit.

        Raises:
            TrainingProblem: nothing can be learned from these rows or this configuration.
        """
        from platform_assets.product.learner import NotFinite, TrainingProblem
        from platform_assets.training.suspects import farthest

        count = self.learner.validation_keys
        if count >= len(keys):
            raise TrainingProblem(
                f"{type(self.learner).__name__}.validation_keys is {count}, and the training has {len(keys)} keys; "
                "expected at least one to learn from. Lower it in the product's file, or choose a later cutoff."
            )
        judging = keys[len(keys) - count :]
        context = self.context(
            learned,
            device=device,
            precision=precision,
            judged=int(rows.frame["key"].cast(str).is_in(judging).sum()),
            progress=progress,
        )
        try:
            return self.learner.fit(rows.inputs, rows.labels, context)
        except NotFinite as problem:
            raise TrainingProblem(f"{problem} {farthest(rows.inputs, self.fields)}.") from None

    def context(self, learned: Learned, **more: Any) -> Context:
        """Return the inputs of the learner besides rows."""
        from platform_assets.product.learner import Alone, Context

        members = {"progress": Alone(), **more}
        return Context(task=self.task, training=self.training, learned=learned, **members)

    def baselines(self, learned: Learned, rows: Rows) -> Baselines:
        """Fit the baselines on the training rows."""
        from platform_assets.training import baselines

        return baselines.fit(learned, rows.inputs, rows.labels, self.task)

    def answers(self, blobs: Blobs, learned: Learned, rows: Rows) -> NDArray[np.float32]:
        """Return the model's own answers, [N] or [N, P]."""
        return self.learner.answers(blobs, rows.inputs, self.context(learned))

    def manifest(
        self,
        store: ArtifactStore,
        request: Request,
        known_before: datetime | None,
        training: Training,
        blobs: Blobs,
        learned: Learned,
        baselines: Baselines,
        history: History,
    ) -> CheckpointManifest:
        """Store what was learned, and return the manifest that names it.

        Args:
            request: what was learned from, and how.
            known_before: the moment from which on a label counted as not yet known; None where all counted.
            training: the product's, with its profile.
        """
        return CheckpointManifest(
            product=request.product,
            cutoff=request.cutoff,
            weights=stored_model(store, blobs),
            learned=store.put_json(learned.to_json()),
            baselines=store.put_json(dict(baselines)),
            config=store.put_json({"format": FORMAT, "training": asdict(training)}),
            # Which numbers of processes took turns is in the checkpoint's record: a member here moves every digest.
            computed=Computed(device=request.device, precision=request.precision, world_size=request.world_size),
            data=Data(features=request.features, outcomes=request.outcomes),
            known_before=None if known_before is None else known_before.isoformat(),
            training_keys=request.training_keys,
            holdout_keys=request.holdout_keys,
            history=history,
        )
