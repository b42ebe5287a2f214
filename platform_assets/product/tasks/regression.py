"""Regression tasks: a model answers with a value and its spread, a normal distribution.

The spread makes the answer a promise that can be tested: so many labels within so much of the value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.product.tasks.base import Target, Task, TaskDocument, rows_checked

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from msgspec import Struct
    from numpy.typing import ArrayLike
    from torch import Tensor

    from platform_assets.product.label_summary import Labels


SMALLEST_SPREAD = 1e-3
"""Relative to the labels' standard deviation: a smaller spread would promise what no label can keep."""
MIX_BINS = 10
MOST_SPREADS = 1e4
"""How many standard deviations the labels' mean may lie from 0: a float32 holds seven digits."""
LOG_ROOT = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """A number: labels are finite numbers or null; an answer is a value and its spread (one standard deviation).

    Attributes:
        unit: of the label, such as `deg F`; for charts and answers.
    """

    kind: ClassVar[str] = "regression"
    margin: ClassVar[float] = 0.020

    unit: str = ""

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

    def stored(self, outputs: Sequence[Any]) -> dict[str, list[Any]]:
        return {"value": [value for value, _ in outputs], "spread": [spread for _, spread in outputs]}

    def summary(self, column: pl.Series) -> Labels:
        mean, lowest, highest = (getattr(column.drop_nulls(), statistic)() for statistic in ("mean", "min", "max"))
        return {"mean": mean, "lowest": lowest, "highest": highest}

    def losses(self, label: ArrayLike, answer: ArrayLike) -> np.ndarray:
        import numpy as np

        labels, answers = self.checked(label, answer)
        return np.asarray(LOG_ROOT + np.log(answers[:, 1]) + 0.5 * scores(labels, answers) ** 2)

    def checked(self, label: ArrayLike, answer: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        labels, answers = np.asarray(label, dtype=np.float64), np.asarray(answer, dtype=np.float64)
        rows_checked(labels, answers, 2)
        if not np.isfinite(labels).all() or not np.isfinite(answers).all() or not (answers[:, 1] > 0).all():
            raise ValueError(
                "some labels or answers are not finite, or a spread is not above 0; check the model that produced them."
            )
        return labels, answers

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
        # softplus, as a form that does not overflow.
        spread = np.logaddexp(0.0, exact[:, 1]) + SMALLEST_SPREAD
        return np.stack([exact[:, 0] * target["std"] + target["mean"], spread * target["std"]], axis=1)


def scores(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return how many spreads each label lies above its value [N]."""
    import numpy as np

    return np.asarray((labels - answers[:, 0]) / answers[:, 1])
