"""Turn rows of fields into the two matrices that a model takes.

Belongs here: the order and the encoding of a model's inputs, shared by training, parity and evaluation.
Does not belong here: normalising, imputing, look-up of categories: these are inside the model.
Shapes: N rows, F numeric fields, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from platform_assets.specs.base import Field

CATEGORY = "category"


def numeric_columns(fields: Sequence[Field]) -> tuple[str, ...]:
    """Return the names of the fields that travel as numbers, in the contract's order."""
    return tuple(item.name for item in fields if item.dtype != CATEGORY)


def categorical_columns(fields: Sequence[Field]) -> tuple[str, ...]:
    """Return the names of the fields that travel as text, in the contract's order."""
    return tuple(item.name for item in fields if item.dtype == CATEGORY)


def numeric_matrix(frame: pl.DataFrame, fields: Sequence[Field]) -> NDArray[np.float32]:
    """Return float32 [N, F]: null becomes NaN, false and true become 0 and 1."""
    names = numeric_columns(fields)
    _check(frame, names)
    out = np.empty((frame.height, len(names)), dtype=np.float32)
    for place, name in enumerate(names):
        out[:, place] = frame[name].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return out


def categorical_matrix(frame: pl.DataFrame, fields: Sequence[Field]) -> NDArray[Any]:
    """Return object [N, C] of `str`: null becomes the empty text."""
    names = categorical_columns(fields)
    _check(frame, names)
    out = np.empty((frame.height, len(names)), dtype=object)
    for place, name in enumerate(names):
        out[:, place] = frame[name].cast(pl.String).fill_null("").to_list()
    return out


def _check(frame: pl.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(f"the frame lacks the fields {', '.join(missing)}; it has {', '.join(frame.columns)}.")
