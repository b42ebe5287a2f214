"""Train a torch module: the learner of every product whose `model` is a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.product.learner import Blobs, Context, Graphs, Learner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from platform_assets.product.inputs import Inputs
    from platform_assets.product.learned import Learned
    from platform_assets.product.modelling import Training
    from platform_assets.product.spec import Product

# Not torch.save: loading a pickle executes code, and `weights_only=True` has been bypassed twice.
WEIGHTS = "weights.safetensors"


def learner_of(spec: Product) -> Learner:
    """Return what fits a product's model; a function is the network of a torch training."""
    return spec.model if isinstance(spec.model, Learner) else Network(model=spec.model)


def check_processes(spec: Product, profile: str, count: int) -> None:
    """Refuse a profile with so many processes that a product's training cannot share.

    Raises:
        ValueError: the learner computes in one process, or the batch cannot be divided.
    """
    learner, batch_size, fix = learner_of(spec), spec.training.batch_size, f"Fix Training.profile of {spec.name}"
    if count > 1 and not isinstance(learner, Network):
        raise ValueError(
            f"profile {profile} has {count} processes for a training, and {type(learner).__name__} computes in one, so "
            f"it would waste the rest; expected a profile with one accelerator and one process, or a network. {fix}."
        )
    if batch_size % count:
        raise ValueError(
            f"profile {profile} has {count} processes for a training, which do not divide its batch_size, "
            f"{batch_size}; expected a multiple of {count}. {fix}, or Training.batch_size."
        )


@dataclass(frozen=True, kw_only=True)
class Network(Learner):
    """A torch module, trained by `training.train.Loop`.

    Attributes:
        model: `(learned preprocessing, training) -> torch module`; see `training.nets`.
        validation_keys (keys): with some, the epoch that is best on them becomes the model, and they draw a second
            curve; with 0, `Training.epochs` decides whether some rows choose the epoch.
        patience (epochs): end the training when this many epochs have not improved the validation loss; None never.
    """

    model: Callable[[Learned, Training], nn.Module]
    patience: int | None = None

    resumes: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("torch", "safetensors")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience is not None and (self.patience < 1 or not self.validation_keys):
            raise ValueError(
                f"Network has patience={self.patience} and validation_keys={self.validation_keys}; expected a patience "
                "of at least 1, with keys that judge the epochs."
            )

    def fit(self, rows: Inputs, labels: NDArray[Any], context: Context) -> dict[str, bytes]:
        """Fit the module, resuming from the newest save; see `Learner.fit`."""
        import torch
        from safetensors.torch import save

        from platform_assets.training import determinism
        from platform_assets.training.learn import codes
        from platform_assets.training.train import Loop, tensors

        determinism.seed(context.training.seed)
        network = self.model(context.learned, context.training)
        loop = Loop(
            network,
            tensors(rows, codes(context.learned, rows.categorical)),
            torch.from_numpy(labels),
            context.training,
            context.task,
            context.learned.target,
            context.device,
            context.precision,
            judged=context.judged or None,
            patience=self.patience,
        )
        context.progress.take_steps(loop)
        # safetensors stores contiguous tensors alone.
        return {WEIGHTS: save({name: value.cpu().contiguous() for name, value in loop.model.state_dict().items()})}

    def to_onnx(self, blobs: Blobs, graphs: Graphs) -> bytes:
        """Export the module; see `Learner.to_onnx`."""
        return graphs.of_network(self.load(blobs, graphs))

    def answers(self, blobs: Blobs, rows: Inputs, context: Context) -> NDArray[np.float32]:
        """Return the module's answers; see `Learner.answers`."""
        from platform_assets.training.learn import codes
        from platform_assets.training.train import outputs, tensors

        raw_outputs = outputs(self.load(blobs, context), tensors(rows, codes(context.learned, rows.categorical)))
        answers: NDArray[np.float32] = context.task.graph_answer(raw_outputs, context.learned.target).numpy()
        return answers.astype("<f4")

    def load(self, blobs: Blobs, context: Context) -> nn.Module:
        """Return the trained module in eval mode."""
        from safetensors.torch import load

        network = self.model(context.learned, context.training)
        network.load_state_dict(load(blobs[WEIGHTS]))
        return network.eval()
