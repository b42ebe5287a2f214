"""Read the rows of a training step exactly as its manifest names them, by content digest.

Belongs here: tables to matrices and labels. Does not belong here: learning, or choosing keys (`stages`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from platform_assets import naming
from platform_assets.compute.matrix import categorical_matrix, numeric_matrix
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.tables import TableStore

FEATURES, OUTCOMES = naming.stage("features"), naming.stage("outcomes")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a product, in the order of their keys.

    Attributes:
        frame: the columns of the features table and `label` (null where there is none, or none known in time).
        numeric: float32 [N, F], NaN for null.
        categorical: text [N, C], "" for null.
    """

    frame: pl.DataFrame
    numeric: np.ndarray
    categorical: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Return float32 [N], NaN where there is no label."""
        return self.frame["label"].cast(pl.Float32).fill_null(float("nan")).to_numpy(writable=True)

    def labelled(self) -> Rows:
        """Return only the rows that have a label: what a model may learn from."""
        has_label = self.frame["label"].is_not_null()
        chosen = has_label.to_numpy()
        return Rows(
            frame=self.frame.filter(has_label), numeric=self.numeric[chosen], categorical=self.categorical[chosen]
        )


def read(
    spec: ProductSpec,
    tables: TableStore,
    *,
    keys: Sequence[str],
    features: Mapping[str, str],
    outcomes: Mapping[str, str],
    known_before: datetime | None,
) -> Rows:
    """Read some keys' rows with their labels.

    Args:
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
                f"{spec.name}: no {name} digest for {', '.join(missing)}; the step was started with too few."
            )
    frame = tables.read_exact(FEATURES, {key: features[key] for key in keys})
    labels = tables.read_exact(OUTCOMES, {key: outcomes[key] for key in keys})
    if known_before is not None:
        labels = labels.filter(pl.col("known_at") < known_before)
    twice = labels.filter(pl.struct("key", "entity").is_duplicated())
    if twice.height > 0:
        raise ValueError(
            f"{spec.name}: entity {twice['entity'][0]!r} of key {twice['key'][0]} has {twice.height} outcome rows "
            "or more; expected one label an entity. Mend the product's label()."
        )
    frame = frame.join(labels.select("key", "entity", "label"), on=["key", "entity"], how="left", maintain_order="left")
    return Rows(
        frame=frame,
        numeric=numeric_matrix(frame, spec.fields),
        categorical=categorical_matrix(frame, spec.fields),
    )
