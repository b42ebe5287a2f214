"""Define `Inputs`, what a model reads: numbers, text and an image. `training.matrix` encodes rows of fields as such."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of a model for N rows.

    Attributes:
        numeric: float32 [N, F], NaN for null.
        categorical: text [N, C], "" for null.
        image: uint8 [N, H, W]; None for a product without an image.
    """

    numeric: NDArray[np.float32]
    categorical: NDArray[Any]
    image: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.numeric)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Inputs:
        return Inputs(
            numeric=self.numeric[rows],
            categorical=self.categorical[rows],
            image=None if self.image is None else self.image[rows],
        )

    def in_batches(self, rows: int) -> Iterator[Inputs]:
        """Yield batches of `rows` rows, in order."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]
