"""Encode rows of fields as a model's inputs: numbers, text and an image.

Order and encoding are shared by training, parity and evaluation. Normalising, imputing and look-up of categories happen
inside the model.
Shapes: N rows, F numeric fields, C categories, an image of H by W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from platform_assets.product.inputs import Inputs

if TYPE_CHECKING:
    from platform_assets.product.fields import Field

CATEGORY, IMAGE = "category", "image"


def inputs_of(frame: pl.DataFrame, fields: Sequence[Field]) -> Inputs:
    """Encode a frame that has one column per field."""
    from platform_assets.data import images

    image = None
    for item in fields:
        if item.shape is not None:  # a product has one image at most
            _check(frame, (item.name,))
            image = images.stacked(frame[item.name], item.shape)
    return Inputs(numeric=numeric_matrix(frame, fields), categorical=categorical_matrix(frame, fields), image=image)


def numeric_columns(fields: Sequence[Field]) -> tuple[str, ...]:
    """Return the names of the fields that are sent as numbers, in the contract's order."""
    return tuple(item.name for item in fields if item.dtype not in (CATEGORY, IMAGE))


def categorical_columns(fields: Sequence[Field]) -> tuple[str, ...]:
    """Return the names of the fields that are sent as text, in the contract's order."""
    return tuple(item.name for item in fields if item.dtype == CATEGORY)


def numeric_matrix(frame: pl.DataFrame, fields: Sequence[Field]) -> NDArray[np.float32]:
    """Return float32 [N, F]: null becomes NaN, false and true become 0 and 1."""
    names = numeric_columns(fields)
    _check(frame, names)
    out = np.empty((frame.height, len(names)), dtype=np.float32)
    for position, name in enumerate(names):
        out[:, position] = frame[name].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return out


def distinct(texts: Iterable[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct texts in order of appearance, and each text's place among them.

    A text is held once, where an array of numpy's text type has as many letters per row as its longest text.
    """
    # As an array of text, one of 8,000 letters among 20,000 rows took 1.3 GB.
    places = dict[str, int]()
    by_row = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int64)
    return list(places), by_row


def categorical_matrix(frame: pl.DataFrame, fields: Sequence[Field]) -> NDArray[Any]:
    """Return object [N, C] of `str`, equal ones the same object: null becomes the empty text."""
    names = categorical_columns(fields)
    _check(frame, names)
    out = np.empty((frame.height, len(names)), dtype=object)
    for position, name in enumerate(names):
        texts, places = distinct(frame[name].cast(pl.String).fill_null(""))
        out[:, position] = np.array(texts, dtype=object)[places]
    return out


def _check(frame: pl.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(f"the frame lacks the fields {', '.join(missing)}; it has {', '.join(frame.columns)}.")
