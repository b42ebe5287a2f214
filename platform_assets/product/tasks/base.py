"""The interface of a kind of task. Imports nothing heavy, because specs hold one.

Shapes: N rows, P numbers of an answer (an answer of one number is [N], not [N, 1]), O outputs of a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Required, TypedDict

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from msgspec import Struct
    from numpy.typing import ArrayLike
    from torch import Tensor

    from platform_assets.product.label_summary import Labels


class TaskDocument(TypedDict, total=False):
    """A task as a contract stores it, with the members of its kind."""

    kind: Required[str]
    threshold: float
    classes: list[str]
    unit: str


Target = Mapping[str, float] | None
"""The learned scale of the labels; None if they have none."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Base class of the kinds.

    Attributes:
        kind: as in contracts.
        margin: how much worse than the champion's the headline may be, unless the spec says otherwise.
    """

    kind: ClassVar[str]
    margin: ClassVar[float]

    @property
    def outputs(self) -> int:
        """Numbers a network returns per row [O]."""
        raise NotImplementedError

    def document(self) -> TaskDocument:
        """Return the task as the contract stores it."""
        raise NotImplementedError

    # Columns

    def label_type(self) -> pl.DataType:
        """Return the type of the column `label`."""
        raise NotImplementedError

    def answer_types(self) -> dict[str, pl.DataType]:
        """Return the columns in which answers are stored."""
        raise NotImplementedError

    def logged_type(self) -> type[Struct]:
        """Return the type that decodes the answers' columns from the prediction log."""
        raise NotImplementedError

    def about(self) -> dict[str, str]:
        """Describe `label` and the answers' columns."""
        raise NotImplementedError

    def labels_of(self, column: pl.Series) -> np.ndarray:
        """Return non-null labels as numbers [N]; raise `ValueError` for a value that is not a label."""
        raise NotImplementedError

    def answers_of(self, rows: pl.DataFrame) -> np.ndarray:
        """Return the answers of rows, float64 [N] or [N, P]."""
        raise NotImplementedError

    def stored(self, outputs: Sequence[Any]) -> dict[str, list[Any]]:
        """Return rows of a graph's output, as Python numbers, in the columns of `answer_types`, as logged."""
        raise NotImplementedError

    def summary(self, column: pl.Series) -> Labels:
        """Summarise a column of labels for a record, without nulls."""
        raise NotImplementedError

    # The likelihood of labels

    # Every kind answers with a distribution, so a live model can be judged by its own answers, without another model.
    def losses(self, label: ArrayLike, answer: ArrayLike) -> np.ndarray:
        """Return each row's negative log likelihood in nats [N]."""
        raise NotImplementedError

    def checked(self, label: ArrayLike, answer: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Validate labels [N] and answers [N] or [N, P], and return them as measures take them.

        Raises:
            ValueError: wrong shapes or values.
        """
        raise NotImplementedError

    def is_like(self, document: TaskDocument) -> bool:
        """Whether a contract's task means the same by its answers as this one: kind and classes."""
        document_of_self = self.document()
        return (document_of_self["kind"], document_of_self.get("classes")) == (
            document.get("kind"),
            document.get("classes"),
        )

    # The mix of answers

    def mix_edges(self, answer: ArrayLike) -> list[float] | None:
        """Return the bin edges of `mix`, from the answers on the training rows; None if classes are the bins."""
        del answer
        return None

    def mix(self, answer: ArrayLike, edges: Sequence[float] | None) -> list[int]:
        """Count answers per bin; equal edges give the same bins."""
        raise NotImplementedError

    # Learning

    def check_labels(self, labels: np.ndarray) -> None:
        """Raise `ValueError` for labels that nothing can be learned from."""
        raise NotImplementedError

    def target_of(self, labels: np.ndarray) -> Target:
        """Return the scale of the training labels; None for kinds without one."""
        del labels
        return None

    def loss(self, outputs: Tensor, labels: Tensor, target: Target) -> Tensor:
        """Return the mean loss of outputs [N, O], or [N, M, O] of M members, each by its own loss."""
        raise NotImplementedError

    def graph_answer(self, outputs: Tensor, target: Target) -> Tensor:
        """Return the answers of outputs [N, O] as the exported graph returns them: [N] or [N, P]."""
        raise NotImplementedError

    def answer(self, outputs: np.ndarray, target: Target) -> np.ndarray:
        """Compute the answers of `graph_answer` with numpy, float64."""
        raise NotImplementedError


def rows_checked(label: np.ndarray, answer: np.ndarray, width: int | None) -> None:
    """Raise `ValueError` unless there are rows and as many answers [N] (or [N, width]) as labels."""
    expected = (label.size,) if width is None else (label.size, width)
    if label.ndim != 1 or answer.shape != expected:
        raise ValueError(f"labels have shape {label.shape} and answers {answer.shape}; expected one of each per row.")
    if label.size == 0:
        raise ValueError("there are no labelled rows; a model is measured on at least one. Look at `outcomes`.")
