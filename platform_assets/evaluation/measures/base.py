"""The measures of a kind of task: how well answers meet labels, the decisions made from them, and what they promise.

Shapes: N rows, P numbers of an answer (an answer of one number is [N], not [N, 1]), G keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from platform_assets.evaluation.measures.measure import CALIBRATION_ERROR, LOG_LOSS, Bin, Decided, Measure
from platform_assets.product.tasks.base import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from platform_assets.evaluation.paired import Difference
    from platform_assets.evaluation.promises import Promise
    from platform_assets.store.records.performance import Tested


@dataclass(frozen=True)
class Measures:
    """Base class of the kinds.

    Attributes:
        expected_title, observed_title: axis titles of the calibration chart.
    """

    expected_title: ClassVar[str]
    observed_title: ClassVar[str]

    task: Task

    @property
    def of_answers(self) -> tuple[Measure, ...]:
        """Measures of the answers: the headline, `log_loss` (in which baselines must be beaten), `ece`, and others.

        This is the only list: quality, windows, verdicts, reports and status follow it.
        """
        raise NotImplementedError

    @property
    def of_decisions(self) -> tuple[Measure, ...]:
        """Measures of the decisions made from the answers."""
        raise NotImplementedError

    @property
    def headline(self) -> Measure:
        """The measure in which a challenger is compared with the champion; more is better."""
        return self.of_answers[0]

    @property
    def compared(self) -> tuple[Measure, ...]:
        """The measures in which a challenger is compared with the champion."""
        by_name = {measure.name: measure for measure in self.of_answers}
        return (self.headline, by_name[LOG_LOSS], by_name[CALIBRATION_ERROR])

    @property
    def every(self) -> tuple[Measure, ...]:
        """All measures, those of decisions last."""
        return (*self.of_answers, *self.of_decisions)

    def entropies(self, answer: ArrayLike) -> np.ndarray:
        """Return the loss the model expects per row [N]."""
        raise NotImplementedError

    def quality(self, label: ArrayLike, answer: ArrayLike) -> dict[str, float | None]:
        """Return each of `measures`; None where the rows do not define one."""
        labels, answers = self.task.checked(label, answer)
        return {measure.name: measure.value(labels, answers) for measure in self.of_answers}

    def details(self, labels: np.ndarray, answers: np.ndarray) -> Decided:
        """Return the numbers behind `of_decisions`, and `notes`: sentences besides those of what is undefined."""
        raise NotImplementedError

    def decided(self, label: ArrayLike, answer: ArrayLike) -> Decided:
        """Return each of `of_decisions` with their `details`."""
        labels, answers = self.task.checked(label, answer)
        values = {measure.name: measure.value(labels, answers) for measure in self.of_decisions}
        details = self.details(labels, answers)
        undefined = [
            measure.undefined for measure in self.of_decisions if measure.undefined and values[measure.name] is None
        ]
        return cast("Decided", {**values, **details, "notes": [*undefined, *details["notes"]]})

    def estimates(
        self, label: ArrayLike, answer: ArrayLike, key: ArrayLike, *, confidence: float
    ) -> dict[str, Difference | None]:
        """Return each of `every` with its interval clustered by key; None where too few keys define one.

        Raises:
            ValueError: fewer than two keys, or invalid answers or labels.
        """
        from platform_assets.evaluation import clustered

        rows = (*self.task.checked(label, answer), key)
        return {measure.name: clustered.estimate(measure, *rows, confidence=confidence) for measure in self.every}

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
        from platform_assets.evaluation import clustered

        labels, first_answers = self.task.checked(label, first)
        _, second_answers = self.task.checked(label, second)
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

        from platform_assets.evaluation import promises

        rows = np.bincount(codes, minlength=keys)
        # Quality moves with the difficulty of days, and so does what a model expects: the difference is its error.
        excess = self.task.losses(labels, answers) - self.entropies(answers)
        loss = promises.Promise(
            name=LOG_LOSS,
            description="log loss minus the model's own expected loss",
            effects=np.bincount(codes, weights=excess, minlength=keys) / rows,
            variances=1 / rows,
            neighbours=promises.BETWEEN_KEYS,
            side=1,
            margin=None,
        )
        # Log loss alone is blind in calm times: with no signal left, and too low by 1 in log odds, it fell by .036.
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
        from platform_assets.evaluation import paired, promises

        labels, answers = self.task.checked(label, answer)
        codes, names = paired.keys_of(key, labels.size)
        return promises.family(self.promises(labels, answers, codes, len(names)), confidence=confidence)

    def calibration_table(self, label: ArrayLike, answer: ArrayLike) -> list[Bin]:
        """Compare promised with observed rates, in rising order."""
        raise NotImplementedError
