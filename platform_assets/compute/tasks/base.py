"""The interface of a kind of task. Imports nothing heavy, because specs hold one.

Shapes: N rows, P numbers of an answer (an answer of one number is [N], not [N, 1]), O outputs of a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Required, TypedDict, cast

from platform_assets.compute.tasks.measures import CALIBRATION_ERROR, LOG_LOSS, Bin, Decided, Measure

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from msgspec import Struct
    from numpy.typing import ArrayLike
    from torch import Tensor

    from platform_assets.compute.paired import Difference
    from platform_assets.compute.promises import Promise, Tested
    from platform_assets.records.sketches import Labels


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
        expected_words, observed_words: axis titles of the calibration chart.
    """

    kind: ClassVar[str]
    margin: ClassVar[float]
    expected_words: ClassVar[str]
    observed_words: ClassVar[str]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Measures of the answers: the headline, `log_loss` (in which baselines must be beaten), `ece`, and others.

        This is the only list: quality, windows, verdicts, reports and status follow it.
        """
        raise NotImplementedError

    @property
    def decisions(self) -> tuple[Measure, ...]:
        """Measures of the decisions made from the answers."""
        raise NotImplementedError

    @property
    def headline(self) -> Measure:
        """The measure in which a challenger is compared with the champion; more is better."""
        return self.measures[0]

    @property
    def compared(self) -> tuple[Measure, ...]:
        """The measures in which a challenger is compared with the champion."""
        by_name = {measure.name: measure for measure in self.measures}
        return (self.headline, by_name[LOG_LOSS], by_name[CALIBRATION_ERROR])

    @property
    def shown(self) -> tuple[Measure, ...]:
        """All measures, those of decisions last."""
        return (*self.measures, *self.decisions)

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

    def summary(self, column: pl.Series) -> Labels:
        """Summarise a column of labels for a record, without nulls."""
        raise NotImplementedError

    # Scoring

    def losses(self, label: ArrayLike, answer: ArrayLike) -> np.ndarray:
        """Return each row's negative log likelihood in nats [N]."""
        raise NotImplementedError

    def entropies(self, answer: ArrayLike) -> np.ndarray:
        """Return the loss the model expects per row [N]."""
        raise NotImplementedError

    def checked(self, label: ArrayLike, answer: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Validate labels [N] and answers [N] or [N, P], and return them as measures take them.

        Raises:
            ValueError: wrong shapes or values.
        """
        raise NotImplementedError

    def quality(self, label: ArrayLike, answer: ArrayLike) -> dict[str, float | None]:
        """Return each of `measures`; None where the rows do not define one."""
        labels, answers = self.checked(label, answer)
        return {measure.name: measure.of(labels, answers) for measure in self.measures}

    def details(self, labels: np.ndarray, answers: np.ndarray) -> Decided:
        """Return the numbers behind `decisions`, and `notes`: sentences besides those of undefined `decisions`."""
        raise NotImplementedError

    def decided(self, label: ArrayLike, answer: ArrayLike) -> Decided:
        """Return each of `decisions` with their `details`."""
        labels, answers = self.checked(label, answer)
        values = {measure.name: measure.of(labels, answers) for measure in self.decisions}
        details = self.details(labels, answers)
        undefined = [
            measure.undefined for measure in self.decisions if measure.undefined and values[measure.name] is None
        ]
        return cast("Decided", {**values, **details, "notes": [*undefined, *details["notes"]]})

    def estimates(
        self, label: ArrayLike, answer: ArrayLike, key: ArrayLike, *, confidence: float
    ) -> dict[str, Difference | None]:
        """Return each of `shown` with its interval clustered by key; None where too few keys define one.

        Raises:
            ValueError: fewer than two keys, or invalid answers or labels.
        """
        from platform_assets.compute import clustered

        rows = (*self.checked(label, answer), key)
        return {measure.name: clustered.estimate(measure, *rows, confidence=confidence) for measure in self.shown}

    def difference(
        self,
        measure: Measure,
        label: ArrayLike,
        first: ArrayLike,
        second: ArrayLike,
        key: ArrayLike,
        *,
        confidence: float,
    ) -> Difference:
        """Return a measure of `first` minus that of `second`, clustered by key.

        Raises:
            ValueError: as `estimates`, or the measure is not defined without some key.
        """
        from platform_assets.compute import clustered

        labels, first_answers = self.checked(label, first)
        _, second_answers = self.checked(label, second)
        return clustered.difference(measure, labels, first_answers, second_answers, key, confidence=confidence)

    def own_promises(self, labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
        """Return the kind's own promises, in addition to log loss; arguments as in `promises`."""
        raise NotImplementedError

    def promises(self, labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
        """Return everything the answers promise, by key: the family that is tested.

        Args:
            labels: [N], as `checked` returns them; so are `answers` [N] or [N, P].
            codes: each row's key index, in key order [N].
            keys: number of keys.
        """
        import numpy as np

        from platform_assets.compute import promises

        rows = np.bincount(codes, minlength=keys)
        excess = self.losses(labels, answers) - self.entropies(answers)
        loss = promises.Promise(
            name=LOG_LOSS,
            description="log loss minus the model's own expected loss",
            effects=np.bincount(codes, weights=excess, minlength=keys) / rows,
            variances=1 / rows,
            neighbours=promises.BETWEEN_KEYS,
            side=1,
            margin=None,
        )
        return [*self.own_promises(labels, answers, codes, keys), loss]

    def test_promises(
        self, label: ArrayLike, answer: ArrayLike, key: ArrayLike, *, confidence: float
    ) -> dict[str, Tested]:
        """Test the answers against what they promise, as one family.

        Args:
            key: each row's cluster; names sort in key order.
            confidence: of the intervals.

        Raises:
            ValueError: fewer than two keys, or invalid answers or labels.
        """
        from platform_assets.compute import paired, promises

        labels, answers = self.checked(label, answer)
        codes, names = paired.keys_of(key, labels.size)
        return promises.family(self.promises(labels, answers, codes, len(names)), confidence=confidence)

    def calibration_table(self, label: ArrayLike, answer: ArrayLike) -> list[Bin]:
        """Compare promised with observed rates, in rising order."""
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
