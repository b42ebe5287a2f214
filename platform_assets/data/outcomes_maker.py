"""Turn validated label rows into outcomes: each entity's label, and when it became known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from platform_assets.engine.outputs import RowMaker, StageOutput, by_key

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.product.label_summary import Labels
    from platform_assets.product.spec import Product
    from platform_assets.product.tasks import Task

COLUMNS = ("entity", "label", "known_at")


class Notes(TypedDict):
    """The label counts in a key's record."""

    rows_labelled: int
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class Labelling(RowMaker):
    """Labels entities; see `Product`. `product` is its name, for messages."""

    NUMBER: ClassVar[int] = 1

    product: str
    label: Callable[[pl.DataFrame], pl.DataFrame]
    task: Task

    @staticmethod
    def for_product(spec: Product) -> Labelling:
        """Return the maker for a product."""
        return Labelling(product=spec.name, label=spec.label, task=spec.task)

    def own(self) -> dict[str, Any]:
        """Return the members; what is computed from answers, such as a threshold, affects no label."""
        from platform_assets.product.tasks import MultiClass

        classes = self.task.classes if isinstance(self.task, MultiClass) else None
        return {"label": self.label, "task": self.task.kind, "classes": classes}

    def make(self, keys: tuple[str, ...], rows: pl.DataFrame) -> StageOutput:
        """Return the outcomes of keys.

        Raises:
            ValueError: wrong columns, labels the task does not accept, or rows of other keys.
        """
        labelled = self.label(rows)
        if set(labelled.columns) != {"key", *COLUMNS}:
            raise ValueError(
                f"label of {self.product} returned columns {labelled.columns}; expected {['key', *COLUMNS]}. "
                "Fix `label` in the product's file."
            )
        labelled = labelled.select("key", *COLUMNS)
        if labelled.schema["label"] != self.task.label_type():
            raise ValueError(
                f"label of {self.product} returned labels of type {labelled.schema['label']}; a {self.task.kind} task "
                f"has {self.task.label_type()}. Fix `label` or `task` in the product's file."
            )
        frames = by_key(labelled, keys, f"label of {self.product}")
        return StageOutput(frames=frames, notes={key: self._counts(frame) for key, frame in frames.items()})

    def _counts(self, frame: pl.DataFrame) -> Notes:
        labels = frame["label"].drop_nulls()
        self.task.labels_of(labels)
        return {"rows_labelled": labels.len(), "labels": self.task.summary(labels)}
