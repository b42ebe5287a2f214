"""Define `Learned`, what is learned from training rows except weights: means, bins, vocabularies. JSON values alone.

`training.learn` learns it; learners and networks read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class NumericColumn:
    """The statistics of one numeric input in the training rows.

    Attributes:
        mean, std: of the non-null values; `std` is 1 for a constant column.
        low, high: smallest and largest value.
        has_nulls: whether any training row was null; such columns get a missing indicator.
        edges: ascending, distinct values at the quantiles 0, 1/16 ... 1.
        levels: share of rows below each edge, ties counted half (the mid-distribution function).
    """

    name: str
    mean: float
    std: float
    low: float
    high: float
    has_nulls: bool
    edges: tuple[float, ...]
    levels: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CategoricalColumn:
    """The sorted vocabulary of one category in the training rows. Code 0 stands for every other value."""

    name: str
    vocabulary: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of codes, including unknown."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True, kw_only=True)
class ImageColumn:
    """The statistics of the image in the training rows.

    Attributes:
        shape: (height, width).
        mean, std: of all grey levels, 0 to 255.
        statistics: of each of `images.STATISTICS`; later images are compared on these bins.
    """

    name: str
    shape: tuple[int, int]
    mean: float
    std: float
    statistics: tuple[NumericColumn, ...]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Everything learned from the training rows except weights.

    Attributes:
        image: None for a product without one.
        target: the scale of the labels (`Task.target_of`); None if they have none.
    """

    rows: int
    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    image: ImageColumn | None = None
    target: Mapping[str, float] | None = None

    def to_json(self) -> object:
        """Return plain JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @staticmethod
    def from_json(value: object) -> Learned:
        """Return what `to_json` wrote; raise `ValueError` for another format."""
        format_ = value.get("format") if isinstance(value, dict) else None
        if format_ != FORMAT:
            raise ValueError(f"learned.json has format {format_!r}; this code reads {FORMAT}.")
        return msgspec.convert(value, Learned)
