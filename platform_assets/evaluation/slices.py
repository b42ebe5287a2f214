"""Break a model's quality down by the groups of a column.

There are no intervals or gates per group: with dozens of groups some look bad by chance, so the table is for reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from platform_assets.evaluation.measures.base import Measures

MOST_GROUPS = 12
FEWEST_ROWS = 100
NULL_GROUP = "(null)"
SliceRow = dict[str, str | int | float | None]
"""One group of a column: `slice`, `value`, `rows`, the task's measures by name, and `note`.

A measure is None if the group's rows do not define it; the note explains that, and points out small groups.
"""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The rows of a column in named groups.

    Attributes:
        names: in order of display.
        codes: each row's index into `names` [N].
    """

    names: tuple[str, ...]
    codes: NDArray[np.int64]


def group(values: pl.Series) -> Groups:
    """Put the values of a column into at most `MOST_GROUPS` groups; nulls (and NaN) form another one.

    Text is grouped by value, most frequent first, the rarest together in the last group; booleans by value; numbers by
    value if they are few, otherwise by quarters of the rows.

    Raises:
        ValueError: a dtype that no request field has.
    """
    if values.dtype.is_float():
        values = values.fill_nan(None)
    if values.dtype == pl.Boolean:
        return _by_value(values.cast(pl.Int8), {0: "false", 1: "true"})
    if values.dtype.is_numeric():
        distinct = values.drop_nulls().unique().sort().to_list()
        if len(distinct) <= MOST_GROUPS:
            return _by_value(values, {value: f"{value:g}" for value in distinct})
        non_null = values.drop_nulls().sort()
        edges = sorted({float(non_null[len(non_null) * quarter // 4 - 1]) for quarter in (1, 2, 3)})
        quarters = np.searchsorted(edges, values.cast(pl.Float64).fill_null(0.0).to_numpy(), side="left")
        between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        names = [f"up to {edges[0]:g}", *between, f"over {edges[-1]:g}"]
        return _with_null(names, np.where(values.is_null().to_numpy(), len(names), quarters).astype(np.int64))
    if values.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise ValueError(f"slice {values.name!r} has dtype {values.dtype}; expected text, a number or a boolean.")
    values = values.cast(pl.String)
    counts = values.drop_nulls().value_counts(name="rows").sort(["rows", values.name], descending=[True, False])
    names = ranked = counts[values.name].to_list()
    if len(ranked) > MOST_GROUPS:
        rarer = len(ranked) - MOST_GROUPS + 1
        names = [*ranked[: MOST_GROUPS - 1], f"{rarer} rarer values"]
    position = {value: min(index, len(names) - 1) for index, value in enumerate(ranked)}
    codes = [len(names) if value is None else position[value] for value in values.to_list()]
    return _with_null(names, np.asarray(codes, dtype=np.int64))


def _by_value(values: pl.Series, names: Mapping[Any, str]) -> Groups:
    present = [value for value in names if (values == value).any()]
    codes = np.full(len(values), len(present), dtype=np.int64)
    for position, value in enumerate(present):
        codes[(values == value).fill_null(False).to_numpy()] = position
    return _with_null([names[value] for value in present], codes)


def _with_null(names: list[str], codes: NDArray[np.int64]) -> Groups:
    has_null = bool((codes == len(names)).any())
    return Groups(names=(*names, NULL_GROUP) if has_null else tuple(names), codes=codes)


def slice_table(
    label: ArrayLike, answer: ArrayLike, columns: Mapping[str, Groups], measures: Measures
) -> list[SliceRow]:
    """Return the measures of each group of each column, groups in order."""
    labels, answers = np.asarray(label), np.asarray(answer)
    table: list[SliceRow] = []
    for column, groups in columns.items():
        if groups.codes.size != labels.size:
            raise ValueError(
                f"slice {column!r} has {groups.codes.size} rows and the labels {labels.size}; expected as many."
            )
        for code, value in enumerate(groups.names):
            inside = groups.codes == code
            if not inside.any():
                continue
            some = labels[inside]
            quality = measures.quality(some, answers[inside])
            opening = f"All labels are {some[0]:g}, so" if (some == some[0]).all() else "With these rows"
            notes = [f"Only {some.size} rows."] if some.size < FEWEST_ROWS else []
            undefined = [measure for measure in measures.of_answers if quality[measure.name] is None]
            notes += [measure.undefined or f"{opening} {measure.title} is not defined." for measure in undefined]
            about: SliceRow = {"slice": column, "value": value, "rows": int(some.size)}
            table.append({**about, **quality, "note": " ".join(notes) or None})
    return table
