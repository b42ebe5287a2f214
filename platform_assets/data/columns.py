"""Compare a delivery's columns with those of its source: keep others out, fill in those that may be absent."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import SequenceMatcher

import polars as pl

from platform_assets.data import typed

MOST_NAMES = 12
MOST_COMPARED = 100
"""How many undeclared columns are compared with those that vanished."""
ALIKE = 0.6
"""Two names are alike from this ratio of common letters on; case and punctuation do not count."""

_TWICE = re.compile(r"(.*)_duplicated_\d+", re.DOTALL)
"""How polars names a header's second column of the same name."""


def problem(frame: pl.DataFrame, types: Mapping[str, pl.DataType], absent: Collection[str] = ()) -> str | None:
    """Return what is wrong with a delivery's columns: one is missing or comes twice. None if they are right.

    Names what came, what was expected, and what was probably renamed.

    Args:
        frame: as delivered.
        types: the schema's, by column.
        absent: the columns that this delivery may lack.
    """
    came = undeclared(frame, types)
    twice = sorted({match[1] for name in came if (match := _TWICE.fullmatch(name)) and match[1] in types})
    if twice:
        return f"the header names {in_short(twice)} twice; expected each column once. Fix the delivery."
    lost = [name for name in types if name not in frame.columns and name not in absent]
    if not lost:
        return None
    likely = [f"{quoted(old)} is now called {quoted(new)}" for old, new in renamed(frame, types, lost).items()]
    return (
        f"the file has the columns {in_short(frame.columns)}; expected {in_short([*types])}. "
        f"Missing: {in_short(lost)}; not expected: {in_short(came)}. "
        + (f"Likely renamed: {', '.join(likely[:MOST_NAMES])}. " if likely else "")
        + "Fix the delivery, or the source's schema or `partial_columns` in the product's file."
    )


def fit(frame: pl.DataFrame, types: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return the declared columns of a delivery, in its order; those that it lacks are null.

    Args:
        frame: as delivered.
        types: the schema's, by column.
    """
    there = [name for name in frame.columns if name in types]
    is_text = all(frame.schema[name] == pl.String for name in there)
    null = pl.lit(None, dtype=pl.String if is_text else pl.Null)
    return frame.select(*there, *(null.alias(name) for name in types if name not in frame.columns))


def undeclared(frame: pl.DataFrame, types: Collection[str]) -> list[str]:
    """Return the columns of a delivery that its source does not declare."""
    return [name for name in frame.columns if name not in types]


def renamed(frame: pl.DataFrame, types: Mapping[str, pl.DataType], lost: Sequence[str]) -> dict[str, str]:
    """Return what each vanished column is probably called now: a new name like it, or in its place.

    A pair whose new cells do not parse as the old column's type is left out, unless nothing else vanished or came.

    Args:
        frame: as delivered, with all columns.
        types: the schema's, by column.
        lost: declared columns that did not come.
    """
    came = undeclared(frame, types)[:MOST_COMPARED]
    if len(lost) == len(came) == 1:
        return {lost[0]: came[0]}
    expected, delivered = ({name: place for place, name in enumerate(names)} for names in (types, frame.columns))
    ranked = sorted(
        (-(ratio + is_in_place), old, new)
        for old in lost[:MOST_COMPARED]
        for new in came
        for ratio, is_in_place in [(_ratio(old, new), expected[old] == delivered[new])]
        if (ratio >= ALIKE or is_in_place) and _parses(frame[new], types[old])
    )
    pairs: dict[str, str] = {}
    for _, old, new in ranked:
        if old not in pairs and new not in pairs.values():
            pairs[old] = new
    return {old: pairs[old] for old in lost if old in pairs}


def in_short(names: Sequence[str]) -> str:
    """Return names for a message: the first dozen, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(quoted, names[:MOST_NAMES])) + more if names else "none"


def quoted(name: str) -> str:
    """Return a column's name, in quotes if it would be misread without."""
    return name if name and name == name.strip() and name.isprintable() and "," not in name else repr(name)


def _ratio(old: str, new: str) -> float:
    first, second = (re.sub(r"[\W_]+", "", name).casefold() for name in (old, new))
    return SequenceMatcher(None, first, second).ratio()


def _parses(cells: pl.Series, dtype: pl.DataType) -> bool:
    """Tell whether a column's values could be of a type: a tenth may be wrong."""
    values = cells.drop_nulls().head(1_000)
    if values.is_empty() or dtype == pl.String or values.dtype == dtype:
        return True
    held = typed.hold(values.to_frame("cell"), {"cell": dtype})["cell"]
    return held.null_count() <= len(values) / 10
