"""Regression tasks: a model answers with a value and its spread, a normal distribution.

The spread makes the answer a promise that can be tested: so many labels within so much of the value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from platform_assets.compute.tasks.base import Target, Task, TaskDocument, rows_checked
from platform_assets.compute.tasks.measures import Bin, Decided, Measure, calibration_error, log_loss, mean

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from msgspec import Struct
    from numpy.typing import ArrayLike
    from torch import Tensor

    from platform_assets.compute.promises import Promise
    from platform_assets.records.sketches import Labels


SMALLEST_SPREAD = 1e-3
"""Relative to the labels' standard deviation: a smaller spread would promise what no label can keep."""
LEVELS = tuple(tenth / 10 for tenth in range(1, 10))
"""Levels of the central intervals in the calibration table."""
REACH_90 = 1.6448536269514722
"""Half the width of the central 90 % of a normal distribution, in spreads."""
MIX_BINS = 10
MOST_SPREADS = 1e4
"""How many standard deviations the labels' mean may lie from 0: a float32 holds seven digits."""
_LOG_ROOT = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """A number: labels are finite numbers or null; an answer is a value and its spread (one standard deviation).

    Attributes:
        unit: of the label, such as `deg F`; for charts and answers.
    """

    kind: ClassVar[str] = "regression"
    margin: ClassVar[float] = 0.020
    expected_words: ClassVar[str] = "level of the central interval"
    observed_words: ClassVar[str] = "share of labels within it"

    unit: str = ""

    @property
    def measures(self) -> tuple[Measure, ...]:
        rmse = Measure(name="rmse", title="RMSE", of=lambda *rows: math.sqrt((_errors(*rows) ** 2).mean()))
        mae = mean("mae", "mean absolute error", lambda *rows: abs(_errors(*rows)))
        return (
            Measure(name="r2", title="R²", of=_r2, highest=1.0),
            log_loss(self.losses, lowest=None),
            *(replace(measure, unit=self.unit, is_more_better=False, lowest=0.0) for measure in (rmse, mae)),
            calibration_error(self._calibration_error),
        )

    @property
    def decisions(self) -> tuple[Measure, ...]:
        return (
            mean("bias", "bias", _errors, unit=self.unit, is_more_better=None),
            mean(
                "coverage_90",
                "within the 90 % interval",
                lambda *rows: abs(_scores(*rows)) <= REACH_90,
                is_more_better=None,
                lowest=0.0,
                highest=1.0,
            ),
        )

    @property
    def outputs(self) -> int:
        return 2

    def document(self) -> TaskDocument:
        return {"kind": self.kind, "unit": self.unit}

    def label_type(self) -> pl.DataType:
        import polars as pl

        return pl.Float64()

    def answer_types(self) -> dict[str, pl.DataType]:
        import polars as pl

        return {"value": pl.Float64(), "spread": pl.Float64()}

    def logged_type(self) -> type[Struct]:
        from typing import Annotated

        import msgspec

        return msgspec.defstruct("Logged", [("value", float), ("spread", Annotated[float, msgspec.Meta(gt=0)])])

    def about(self) -> dict[str, str]:
        of_unit = f" ({self.unit})" if self.unit else ""
        return {
            "label": f"actual value{of_unit}, null if there is none or it is not known yet",
            "value": f"expected value{of_unit}",
            "spread": f"standard deviation of the answer{of_unit}",
        }

    def labels_of(self, column: pl.Series) -> np.ndarray:
        import numpy as np

        labels = column.to_numpy().astype(np.float64)
        if not np.isfinite(labels).all():
            raise ValueError("labels hold numbers that are not finite; expected finite ones or null. Fix `label`.")
        return labels

    def answers_of(self, rows: pl.DataFrame) -> np.ndarray:
        import numpy as np

        return rows.select("value", "spread").to_numpy().astype(np.float64)

    def summary(self, column: pl.Series) -> Labels:
        mean, lowest, highest = (getattr(column.drop_nulls(), statistic)() for statistic in ("mean", "min", "max"))
        return {"mean": mean, "lowest": lowest, "highest": highest}

    def losses(self, label: ArrayLike, answer: ArrayLike) -> np.ndarray:
        import numpy as np

        labels, answers = self.checked(label, answer)
        return np.asarray(_LOG_ROOT + np.log(answers[:, 1]) + 0.5 * _scores(labels, answers) ** 2)

    def entropies(self, answer: ArrayLike) -> np.ndarray:
        import numpy as np

        return np.asarray(_LOG_ROOT + 0.5 + np.log(np.asarray(answer, dtype=np.float64)[:, 1]))

    def checked(self, label: ArrayLike, answer: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        labels, answers = np.asarray(label, dtype=np.float64), np.asarray(answer, dtype=np.float64)
        rows_checked(labels, answers, 2)
        if not np.isfinite(labels).all() or not np.isfinite(answers).all() or not (answers[:, 1] > 0).all():
            raise ValueError(
                "some labels or answers are not finite, or a spread is not above 0; check the model that produced them."
            )
        return labels, answers

    def details(self, labels: np.ndarray, answers: np.ndarray) -> Decided:
        """Return `bins`: mean value and mean label of tenths of the rows by value."""
        import numpy as np

        parts = [part for part in np.array_split(np.lexsort((labels, answers[:, 0])), MIX_BINS) if part.size]
        return {
            "bins": [
                {"rows": int(part.size), "value": float(answers[part, 0].mean()), "label": float(labels[part].mean())}
                for part in parts
            ],
            "notes": [] if _r2(labels, answers) is not None else ["All labels are equal, so R² is not defined."],
        }

    def own_promises(self, labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> list[Promise]:
        from platform_assets.compute import promise_effects

        return promise_effects.of_normals(labels, answers, codes, keys)

    def calibration_table(self, label: ArrayLike, answer: ArrayLike) -> list[Bin]:
        """Compare the share of labels within each central interval with its level."""
        import numpy as np

        labels, answers = self.checked(label, answer)
        within = 2 * _normal_cdf(np.abs(_scores(labels, answers))) - 1
        return [
            {"rows": labels.size, "expected": level, "observed": float(np.mean(within <= level))} for level in LEVELS
        ]

    def mix_edges(self, answer: ArrayLike) -> list[float] | None:
        import numpy as np

        values = np.asarray(answer, dtype=np.float64)[:, 0]
        inner = np.quantile(values, [tenth / MIX_BINS for tenth in range(1, MIX_BINS)])
        edges: list[float] = np.unique(inner).tolist()
        return edges

    def mix(self, answer: ArrayLike, edges: Sequence[float] | None) -> list[int]:
        import numpy as np

        assert edges is not None
        values = np.asarray(answer, dtype=np.float64).reshape(-1, 2)[:, 0]
        counts: list[int] = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).tolist()
        return counts

    def check_labels(self, labels: np.ndarray) -> None:
        import numpy as np

        if np.unique(labels).size < 2:
            raise ValueError(
                f"the label takes the value {labels[0]:g} in all {len(labels)} training rows; expected at least two "
                "values. Fix the product's label(), or train on more keys."
            )
        mean, std = float(np.mean(labels)), float(np.std(labels))
        if abs(mean) > MOST_SPREADS * std:
            raise ValueError(
                f"the label lies around {mean:g} and varies by only {std:g}: a 32-bit answer cannot tell its values "
                "apart. Subtract a constant in the product's label(), and add it again where answers are used."
            )

    def target_of(self, labels: np.ndarray) -> Target:
        import numpy as np

        exact = np.asarray(labels, dtype=np.float64)
        return {"mean": float(exact.mean()), "std": float(exact.std())}

    def loss(self, outputs: Tensor, labels: Tensor, target: Target) -> Tensor:
        from torch.nn.functional import softplus

        assert target is not None
        standardised = ((labels - target["mean"]) / target["std"]).reshape(-1, *[1] * (outputs.dim() - 2))
        spread = softplus(outputs[..., 1]) + SMALLEST_SPREAD
        return (spread.log() + 0.5 * ((outputs[..., 0] - standardised) / spread) ** 2).mean()

    def graph_answer(self, outputs: Tensor, target: Target) -> Tensor:
        import torch
        from torch.nn.functional import softplus

        assert target is not None
        value = outputs[:, 0] * target["std"] + target["mean"]
        return torch.stack([value, (softplus(outputs[:, 1]) + SMALLEST_SPREAD) * target["std"]], dim=1)

    def answer(self, outputs: np.ndarray, target: Target) -> np.ndarray:
        import numpy as np

        assert target is not None
        exact = outputs.astype(np.float64)
        spread = np.logaddexp(0.0, exact[:, 1]) + SMALLEST_SPREAD
        return np.stack([exact[:, 0] * target["std"] + target["mean"], spread * target["std"]], axis=1)

    def _calibration_error(self, labels: np.ndarray, answers: np.ndarray) -> float:
        table = self.calibration_table(labels, answers)
        return float(sum(abs(row["expected"] - row["observed"]) for row in table) / len(table))


def _errors(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return how far each value lies above its label [N]."""
    import numpy as np

    return np.asarray(answers[:, 0] - labels)


def _scores(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return how many spreads each label lies above its value [N]."""
    import numpy as np

    return np.asarray((labels - answers[:, 0]) / answers[:, 1])


def _r2(labels: np.ndarray, answers: np.ndarray) -> float | None:
    """Return the share of the labels' variance explained by the values; None if there is no variance."""
    if labels.min() == labels.max():
        return None
    spread = float(((labels - labels.mean()) ** 2).sum())
    return 1.0 - float(((labels - answers[:, 0]) ** 2).sum()) / spread


def _normal_cdf(scores: np.ndarray) -> np.ndarray:
    """Return P(Z <= score) of a standard normal, by the error function."""
    import numpy as np

    return np.array([0.5 * math.erfc(-score / math.sqrt(2)) for score in scores.tolist()])
