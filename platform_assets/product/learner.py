"""Define what a learner is: how a product's model is fitted on labelled rows, and how it becomes an ONNX graph.

The platform brings rows, learned preprocessing, leases, saves and stop requests; a learner knows none of them. Light to
import, because product files import it.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from platform_assets.base.problems import Problem

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from torch import nn

    from platform_assets.product.inputs import Inputs
    from platform_assets.product.learned import Learned
    from platform_assets.product.modelling import Training
    from platform_assets.product.tasks import Task

Blobs = Mapping[str, bytes]
"""A fitted model: bytes by file name. They are stored as they are, and nothing in them is unpickled."""
History = list[dict[str, "int | float"]]


class TrainingProblem(Problem, ValueError):
    """Nothing can be learned from these rows or this configuration."""


class NotFinite(TrainingProblem):
    """A loss is NaN or infinite."""


class Resumable(Protocol):
    """A fit that stops and goes on between any two steps (`training.train.Loop`)."""

    done: int
    steps: int
    epochs: int
    history: History

    @property
    def is_finished(self) -> bool:
        """Whether no step is left."""

    def step(self) -> float:
        """Take a step."""

    def state(self) -> Any:
        """Return everything between two steps, as a `training.loop_state.LoopState`."""

    def restore(self, state: Any) -> None:
        """Go on from a state."""


class Progress(Protocol):
    """Where a fit says how far it is. Each call may end the process, because it was asked to stop or lost its lease."""

    def note(self, done: int, steps: int, **measures: float) -> None:
        """Say how far the fit is; measures make a point of the training curve, such as `train_loss`.

        `judged_loss` is the name of the loss on the validation rows.
        """

    def busy(self) -> AbstractContextManager[None]:
        """Keep the lease while a library works that says nothing."""

    def take_steps(self, loop: Resumable) -> None:
        """Run a loop to its end, from its newest save, and save it on the way."""


def finite(measures: Mapping[str, float], done: int, steps: int) -> dict[str, float]:
    """Return measures that are numbers.

    Raises:
        NotFinite: one is NaN or infinite.
    """
    for name, value in measures.items():
        if not math.isfinite(value):
            raise NotFinite(
                f"{name} is {value} at step {done} of {steps}; expected a finite number. Lower the learning rate, or "
                "look for extreme values in the product's fields."
            )
    return dict(measures)


class Alone:
    """Progress of a fit that nobody watches: in `driftline check`, benchmarks, and parts of a blend."""

    def __init__(self) -> None:
        self.history: History = []

    def note(self, done: int, steps: int, **measures: float) -> None:
        """Keep the measures."""
        if measures:
            self.history.append({"epoch": done, **finite(measures, done, steps)})

    def busy(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return contextlib.nullcontext()

    def take_steps(self, loop: Resumable) -> None:
        """Run a loop to its end."""
        while not loop.is_finished:
            loop.step()
        self.history.extend(loop.history)


@dataclass(frozen=True, kw_only=True)
class Context:
    """The inputs of a learner besides its rows.

    Attributes:
        task: the kind of answer, with its losses and scale.
        training: seed, threads and settings.
        learned: preprocessing learned from the training rows: means, bins, vocabularies.
        device, precision: of the profile; a learner that cannot use them ignores them.
        judged: how many of the last rows are for validation: those of the learner's `validation_keys`.
        progress: receives how far the fit is.
    """

    task: Task
    training: Training
    learned: Learned
    device: str = "cpu"
    precision: str = "float32"
    judged: int = 0
    progress: Progress

    def note_answers(self, labels: NDArray[Any], answers: NDArray[Any], steps: int = 1, **measures: float) -> None:
        """Make the losses of a finished fit, on rows [N] that were learned from and on the others, its curve."""
        losses, cut = self.task.losses(labels, answers), len(labels) - self.judged
        judged = {"judged_loss": float(losses[cut:].mean())} if self.judged else {}
        self.progress.note(steps, steps, train_loss=float(losses[:cut].mean()), **judged, **measures)


@dataclass(frozen=True, kw_only=True)
class Graphs(Context, ABC):
    """The context of an export, with what makes ONNX files from a model's parts (`training.learners.graphs`)."""

    @abstractmethod
    def of_network(self, network: nn.Module) -> bytes:
        """Return the ONNX file of a torch module that maps `numeric`, `codes` and `image` to outputs [N, O]."""

    @abstractmethod
    def of_core(self, core: onnx.ModelProto) -> bytes:
        """Return the ONNX file of a graph from `numeric` float32 [N, F] and `codes` int64 [N, C] to `answer`."""

    @abstractmethod
    def of_blend(self, files: Sequence[bytes], weights: Sequence[float]) -> bytes:
        """Return one ONNX file whose answer is the weighted mean of others' answers."""


@dataclass(frozen=True, kw_only=True)
class Learner(ABC):
    """Fits models of one kind. A subclass is a frozen dataclass whose fields are its configuration.

    Attributes:
        resumes: whether a killed fit goes on from its newest save to the same bytes; otherwise it starts again, and the
            attempts' records say what that cost.
        kinds: names of the libraries, as Dagster's UI shows them.
        validation_keys (keys): how many of the last training keys are not learned from but judge the fit. The holdout
            is never among them.
    """

    resumes: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ()
    validation_keys: int = 0

    def __post_init__(self) -> None:
        if self.validation_keys < 0:
            raise ValueError(
                f"{type(self).__name__}.validation_keys is {self.validation_keys}; expected 0 or more keys."
            )

    @abstractmethod
    def fit(self, rows: Inputs, labels: NDArray[Any], context: Context) -> dict[str, bytes]:
        """Fit a model.

        Args:
            rows: N labelled rows, in the order of their keys; the last `context.judged` are for validation.
            labels: [N], in the task's encoding.

        Returns:
            The model's files. Equal arguments give equal bytes.

        Raises:
            TrainingProblem: nothing can be learned from these rows.
        """

    @abstractmethod
    def to_onnx(self, blobs: Blobs, graphs: Graphs) -> bytes:
        """Return a fitted model's ONNX file, from raw columns to answers; `graphs` makes it from parts."""

    @abstractmethod
    def answers(self, blobs: Blobs, rows: Inputs, context: Context) -> NDArray[np.float32]:
        """Return the model's own answers float32 [N] or [N, P], which its graph's must equal."""

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The product's functions among its fields."""
        values = (getattr(self, item.name) for item in fields(self))
        return [value for value in values if callable(value)]
