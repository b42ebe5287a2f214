"""Train a model on labelled rows (preprocessing, network, baselines), and load a trained one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from platform_assets.compute.baselines import Baselines
    from platform_assets.compute.learn import Learned
    from platform_assets.compute.tasks import Task
    from platform_assets.compute.train import Loop
    from platform_assets.makers.rows import Rows
    from platform_assets.product.fields import Field
    from platform_assets.product.modelling import Training
    from platform_assets.specs.base import ProductSpec
    from platform_assets.storage.tables import TableStore


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Trains a product's model; the members are those of `ProductSpec`."""

    fields: tuple[Field, ...]
    task: Task
    model: Callable[[Learned, Training], nn.Module]
    training: Training

    @staticmethod
    def of(spec: ProductSpec) -> Learning:
        """Return the maker for a product."""
        # The profile decides where training runs, not its bytes; device and precision are passed to `prepare`.
        training = replace(spec.training, profile=type(spec.training).profile)
        return Learning(fields=spec.bare_fields, task=spec.task, model=spec.model, training=training)

    def prepare(self, device: str, precision: str) -> None:
        """Make this process deterministic on a device. Call it before anything is placed there.

        Raises:
            TrainingProblem: the device is missing or does not support the precision.
        """
        from platform_assets.compute import determinism
        from platform_assets.compute.train import check_device

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
        """Load rows with their labels; see `makers.rows.read`."""
        from platform_assets.makers import rows

        digests = {"features": features, "outcomes": outcomes}
        return rows.read(self.fields, self.task, tables, keys=keys, known_before=known_before, **digests)

    def start(self, rows: Rows, device: str, precision: str) -> tuple[Learned, Loop]:
        """Fit the preprocessing and return it with a training loop that has not started.

        Args:
            rows: labelled rows only.

        Raises:
            TrainingProblem: nothing can be learned from these rows or this configuration.
        """
        import torch

        from platform_assets.compute import determinism
        from platform_assets.compute.learn import codes, learn
        from platform_assets.compute.train import Loop, check_labels, tensors

        labels = rows.labels
        check_labels(labels, self.task)
        learned = learn(rows.inputs, self.fields, target=self.task.target_of(labels))
        determinism.seed(self.training.seed)
        network = self.model(learned, self.training)
        inputs = tensors(rows.inputs, codes(learned, rows.inputs.categorical))
        arguments = (network, inputs, torch.from_numpy(labels), self.training, self.task, learned.target)
        return learned, Loop(*arguments, device, precision)

    def weights(self, loop: Loop) -> bytes:
        """Serialise a training's weights as safetensors."""
        from safetensors.torch import save

        return save({name: value.cpu().contiguous() for name, value in loop.model.state_dict().items()})

    def baselines(self, learned: Learned, rows: Rows) -> Baselines:
        """Fit the baselines on the training rows."""
        from platform_assets.compute import baselines

        return baselines.fit(learned, rows.inputs, rows.labels, self.task)

    def load(self, learned: Learned, weights: bytes) -> nn.Module:
        """Load a trained network in eval mode. `weights` are safetensors."""
        from safetensors.torch import load

        network = self.model(learned, self.training)
        network.load_state_dict(load(weights))
        return network.eval()

    def answers(self, network: nn.Module, learned: Learned, rows: Rows) -> Any:
        """Return the network's answers as float32, [N] or [N, P]: what the exported graph would return."""
        from platform_assets.compute.learn import codes
        from platform_assets.compute.train import outputs, tensors

        raw_outputs = outputs(network, tensors(rows.inputs, codes(learned, rows.inputs.categorical)))
        return self.task.graph_answer(raw_outputs, learned.target).numpy().astype("<f4")
