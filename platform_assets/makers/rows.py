"""Read the rows of a training step exactly as its manifest names them, by content digest.

Does not belong here: learning, or choosing keys (`stages`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from platform_assets import naming
from platform_assets.compute.matrix import Inputs, inputs_of

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task
    from platform_assets.product.fields import Field
    from platform_assets.storage.tables import TableStore

FEATURES, OUTCOMES = naming.stage("features"), naming.stage("outcomes")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a product, in the order of their keys.

    Attributes:
        frame: the columns of the features table and `label` (null where there is none, or none known in time).
        inputs: what a model takes.
        task: of the product.
    """

    frame: pl.DataFrame
    inputs: Inputs
    task: Task

    @property
    def labels(self) -> np.ndarray:
        """The labels as the task has them [N]; of rows that all have one (`labelled`)."""
        return self.task.labels_of(self.frame["label"])

    def labelled(self) -> Rows:
        """Return only the rows that have a label: what a model may learn from."""
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
    """Read some keys' rows with their labels.

    Args:
        fields, task: of the product.
        tables: of the product.
        keys: which of the digests to read, in order.
        features: content digest of the features table by key.
        outcomes: the same of the outcomes table.
        known_before: labels known at or after this moment count as not known; None takes all.

    Raises:
        ValueError: a key without a digest, or an entity with two labels.
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
    twice = labels.filter(pl.struct("key", "entity").is_duplicated())
    if twice.height > 0:
        raise ValueError(
            f"{tables.product}: entity {twice['entity'][0]!r} of key {twice['key'][0]} has {twice.height} outcome rows "
            "or more; expected one label an entity. Mend the product's label()."
        )
    frame = frame.join(labels.select("key", "entity", "label"), on=["key", "entity"], how="left", maintain_order="left")
    return Rows(frame=frame, inputs=inputs_of(frame, fields), task=task)
