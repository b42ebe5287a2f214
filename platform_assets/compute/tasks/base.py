"""Name what a kind of task must bring. Imports nothing heavy: a spec holds one.

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
    """A task as a contract holds it, with the members of its kind."""

    kind: Required[str]
    threshold: float
    classes: list[str]
    unit: str


Target = Mapping[str, float] | None
"""What was learned of the labels' scale; None where they have none."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Base of the kinds.

    Attributes:
        kind: as it stands in contracts.
        margin: how much worse in the headline than the champion is still allowed, unless the spec says otherwise.
        expected_words, observed_words: the axes of its calibration chart.
    """

    kind: ClassVar[str]
    margin: ClassVar[float]
    expected_words: ClassVar[str]
    observed_words: ClassVar[str]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Measures of what a model says: the headline, `log_loss` (baselines are beaten in it), `ece`, and the others.

        The one list: quality, windows, verdicts, reports and status follow it.
        """
        raise NotImplementedError

    @property
    def decisions(self) -> tuple[Measure, ...]:
        """Measures of what is done with it."""
        raise NotImplementedError

    @property
    def headline(self) -> Measure:
        """The measure by which a challenger is held against the champion; more is better."""
        return self.measures[0]

    @property
    def compared(self) -> tuple[Measure, ...]:
        """The measures in which a challenger is held against the champion."""
        by_name = {each.name: each for each in self.measures}
        return (self.headline, by_name[LOG_LOSS], by_name[CALIBRATION_ERROR])

    @property
    def shown(self) -> tuple[Measure, ...]:
        """Every measure, those of decisions last."""
        return (*self.measures, *self.decisions)

    @property
    def outputs(self) -> int:
        """How many numbers a network gives a row [O]."""
        raise NotImplementedError

    def document(self) -> TaskDocument:
        """Return the task as the contract holds it."""
        raise NotImplementedError

    # Columns

    def label_type(self) -> pl.DataType:
        """Return the type of the column `label`."""
        raise NotImplementedError

    def said_types(self) -> dict[str, pl.DataType]:
        """Return the columns in which answers are kept."""
        raise NotImplementedError

    def logged(self) -> type[Struct]:
        """Return the type as which the answers' columns are decoded from the prediction log."""
        raise NotImplementedError

    def about(self) -> dict[str, str]:
        """Return what `label` and the answers' columns mean."""
        raise NotImplementedError

    def labels_of(self, column: pl.Series) -> np.ndarray:
        """Return labels without nulls as numbers [N]; raise `ValueError` for a value that is none."""
        raise NotImplementedError

    def said_of(self, rows: pl.DataFrame) -> np.ndarray:
        """Return the answers of rows, float64 [N] or [N, P]."""
        raise NotImplementedError

    def summary(self, column: pl.Series) -> Labels:
        """Return what a record tells of a column of labels, nulls left out."""
        raise NotImplementedError

    # Judging

    def losses(self, label: ArrayLike, said: ArrayLike) -> np.ndarray:
        """Return each row's negative log likelihood in nats [N]."""
        raise NotImplementedError

    def entropies(self, said: ArrayLike) -> np.ndarray:
        """Return what the model expects of each row's loss [N]."""
        raise NotImplementedError

    def checked(self, label: ArrayLike, said: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return labels [N] and answers [N] or [N, P] as measures take them; raise `ValueError` for wrong ones."""
        raise NotImplementedError

    def quality(self, label: ArrayLike, said: ArrayLike) -> dict[str, float | None]:
        """Return each of `measures`; None where the rows cannot give one."""
        labels, answers = self.checked(label, said)
        return {each.name: each.of(labels, answers) for each in self.measures}

    def details(self, labels: np.ndarray, answers: np.ndarray) -> Decided:
        """Return what `decisions` rest on, and `notes`: sentences besides those of undefined `decisions`."""
        raise NotImplementedError

    def decided(self, label: ArrayLike, said: ArrayLike) -> Decided:
        """Return each of `decisions` with their `details`."""
        labels, answers = self.checked(label, said)
        values = {each.name: each.of(labels, answers) for each in self.decisions}
        details = self.details(labels, answers)
        undefined = [each.undefined for each in self.decisions if each.undefined and values[each.name] is None]
        return cast("Decided", {**values, **details, "notes": [*undefined, *details["notes"]]})

    def estimates(
        self, label: ArrayLike, said: ArrayLike, key: ArrayLike, *, confidence: float
    ) -> dict[str, Difference | None]:
        """Return each of `shown` with its interval clustered by key; None where too few keys can give one.

        Raises:
            ValueError: fewer than two keys, or answers and labels that are none.
        """
        from platform_assets.compute import clustered

        rows = (*self.checked(label, said), key)
        return {each.name: clustered.estimate(each, *rows, confidence=confidence) for each in self.shown}

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
            ValueError: as `estimates`, or a key without which the measure is not defined.
        """
        from platform_assets.compute import clustered

        labels, ones = self.checked(label, first)
        _, others = self.checked(label, second)
        return clustered.difference(measure, labels, ones, others, key, confidence=confidence)

    def own_promises(self, labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
        """Return what the kind's answers promise besides their log loss; arguments as `promises`."""
        raise NotImplementedError

    def promises(self, labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
        """Return all that answers promise, by key: the family that is tested.

        Args:
            labels: [N], as `checked` returns them; so are `answers` [N] or [N, P].
            codes: the row's key, counted in order [N].
            keys: how many there are.
        """
        import numpy as np

        from platform_assets.compute import promises

        rows = np.bincount(codes, minlength=keys)
        excess = self.losses(labels, answers) - self.entropies(answers)
        loss = promises.Promise(
            name=LOG_LOSS,
            words="log loss minus what the model expects of itself",
            effects=np.bincount(codes, weights=excess, minlength=keys) / rows,
            variances=1 / rows,
            neighbours=promises.BETWEEN_KEYS,
            side=1,
            margin=None,
        )
        return [*self.own_promises(labels, answers, codes, keys), loss]

    def tested(self, label: ArrayLike, said: ArrayLike, key: ArrayLike, *, confidence: float) -> dict[str, Tested]:
        """Test the answers against what they promise, as one family.

        Args:
            key: the row's cluster, whose names are ordered as keys are.
            confidence: of the intervals.

        Raises:
            ValueError: fewer than two keys, or answers and labels that are none.
        """
        from platform_assets.compute import paired, promises

        labels, answers = self.checked(label, said)
        codes, names = paired.keys_of(key, labels.size)
        return promises.family(self.promises(labels, answers, codes, len(names)), confidence=confidence)

    def calibration_table(self, label: ArrayLike, said: ArrayLike) -> list[Bin]:
        """Return what was promised beside what happened, in rising order."""
        raise NotImplementedError

    def is_like(self, document: TaskDocument) -> bool:
        """Tell whether the answers of a contract's task mean the same as this one's: kind and classes."""
        mine = self.document()
        return (mine["kind"], mine.get("classes")) == (document.get("kind"), document.get("classes"))

    # The mix of answers

    def mix_edges(self, said: ArrayLike) -> list[float] | None:
        """Return the edges of the bins of `mix`, from the answers on the training rows; None where classes are bins."""
        del said
        return None

    def mix(self, said: ArrayLike, edges: Sequence[float] | None) -> list[int]:
        """Count the answers by what they say: the same bins for the same edges."""
        raise NotImplementedError

    # Learning

    def check_labels(self, labels: np.ndarray) -> None:
        """Raise `ValueError` for labels from which nothing can be learned."""
        raise NotImplementedError

    def target_of(self, labels: np.ndarray) -> Target:
        """Return the scale of the training labels, for kinds that have one."""
        del labels
        return None

    def loss(self, outputs: Tensor, labels: Tensor, target: Target) -> Tensor:
        """Return the mean loss of outputs [N, O], or [N, M, O] of M members, each by its own."""
        raise NotImplementedError

    def graph_answer(self, outputs: Tensor, target: Target) -> Tensor:
        """Return the answers of outputs [N, O] as the exported graph gives them: [N] or [N, P]."""
        raise NotImplementedError

    def answer(self, outputs: np.ndarray, target: Target) -> np.ndarray:
        """Return the same with numpy, float64."""
        raise NotImplementedError


def rows_checked(label: np.ndarray, said: np.ndarray, width: int | None) -> None:
    """Raise `ValueError` unless there are rows and as many answers [N] (or [N, width]) as labels."""
    wanted = (label.size,) if width is None else (label.size, width)
    if label.ndim != 1 or said.shape != wanted:
        raise ValueError(f"labels have shape {label.shape} and answers {said.shape}; expected one of each a row.")
    if label.size == 0:
        raise ValueError("there are no labelled rows; a model is measured on at least one. Look at `outcomes`.")
