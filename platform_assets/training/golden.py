"""Seal rows with the answers that a graph gave to them, and compare a loaded graph's answers with them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from platform_assets.product.inputs import Inputs

NAME = "golden.json"
FORMAT = 1
ROWS = 16
TOLERANCE = 1e-5
_DIGITS = 6
"""Of an expected answer: kinds of processors differ in the last digits of a float32, and the bundle must not."""


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `golden.json`.

    Attributes:
        tolerance: the largest accepted difference, in units of `unit`, and of the expected number where that is larger.
        unit: 1 for probabilities, otherwise the standard deviation of the labels.
        numeric: [N, F], None for null.
        categorical: [N, C], the empty text for null.
        image: [N] of base64, the grey levels row by row; None for a graph without an image.
        shape: of an image.
        answers: [N, P] as expected; P is 1 for one probability.
    """

    format: int = FORMAT
    tolerance: float
    unit: float
    numeric: list[list[float | None]]
    categorical: list[list[str]]
    image: list[str] | None = None
    shape: list[int] | None = None
    answers: list[list[float]]

    @staticmethod
    def from_bytes(data: bytes) -> Golden:
        """Read the blob; raise `ValueError` if this code cannot read it."""
        golden = msgspec.json.decode(data, type=Golden)
        rows = {len(golden.numeric), len(golden.categorical), len(golden.answers)}
        rows |= set() if golden.image is None else {len(golden.image)}
        if golden.format != FORMAT or len(rows) != 1 or 0 in rows:
            raise ValueError(f"format {golden.format} with {sorted(rows)} rows; expected format {FORMAT} and some rows")
        return golden

    @property
    def inputs(self) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.uint8] | None]:
        """The rows as `Model.predict` takes them."""
        count = len(self.answers)
        numeric = np.array(
            [[float("nan") if number is None else number for number in row] for row in self.numeric], np.float32
        ).reshape(count, -1)
        categorical = np.empty((count, len(self.categorical[0])), dtype=object)
        for place, row in enumerate(self.categorical):
            categorical[place, :] = row
        if self.image is None:
            return numeric, categorical, None
        levels = b"".join(base64.b64decode(image) for image in self.image)
        return numeric, categorical, np.frombuffer(levels, np.uint8).reshape(count, *(self.shape or ()))

    def difference(self, answers: NDArray[np.float32]) -> tuple[float, int]:
        """Return the largest difference from the expected answers, in their size, and its row."""
        expected = np.array(self.answers, np.float64)
        actual = answers.astype(np.float64).reshape(expected.shape)
        apart = np.abs(actual - expected) / np.maximum(self.unit, np.abs(expected))
        by_row = np.where(np.isfinite(apart), apart, np.inf).max(axis=1)
        row = int(by_row.argmax())
        return float(by_row[row]), row


def chosen(count: int) -> NDArray[np.int64]:
    """Return which of `count` rows are golden: `ROWS` of them, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(ROWS, count)).astype(np.int64))


def seal(inputs: Inputs, answers: NDArray[np.float32], unit: float) -> Golden:
    """Return golden rows: a graph's inputs and its answers to them."""
    image = inputs.image
    return Golden(
        tolerance=TOLERANCE,
        unit=unit,
        numeric=[[None if np.isnan(number) else float(number) for number in row] for row in inputs.numeric],
        categorical=[[str(text) for text in row] for row in inputs.categorical],
        image=None if image is None else [base64.b64encode(levels.tobytes()).decode() for levels in image],
        shape=None if image is None else list(image.shape[1:]),
        answers=[[float(f"{number:.{_DIGITS}g}") for number in row] for row in answers.reshape(len(answers), -1)],
    )
