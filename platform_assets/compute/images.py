"""Measure and convert images of one shape: grey levels 0 to 255, row by row, one byte a pixel.

Belongs here: pure functions over bytes and arrays, for any product with an image. Does not belong here: what a
product's images must be (its file), networks (`compute.nets`), or requests (`serving.pictures`).
Shapes: N rows, H pixels high, W wide.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

STATISTICS = {
    "brightness": "mean grey level",
    "contrast": "standard deviation of the grey levels",
    "dark_share": "share of pixels darker than 26, a tenth of the scale",
    "sharpness": "mean absolute difference of a pixel from the mean of its four neighbours",
    "steps_across": "mean absolute difference of neighbours to the right",
    "steps_down": "mean absolute difference of neighbours below",
    "unlike_across": "mean absolute difference from the image mirrored left to right",
    "unlike_down": "mean absolute difference from the image mirrored top to bottom",
}
"""What is told of each image, and compared between keys. The last four tell an image that was turned."""
DARK = 26
ROWS_AT_ONCE = 2_048


class UnreadableImage(ValueError):
    """Bytes that are no image of a kind that is taken."""


def to_png(pixels: bytes, shape: Sequence[int]) -> bytes:
    """Return an image as a PNG file; the same pixels give the same bytes with the same pillow."""
    from PIL import Image

    height, width = shape
    buffer = io.BytesIO()
    Image.frombytes("L", (width, height), pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def from_file(data: bytes) -> tuple[bytes, int, int]:
    """Return the grey levels, height and width of a PNG or JPEG file; colours are turned into grey.

    Raises:
        UnreadableImage: anything else, or a file that is cut short.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            grey = image.convert("L")
            return grey.tobytes(), grey.height, grey.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise UnreadableImage(f"{len(data)} bytes are no whole PNG or JPEG file: {problem}") from None


def stacked(pixels: pl.Series, shape: Sequence[int]) -> np.ndarray:
    """Return a column of images as uint8 [N, H, W].

    Raises:
        ValueError: an image of another size.
    """
    import numpy as np

    height, width = shape
    wanted = height * width
    sizes = pixels.bin.size()
    if wrong := (sizes != wanted).sum() + pixels.null_count():
        raise ValueError(
            f"{wrong} of {len(pixels)} images of {pixels.name!r} do not have {wanted} bytes ({height} x {width} pixels); "
            "mend the product's features()."
        )
    return np.frombuffer(b"".join(pixels.to_list()), dtype=np.uint8).reshape(len(pixels), height, width)


def statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return each of `STATISTICS` for images uint8 [N, H, W], as float32 [N]."""
    import numpy as np

    parts = [_statistics(images[start : start + ROWS_AT_ONCE]) for start in range(0, max(1, len(images)), ROWS_AT_ONCE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in STATISTICS}


def _statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    import numpy as np

    exact = images.astype(np.float32)
    padded = np.pad(exact, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / 4

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.reshape(len(values), -1).mean(axis=1, dtype=np.float64).astype(np.float32))

    return {
        "brightness": mean(exact),
        "contrast": exact.reshape(len(exact), -1).std(axis=1, dtype=np.float64).astype(np.float32),
        "dark_share": mean(exact < DARK),
        "sharpness": mean(np.abs(exact - around)),
        "steps_across": mean(np.abs(np.diff(exact, axis=2))),
        "steps_down": mean(np.abs(np.diff(exact, axis=1))),
        "unlike_across": mean(np.abs(exact - exact[:, :, ::-1])),
        "unlike_down": mean(np.abs(exact - exact[:, ::-1, :])),
    }
