"""The measures of a value and its spread, a normal distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from platform_assets.evaluation.measures.base import Measures
from platform_assets.evaluation.measures.measure import Bin, Decided, Measure, calibration_error, log_loss, mean
from platform_assets.product.tasks.regression import LOG_ROOT, Regression, scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from platform_assets.evaluation.promises import Promise

LEVELS = tuple(tenth / 10 for tenth in range(1, 10))
"""Levels of the central intervals in the calibration table."""
REACH_90 = 1.6448536269514722
"""Half the width of the central 90 % of a normal distribution, in spreads."""
TENTHS = 10


@dataclass(frozen=True)
class RegressionMeasures(Measures):
    """Of a number."""

    expected_title: ClassVar[str] = "level of the central interval"
    observed_title: ClassVar[str] = "share of labels within it"

    task: Regression

    @property
    def of_answers(self) -> tuple[Measure, ...]:
        rmse = Measure(name="rmse", title="RMSE", value=lambda *rows: math.sqrt((_errors(*rows) ** 2).mean()))
        mae = mean("mae", "mean absolute error", lambda *rows: abs(_errors(*rows)))
        return (
            Measure(name="r2", title="R²", value=_r2, highest=1.0),
            log_loss(self.task.losses, lowest=None),
            *(replace(measure, unit=self.task.unit, is_more_better=False, lowest=0.0) for measure in (rmse, mae)),
            calibration_error(self._calibration_error),
        )

    @property
    def of_decisions(self) -> tuple[Measure, ...]:
        return (
            mean("bias", "bias", _errors, unit=self.task.unit, is_more_better=None),
            mean(
                "coverage_90",
                "within the 90 % interval",
                lambda *rows: abs(scores(*rows)) <= REACH_90,
                is_more_better=None,
                lowest=0.0,
                highest=1.0,
            ),
        )

    def entropies(self, answer: ArrayLike) -> np.ndarray:
        import numpy as np

        # Differential entropy of a normal distribution: ln(spread * sqrt(2 pi e)).
        return np.asarray(LOG_ROOT + 0.5 + np.log(np.asarray(answer, dtype=np.float64)[:, 1]))

    def details(self, labels: np.ndarray, answers: np.ndarray) -> Decided:
        """Return `bins`: mean value and mean label of tenths of the rows by value."""
        import numpy as np

        parts = [part for part in np.array_split(np.lexsort((labels, answers[:, 0])), TENTHS) if part.size]
        return {
            "bins": [
                {"rows": int(part.size), "value": float(answers[part, 0].mean()), "label": float(labels[part].mean())}
                for part in parts
            ],
            "notes": [] if _r2(labels, answers) is not None else ["All labels are equal, so R² is not defined."],
        }

    def own_promises(self, labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
        from platform_assets.evaluation import promise_effects

        return promise_effects.of_normals(labels, answers, codes, keys)

    def calibration_table(self, label: ArrayLike, answer: ArrayLike) -> list[Bin]:
        """Compare the share of labels within each central interval with its level."""
        import numpy as np

        labels, answers = self.task.checked(label, answer)
        farthest = np.abs(scores(labels, answers)).tolist()
        # P(Z <= score) of a standard normal, by the error function.
        below = np.array([0.5 * math.erfc(-score / math.sqrt(2)) for score in farthest])
        within = 2 * below - 1
        return [
            {"rows": labels.size, "expected": level, "observed": float(np.mean(within <= level))} for level in LEVELS
        ]

    def _calibration_error(self, labels: np.ndarray, answers: np.ndarray) -> float:
        table = self.calibration_table(labels, answers)
        return float(sum(abs(row["expected"] - row["observed"]) for row in table) / len(table))


def _errors(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return how far each value lies above its label [N]."""
    import numpy as np

    return np.asarray(answers[:, 0] - labels)


def _r2(labels: np.ndarray, answers: np.ndarray) -> float | None:
    """Return the share of the labels' variance explained by the values; None if there is no variance."""
    if labels.min() == labels.max():
        return None
    spread = float(((labels - labels.mean()) ** 2).sum())
    return 1.0 - float(((labels - answers[:, 0]) ** 2).sum()) / spread
