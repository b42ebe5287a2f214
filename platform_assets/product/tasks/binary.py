"""Binary tasks: a model answers with the probability of yes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.base import kinds
from platform_assets.product.tasks.base import Target, Task, TaskDocument

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from msgspec import Struct
    from numpy.typing import ArrayLike
    from torch import Tensor

    from platform_assets.product.label_summary import Labels


@dataclass(frozen=True, kw_only=True)
class Binary(Task):
    """Yes or no: labels are 1, 0 or null; an answer is one probability.

    Attributes:
        threshold (probability): from which an answer counts as positive.
    """

    kind: ClassVar[str] = "binary"
    margin: ClassVar[float] = 0.010

    threshold: float = 0.5

    def __post_init__(self) -> None:
        kinds.check(self, "Binary.")
        if not 0 < self.threshold < 1:
            raise ValueError(f"Binary.threshold is {self.threshold}; expected a probability between 0 and 1.")

    @property
    def outputs(self) -> int:
        return 1

    def document(self) -> TaskDocument:
        return {"kind": self.kind, "threshold": self.threshold}

    def label_type(self) -> pl.DataType:
        import polars as pl

        return pl.Int8()

    def answer_types(self) -> dict[str, pl.DataType]:
        import polars as pl

        return {"probability": pl.Float64()}

    def logged_type(self) -> type[Struct]:
        from typing import Annotated

        import msgspec

        return msgspec.defstruct("Logged", [("probability", Annotated[float, msgspec.Meta(ge=0, le=1)])])

    def about(self) -> dict[str, str]:
        return {
            "label": "1 if it came true, 0 if not, null if it can be neither or is not known yet",
            "probability": "as answered",
        }

    def labels_of(self, column: pl.Series) -> np.ndarray:
        import numpy as np

        if strangers := sorted(set(column.unique().to_list()) - {0, 1}):
            raise ValueError(f"labels hold {strangers[0]!r}; expected 0 and 1. Fix `label` in the product's file.")
        return column.to_numpy().astype(np.int8)

    def answers_of(self, rows: pl.DataFrame) -> np.ndarray:
        import numpy as np

        return rows["probability"].to_numpy().astype(np.float64)

    def stored(self, outputs: Sequence[Any]) -> dict[str, list[Any]]:
        return {"probability": list(outputs)}

    def summary(self, column: pl.Series) -> Labels:
        return {"positives": int(column.sum() or 0)}

    def losses(self, label: ArrayLike, answer: ArrayLike) -> np.ndarray:
        from platform_assets.product.tasks import probabilities

        return probabilities.log_losses(label, answer)

    def checked(self, label: ArrayLike, answer: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        from platform_assets.product.tasks import probabilities

        return probabilities.checked(label, answer)

    def mix_edges(self, answer: ArrayLike) -> list[float] | None:
        return [self.threshold]

    def mix(self, answer: ArrayLike, edges: Sequence[float] | None) -> list[int]:
        import numpy as np

        (threshold,) = edges or (self.threshold,)
        called = int(np.count_nonzero(np.asarray(answer) >= threshold))
        return [int(np.size(answer)) - called, called]

    def check_labels(self, labels: np.ndarray) -> None:
        import numpy as np

        values = np.unique(labels).tolist()
        if values != [0, 1]:
            raise ValueError(
                f"the label takes the values {values} in {len(labels)} training rows; expected both 0 and 1. "
                "Fix the product's label(), or train on more keys."
            )

    def loss(self, outputs: Tensor, labels: Tensor, target: Target) -> Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits

        targets = labels.to(outputs.dtype).reshape(-1, *[1] * (outputs.dim() - 1))
        return binary_cross_entropy_with_logits(outputs, targets.expand_as(outputs))

    def graph_answer(self, outputs: Tensor, target: Target) -> Tensor:
        return outputs.squeeze(1).sigmoid()

    def answer(self, outputs: np.ndarray, target: Target) -> np.ndarray:
        import numpy as np

        return np.asarray(1.0 / (1.0 + np.exp(-outputs[:, 0].astype(np.float64))))
