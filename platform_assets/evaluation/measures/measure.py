"""Define a measure: its name, its title, and how it is computed. Imports nothing heavy.

Intervals are `evaluation.clustered`; which measures a kind of task has is in its `Measures`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, Required, TypedDict

if TYPE_CHECKING:
    import numpy as np

LOG_LOSS, CALIBRATION_ERROR = "log_loss", "ece"


class Bin(TypedDict):
    """Promised and observed rate of some rows; `low` and `high` are the probabilities the bin spans."""

    rows: int
    low: NotRequired[float]
    high: NotRequired[float]
    expected: float
    observed: float


OfClass = TypedDict("OfClass", {"class": str, "rows": int, "precision": float | None, "recall": float | None})
"""A class: its rows, and the share of rows called that class, or of that class, that are right."""


class Tenth(TypedDict):
    """Mean answer and mean label of a tenth of the rows, by answer."""

    rows: int
    value: float
    label: float


class Decided(TypedDict, total=False):
    """The decisions made from answers, in the members of the task's kind; each of `of_decisions` is there by name.

    Attributes:
        confusion: rows [K][K] by label and then by chosen class.
        notes: sentences.
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    lowest_recall: float
    by_class: list[OfClass]
    confusion: list[list[int]]
    bins: list[Tenth]
    notes: Required[list[str]]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number that describes a model's quality, and how it is computed.

    Attributes:
        name: as in records: `log_loss`.
        title: as in tables and charts: `log loss`.
        value: `(labels, answers) -> number`, as `Task.checked` returns them; None if the rows do not define it.
        unit: of the number, empty for a share.
        is_more_better: the direction that is better; None for neither.
        lowest, highest: bounds of the number and its intervals; None for unbounded.
        without_each: `(labels, answers, codes, keys) -> numbers without each key [G]`, None if one is undefined; for
            measures with a closed form. By default `value` is computed again without each key.
        undefined: sentence for rows that `value` returns None for.
    """

    name: str
    title: str
    value: Callable[[np.ndarray, np.ndarray], float | None]
    unit: str = ""
    is_more_better: bool | None = True
    lowest: float | None = None
    highest: float | None = None
    without_each: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray | None] | None = None
    undefined: str | None = None

    @property
    def axis(self) -> str:
        """The words with their unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def mean(name: str, title: str, rows: Callable[[np.ndarray, np.ndarray], np.ndarray], **about: Any) -> Measure:
    """Return a measure that is the mean of one number per row.

    Args:
        rows: `(labels, answers) -> numbers [N]`.
        about: further attributes of `Measure`.
    """

    def value(labels: np.ndarray, answers: np.ndarray) -> float:
        return float(rows(labels, answers).mean())

    def without_each(labels: np.ndarray, answers: np.ndarray, codes: np.ndarray, keys: int) -> np.ndarray:
        import numpy as np

        values = np.asarray(rows(labels, answers), dtype=np.float64)
        sums, sizes = np.bincount(codes, weights=values, minlength=keys), np.bincount(codes, minlength=keys)
        return np.asarray((values.sum() - sums) / (values.size - sizes))

    return Measure(name=name, title=title, value=value, without_each=without_each, **about)


def log_loss(rows: Callable[[np.ndarray, np.ndarray], np.ndarray], *, lowest: float | None = 0.0) -> Measure:
    """Return the measure in which baselines are beaten, from each row's loss; that of a density has no lowest."""
    return mean(LOG_LOSS, "log loss", rows, unit="nats", is_more_better=False, lowest=lowest)


def calibration_error(value: Callable[[np.ndarray, np.ndarray], float]) -> Measure:
    """Return the measure of how far promise and outcome lie apart."""
    return Measure(name=CALIBRATION_ERROR, title="ECE", value=value, is_more_better=False, lowest=0.0, highest=1.0)
