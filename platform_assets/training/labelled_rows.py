"""Read the rows of a training step by content digest, exactly as its manifest names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from platform_assets.base import naming
from platform_assets.training.matrix import inputs_of

if TYPE_CHECKING:
    from platform_assets.product.fields import Field
    from platform_assets.product.inputs import Inputs
    from platform_assets.product.tasks import Task
    from platform_assets.store.tables import TableStore

FEATURES, OUTCOMES = naming.stage("features"), naming.stage("outcomes")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a product, in the order of their keys.

    Attributes:
        frame: the columns of the features table and `label`; null where there is none, or none known in time.
        inputs: the model's inputs.
    """

    frame: pl.DataFrame
    inputs: Inputs
    task: Task

    @property
    def labels(self) -> np.ndarray:
        """The labels in the task's encoding [N]; only for rows that all have one (`labelled`)."""
        return self.task.labels_of(self.frame["label"])

    def labelled(self) -> Rows:
        """Return only the labelled rows, which a model may learn from."""
        has_label = self.frame["label"].is_not_null()
        return Rows(frame=self.frame.filter(has_label), inputs=self.inputs[has_label.to_numpy()], task=self.task)


def read(
    fields: Sequence[Field],
    task: Task,
    tables: TableStore,
    *,
    keys: Sequence[str],
    features: Mapping[str, str],
    outcomes: Mapping[str, str],
    known_before: datetime | None,
) -> Rows:
    """Read rows of the given keys with their labels.

    Args:
        keys: which of the digests to read, in order.
        features: content digests of the features table, by key.
        outcomes: content digests of the outcomes table, by key.
        known_before: labels known at or after this moment count as missing; None uses all labels.

    Raises:
        ValueError: a key has no digest, or an entity has two labels.
    """
    for name, digests in ((FEATURES, features), (OUTCOMES, outcomes)):
        if missing := [key for key in keys if key not in digests]:
            raise ValueError(
                f"{tables.product}: no {name} digest for {', '.join(missing)}; the step was started with too few."
            )
    frame = tables.read_exact(FEATURES, {key: features[key] for key in keys})
    labels = tables.read_exact(OUTCOMES, {key: outcomes[key] for key in keys})
    if known_before is not None:
        labels = labels.filter(pl.col("known_at") < known_before)
    duplicates = labels.filter(pl.struct("key", "entity").is_duplicated())
    if duplicates.height > 0:
        raise ValueError(
            f"{tables.product}: entity {duplicates['entity'][0]!r} of key {duplicates['key'][0]} has several outcome "
            f"rows ({duplicates.height} such rows in all); expected one label per entity. Fix the product's label()."
        )
    # The rows' order decides the batches, and by itself a join of polars keeps none.
    frame = frame.join(labels.select("key", "entity", "label"), on=["key", "entity"], how="left", maintain_order="left")
    return Rows(frame=frame, inputs=inputs_of(frame, fields), task=task)
