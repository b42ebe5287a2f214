"""Learn a model from labelled rows: preprocessing, network, baselines; and load what was learned."""

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
    """Learns the model of a product; the members are those of `ProductSpec`."""

    fields: tuple[Field, ...]
    task: Task
    model: Callable[[Learned, Training], nn.Module]
    training: Training

    @staticmethod
    def of(spec: ProductSpec) -> Learning:
        """Return what learns a product's model."""
        # Where it runs changes no byte; device and precision are handed to `prepare`.
        training = replace(spec.training, profile=type(spec.training).profile)
        return Learning(fields=spec.bare_fields, task=spec.task, model=spec.model, training=training)

    def prepare(self, device: str, precision: str) -> None:
        """Switch this process to deterministic work on a device, before anything is put there.

        Raises:
            TrainingProblem: the device is not there, or cannot.
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
        """Return the rows of keys with their labels; see `makers.rows.read`."""
        from platform_assets.makers import rows

        digests = {"features": features, "outcomes": outcomes}
        return rows.read(self.fields, self.task, tables, keys=keys, known_before=known_before, **digests)

    def start(self, rows: Rows, device: str, precision: str) -> tuple[Learned, Loop]:
        """Return the learned preprocessing and a training that has not begun.

        Args:
            rows: that have a label.

        Raises:
            TrainingProblem: rows or a configuration from which nothing can be learned.
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
        given = (network, inputs, torch.from_numpy(labels), self.training, self.task, learned.target)
        return learned, Loop(*given, device, precision)

    def weights(self, loop: Loop) -> bytes:
        """Return the weights of a training as safetensors."""
        from safetensors.torch import save

        return save({name: value.cpu().contiguous() for name, value in loop.model.state_dict().items()})

    def baselines(self, learned: Learned, rows: Rows) -> Baselines:
        """Return the fitted baselines of the same rows."""
        from platform_assets.compute import baselines

        return baselines.fit(learned, rows.inputs, rows.labels, self.task)

    def load(self, learned: Learned, weights: bytes) -> nn.Module:
        """Return a trained network, at rest. `weights` are safetensors."""
        from safetensors.torch import load

        network = self.model(learned, self.training)
        network.load_state_dict(load(weights))
        return network.eval()

    def answers(self, network: nn.Module, learned: Learned, rows: Rows) -> Any:
        """Return a network's answers to rows as float32, [N] or [N, P]: what its graph would answer."""
        from platform_assets.compute.learn import codes
        from platform_assets.compute.train import outputs, tensors

        given = outputs(network, tensors(rows.inputs, codes(learned, rows.inputs.categorical)))
        return self.task.graph_answer(given, learned.target).numpy().astype("<f4")
