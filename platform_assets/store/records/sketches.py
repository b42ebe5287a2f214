"""Define summaries of rows: of a key's sources, rules and features, and of a model's training rows.

Members added by later code are not an error.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType, field

from platform_assets.product.label_summary import Labels
from platform_assets.store.records.base import Part

Histograms = dict[str, list[int]]
"""Number of rows, by field and bin."""


class Sketch(Part, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=False):
    """A part of a sketch. Only `UNSET` members are not written."""


class Column(Sketch, frozen=True, kw_only=True):
    """A column of a source.

    Attributes:
        nulls, distinct: rows without a value, and distinct values among the others.
        low, high, mean: of numbers; None without any.
        counts: rows by value, most frequent ones first; for text and Booleans that do not identify rows.
        other: rows with values that `counts` leaves out.
    """

    nulls: int
    distinct: int
    low: float | UnsetType | None = UNSET
    high: float | UnsetType | None = UNSET
    mean: float | UnsetType | None = UNSET
    counts: dict[str, int] | UnsetType = UNSET
    other: int | UnsetType = UNSET

    @property
    def categories(self) -> dict[str, int] | None:
        """Rows by value; None where some value is not counted, as in a column of identifiers."""
        return None if self.counts is UNSET or self.other else self.counts


class Content(Sketch, frozen=True, kw_only=True):
    """The number of distinct rows, and the smallest of their hashes."""

    distinct: int
    hashes: list[int]


class Moments(Sketch, frozen=True, kw_only=True):
    """Mean and standard deviation of a statistic; None where a row has no number."""

    mean: float | None
    std: float | None


class SourceSketch(Sketch, frozen=True, kw_only=True):
    """One key's rows of a source.

    Attributes:
        rows, good: delivered, and not in quarantine.
        quarantined, repeated: in quarantine, and those among them that repeat another row of the delivery.
        content: None for a source whose rows have nothing but identifiers.
        statistics: of columns that are neither number nor text; empty without rows.
        is_missing: whether no complete file came before the deadline; only set for a delivery without rows.
        missing_why: what was wrong with an incomplete file.
        unreadable: why the file cannot be taken in; only set for such a delivery.
    """

    rows: int
    good: int
    quarantined: int
    repeated: int
    columns: dict[str, Column]
    content: Content | None
    statistics: dict[str, Moments] = field(default_factory=dict)
    is_missing: bool | UnsetType = UNSET
    missing_why: str | UnsetType = UNSET
    unreadable: str | UnsetType = UNSET


class RuleCount(Sketch, frozen=True, kw_only=True):
    """The number of rows that break a cross rule, and of rows in the largest of its sources."""

    rows: int
    broken: int


class Answered(Sketch, frozen=True, kw_only=True):
    """A model's answers on a key, counted in its own bins; `of` is the number of answers given in time."""

    model: str
    of: int
    counts: list[int]


class KeySketch(Sketch, frozen=True, kw_only=True):
    """A key as it was judged.

    Attributes:
        sources: those that had landed.
        rules: by name, those whose sources all had rows.
        bins: the digest of the bins of `histograms`; None without a model.
        histograms: of the features; empty without a model.
        answers: None without a model, and where none of its answers counts.
    """

    format: Literal[2] = 2
    sources: dict[str, SourceSketch]
    rules: dict[str, RuleCount]
    bins: str | None = None
    histograms: Histograms = field(default_factory=dict)
    answers: Answered | None = None


class NumericCounts(Sketch, frozen=True, kw_only=True):
    """A numeric field of the training rows: rows per bin, and the range and mean of its values, None without any."""

    edges: list[float]
    counts: list[int]
    nulls: int
    low: float | None
    high: float | None
    mean: float | None


class CategoryCounts(Sketch, frozen=True, kw_only=True):
    """A categorical field of the training rows: rows per known value, with another value, and without one."""

    counts: dict[str, int]
    other: int
    nulls: int


class Mix(Sketch, frozen=True, kw_only=True):
    """Number of answers per bin; `edges` is None where classes are the bins."""

    edges: list[float] | None
    counts: list[int]


class TrainingSketch(Sketch, frozen=True, kw_only=True):
    """The training rows of a model, and its answers on them."""

    format: Literal[2] = 2
    rows: int
    numeric: dict[str, NumericCounts]
    categorical: dict[str, CategoryCounts]
    label: Labels
    answers: Mix
