"""The measures of answers with one probability per class.

Shapes: N rows, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from platform_assets.evaluation.measures.base import Measures
from platform_assets.evaluation.measures.measure import (
    Bin,
    Decided,
    Measure,
    OfClass,
    calibration_error,
    log_loss,
    mean,
)
from platform_assets.product.tasks.multi_class import SMALLEST_PROBABILITY, MultiClass

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from platform_assets.evaluation.promises import Promise

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class MultiClassMeasures(Measures):
    """Of one of several classes."""

    expected_title: ClassVar[str] = "mean probability of the class that was chosen"
    observed_title: ClassVar[str] = "share of right choices"

    task: MultiClass

    @property
    def of_answers(self) -> tuple[Measure, ...]:
        return (
            mean("accuracy", "accuracy", _is_right, lowest=0.0, highest=1.0),
            log_loss(self.task.losses),
            mean("brier", "Brier score", _briers, is_more_better=False, lowest=0.0),
            calibration_error(self._calibration_error),
        )

    @property
    def of_decisions(self) -> tuple[Measure, ...]:
        return (
            Measure(
                name="balanced_accuracy",
                title="balanced accuracy",
                value=self._balanced_accuracy,
                without_each=self._balanced_without_each,
                lowest=0.0,
                highest=1.0,
            ),
        )

    def entropies(self, answer: ArrayLike) -> np.ndarray:
        import numpy as np

        chances = np.asarray(answer, dtype=np.float64)
        clipped = np.clip(chances, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
        return np.asarray(-(chances * np.log(clipped)).sum(axis=1))

    def details(self, labels: np.ndarray, answers: np.ndarray) -> Decided:
        """Return the lowest recall, each class's numbers, and `confusion`: rows [K][K] by label."""
        import numpy as np

        chosen = answers.argmax(axis=1)
        count = len(self.task.classes)
        confusion = np.bincount(labels * count + chosen, minlength=count * count).reshape(count, count)
        right, actual, called = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
        by_class: list[OfClass] = [
            {
                "class": name,
                "rows": int(actual[index]),
                "precision": float(right[index] / called[index]) if called[index] else None,
                "recall": float(right[index] / actual[index]) if actual[index] else None,
            }
            for index, name in enumerate(self.task.classes)
        ]
        recalls: list[float] = [row["recall"] for row in by_class if row["recall"] is not None]
        absent = [row["class"] for row in by_class if not row["rows"]]
        return {
            "lowest_recall": min(recalls),
            "by_class": by_class,
            "confusion": confusion.tolist(),
            "notes": [f"No row is {name}, so it has no recall." for name in absent],
        }

    def own_promises(self, labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
        """Return the promises of the probability that the chosen class is right."""
        from platform_assets.evaluation import promise_effects

        return promise_effects.of_probabilities(_is_right(labels, answers), answers.max(axis=1), codes, keys)

    def calibration_table(self, label: ArrayLike, answer: ArrayLike) -> list[Bin]:
        """Compare confidence with accuracy, in bins of equal mass of the chosen class's probability."""
        from platform_assets.evaluation import metrics

        labels, chances = self.task.checked(label, answer)
        return metrics.calibration_table(
            _is_right(labels, chances), chances.max(axis=1).clip(0.0, 1.0), bins=CALIBRATION_BINS
        )

    def _balanced_accuracy(self, labels: np.ndarray, chances: np.ndarray) -> float:
        """Return the mean recall of the classes that occur."""
        import numpy as np

        right = _is_right(labels, chances)
        return float(np.mean([right[labels == index].mean() for index in np.unique(labels)]))

    def _balanced_without_each(
        self, labels: np.ndarray, chances: np.ndarray, codes: np.ndarray, keys: int
    ) -> np.ndarray | None:
        """Return it without each key; None if a key holds all rows of a class: the mean would be over fewer classes."""
        import numpy as np

        rests = [codes != code for code in range(keys)]
        if any(np.unique(labels[rest]).size < np.unique(labels).size for rest in rests):
            return None
        return np.array([self._balanced_accuracy(labels[rest], chances[rest]) for rest in rests])

    def _calibration_error(self, labels: np.ndarray, chances: np.ndarray) -> float:
        table = self.calibration_table(labels, chances)
        return float(sum(row["rows"] * abs(row["expected"] - row["observed"]) for row in table) / labels.size)


def _is_right(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Return per row whether the likeliest class is the right one [N]."""
    import numpy as np

    return np.asarray(chances.argmax(axis=1) == labels)


def _briers(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Return each row's squared distance from its outcome, summed over classes [N] (Brier 1950)."""
    import numpy as np

    return np.asarray(((chances - np.eye(chances.shape[1])[labels]) ** 2).sum(axis=1))
