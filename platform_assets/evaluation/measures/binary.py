"""The measures of binary answers. The statistics are in `evaluation.metrics`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from platform_assets.evaluation.measures.base import Measures
from platform_assets.evaluation.measures.measure import Bin, Decided, Measure, calibration_error, log_loss, mean
from platform_assets.product.tasks.binary import Binary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from platform_assets.evaluation.promises import Promise


@dataclass(frozen=True)
class BinaryMeasures(Measures):
    """Of yes or no."""

    expected_title: ClassVar[str] = "mean predicted probability"
    observed_title: ClassVar[str] = "observed rate of positives"

    task: Binary

    @property
    def of_answers(self) -> tuple[Measure, ...]:
        return (
            Measure(name="auc", title="AUC", value=_auc, without_each=_auc_without_each, lowest=0.0, highest=1.0),
            log_loss(self.task.losses),
            mean(
                "brier", "Brier score", lambda labels, answer: (answer - labels) ** 2, is_more_better=False, lowest=0.0
            ),
            calibration_error(_calibration_error),
        )

    @property
    def of_decisions(self) -> tuple[Measure, ...]:
        def at_threshold(title: str, of: Callable[..., float | None], undefined: str | None = None) -> Measure:
            def value(labels: np.ndarray, answer: np.ndarray) -> float | None:
                return of(labels, answer >= self.task.threshold)

            return Measure(name=title, title=title, value=value, lowest=0.0, highest=1.0, undefined=undefined)

        return (
            at_threshold("accuracy", lambda labels, called: _share(called == labels)),
            at_threshold(
                "precision",
                lambda labels, called: _share(labels[called]),
                f"No row reaches the threshold {self.task.threshold:g}, so precision is not defined.",
            ),
            at_threshold(
                "recall", lambda labels, called: _share(called[labels]), "No row is positive, so recall is not defined."
            ),
        )

    def entropies(self, answer: ArrayLike) -> np.ndarray:
        from platform_assets.evaluation import clustered

        return clustered.entropies(answer)

    def details(self, labels: np.ndarray, answers: np.ndarray) -> Decided:
        from platform_assets.evaluation import metrics

        return metrics.at_threshold(labels, answers, self.task.threshold)

    def own_promises(self, labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
        from platform_assets.evaluation import promise_effects

        return promise_effects.of_probabilities(labels, answers, codes, keys)

    def calibration_table(self, label: ArrayLike, answer: ArrayLike) -> list[Bin]:
        from platform_assets.evaluation import metrics

        return metrics.calibration_table(label, answer)


def _auc(labels: np.ndarray, chances: np.ndarray) -> float | None:
    from platform_assets.evaluation import metrics

    return metrics.auc(labels, chances) if 0 < labels.sum() < labels.size else None


def _auc_without_each(labels: np.ndarray, chances: np.ndarray, codes: np.ndarray, keys: int) -> np.ndarray | None:
    from platform_assets.evaluation import paired

    return paired.auc_without_each(labels, chances, codes, keys)


def _calibration_error(labels: np.ndarray, chances: np.ndarray) -> float:
    from platform_assets.evaluation import metrics

    return metrics.expected_calibration_error(labels, chances)


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if flags.size else None
