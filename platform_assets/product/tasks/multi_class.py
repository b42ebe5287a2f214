"""Multi-class tasks: a model answers with one probability per class. Labels are the classes' names.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.base import kinds
from platform_assets.product.tasks.base import Target, Task, TaskDocument, rows_checked

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from msgspec import Struct
    from numpy.typing import ArrayLike
    from torch import Tensor

    from platform_assets.product.label_summary import Labels


SMALLEST_PROBABILITY = 1e-7
MOST_CLASSES = 1_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,62}")


@dataclass(frozen=True, kw_only=True)
class MultiClass(Task):
    """One of several classes: labels are one of `classes` or null; an answer is one probability per class, in order.

    Attributes:
        classes: their names, as labels and answers use them.
    """

    kind: ClassVar[str] = "multi_class"
    margin: ClassVar[float] = 0.010

    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        kinds.check(self, "MultiClass.")
        if not 2 <= len(self.classes) <= MOST_CLASSES or len(set(self.classes)) != len(self.classes):
            raise ValueError(
                f"MultiClass.classes holds {len(self.classes)} names, {len(set(self.classes))} of them distinct; "
                f"expected 2 to {MOST_CLASSES} and none twice."
            )
        if wrong := [name for name in self.classes if not _NAME.fullmatch(name)]:
            raise ValueError(
                f"MultiClass.classes holds {wrong[0]!r}; expected lower-case letters, digits and underscores, at most "
                "63, because a class names metrics and columns."
            )

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def document(self) -> TaskDocument:
        return {"kind": self.kind, "classes": list(self.classes)}

    def label_type(self) -> pl.DataType:
        import polars as pl

        return pl.String()

    def answer_types(self) -> dict[str, pl.DataType]:
        import polars as pl

        return {"predicted": pl.String(), "probabilities": pl.List(pl.Float64())}

    def logged_type(self) -> type[Struct]:
        from typing import Annotated, Literal

        import msgspec

        count = len(self.classes)
        chances = Annotated[
            list[Annotated[float, msgspec.Meta(ge=0, le=1)]], msgspec.Meta(min_length=count, max_length=count)
        ]
        return msgspec.defstruct("Logged", [("predicted", Literal[self.classes]), ("probabilities", chances)])

    def about(self) -> dict[str, str]:
        return {
            "label": "the true class, null if there is none or it is not known yet",
            "predicted": "the likeliest class",
            "probabilities": f"of {', '.join(self.classes)}, in this order",
        }

    def labels_of(self, column: pl.Series) -> np.ndarray:
        import numpy as np

        index_of = {name: index for index, name in enumerate(self.classes)}
        names = column.to_list()
        if strangers := sorted({str(name) for name in names if name not in index_of}):
            raise ValueError(
                f"labels hold {', '.join(map(repr, strangers[:5]))}; expected one of {', '.join(self.classes)}. "
                "Fix `label` or `task` in the product's file."
            )
        return np.array([index_of[name] for name in names], dtype=np.int64)

    def answers_of(self, rows: pl.DataFrame) -> np.ndarray:
        import numpy as np

        probabilities = np.array(rows["probabilities"].to_list(), dtype=np.float64)
        return probabilities.reshape(rows.height, len(self.classes))

    def stored(self, outputs: Sequence[Any]) -> dict[str, list[Any]]:
        likeliest = [self.classes[chances.index(max(chances))] for chances in outputs]
        return {"predicted": likeliest, "probabilities": list(outputs)}

    def summary(self, column: pl.Series) -> Labels:
        counts = dict(column.drop_nulls().value_counts(name="_rows").iter_rows())
        return {"classes": {name: counts.get(name, 0) for name in self.classes}}

    def losses(self, label: ArrayLike, answer: ArrayLike) -> np.ndarray:
        import numpy as np

        labels, chances = self.checked(label, answer)
        likelihoods = chances[np.arange(labels.size), labels]
        return -np.log(np.clip(likelihoods, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY))

    def checked(self, label: ArrayLike, answer: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        labels, chances = np.asarray(label, dtype=np.int64), np.asarray(answer, dtype=np.float64)
        rows_checked(labels, chances, len(self.classes))
        if not ((chances >= 0) & (chances <= 1)).all() or np.abs(chances.sum(axis=1) - 1).max() > 1e-3:
            raise ValueError("some answers are not probabilities that add up to 1; check the model that produced them.")
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise ValueError(
                f"labels run from {labels.min()} to {labels.max()}; there are {len(self.classes)} classes."
            )
        return labels, chances

    def mix(self, answer: ArrayLike, edges: Sequence[float] | None) -> list[int]:
        import numpy as np

        chances = np.asarray(answer).reshape(-1, len(self.classes))
        counts: list[int] = np.bincount(chances.argmax(axis=1), minlength=len(self.classes)).tolist()
        return counts

    def check_labels(self, labels: np.ndarray) -> None:
        import numpy as np

        counts = np.bincount(labels, minlength=len(self.classes))
        if absent := [name for name, rows in zip(self.classes, counts, strict=True) if not rows]:
            raise ValueError(
                f"{len(labels)} training rows hold no label {', '.join(map(repr, absent[:5]))} of "
                f"{len(self.classes)} classes; expected each at least once. Train on more keys, or take it out of "
                "`task` in the product's file."
            )

    def loss(self, outputs: Tensor, labels: Tensor, target: Target) -> Tensor:
        from torch.nn.functional import cross_entropy

        if outputs.dim() == 2:
            return cross_entropy(outputs, labels)
        rows, members, count = outputs.shape
        return cross_entropy(outputs.reshape(rows * members, count), labels.repeat_interleave(members))

    def graph_answer(self, outputs: Tensor, target: Target) -> Tensor:
        return outputs.softmax(dim=1)

    def answer(self, outputs: np.ndarray, target: Target) -> np.ndarray:
        import numpy as np

        exact = outputs.astype(np.float64)
        powers = np.exp(exact - exact.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
