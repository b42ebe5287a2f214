"""Measure and convert images of one shape: grey levels 0 to 255, row by row, one byte per pixel.

Which images a product accepts is in its file; requests are `serving.answer.pictures`.
Shapes: N rows, H pixels high, W wide.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from platform_assets.base.problems import Problem

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
    "mirror_balance": "how much less the image is like itself mirrored left to right than top to bottom, -1 to 1",
    "centre_across": "how far right of the middle the centre of its light lies, as a share of its width, -0.5 to 0.5",
    "centre_down": "how far below the middle the centre of its light lies, as a share of its height, -0.5 to 0.5",
}
"""The statistics of an image, compared between keys. The last five reveal an image that was turned or mirrored."""
DARK = 26
ROWS_AT_ONCE = 2_048
MOST_PIXELS = 64_000_000
"""Per file: more than cameras have, and still only 64 MB of grey levels."""
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class UnreadableImage(Problem, ValueError):
    """The bytes are not an image of a supported kind."""


def to_png(pixels: bytes, shape: Sequence[int]) -> bytes:
    """Encode an image as PNG; the same pixels give the same bytes with the same version of pillow."""
    from PIL import Image

    height, width = shape
    buffer = io.BytesIO()
    Image.frombytes("L", (width, height), pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def from_file(data: bytes) -> tuple[bytes, int, int]:
    """Decode a PNG or JPEG file to grey levels, height and width; colours become grey.

    Raises:
        UnreadableImage: another format, a truncated file, several images, more than 8 bits per colour, or a claim of
            more than `MOST_PIXELS`, in which case nothing is decoded.
    """
    from PIL import Image

    try:
        # Callers choose these bytes, and pillow would offer them to all its decoders.
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UnreadableImage(
                    f"{len(data)} bytes claim to be {image.height} x {image.width} pixels (height x width); expected "
                    f"at most {MOST_PIXELS:,} pixels"
                )
            # 16 bits show in the decoder's raw mode, even if the image's own mode is plain RGB.
            if image.mode in _DEEP_MODES or any(";16" in str(tile.args) for tile in image.tile):
                raise UnreadableImage(f"{len(data)} bytes are an image of 16 bits per colour; expected 8 at most")
            if (count := getattr(image, "n_frames", 1)) != 1:
                raise UnreadableImage(f"{len(data)} bytes hold {count} images, one after the other; expected one")
            # The decoder stops once it has every pixel; a file without its end may lack more.
            if data.startswith(_PNG) and _PNG_END not in data:
                raise UnreadableImage(f"{len(data)} bytes are not a complete PNG or JPEG file: its end is missing")
            grey = image.convert("L")
            return grey.tobytes(), grey.height, grey.width
    except UnreadableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(
            f"{len(data)} bytes claim to be far more than {MOST_PIXELS:,} pixels; expected at most that many"
        ) from None
    except (OSError, SyntaxError, ValueError) as problem:
        raise UnreadableImage(f"{len(data)} bytes are not a complete PNG or JPEG file: {problem}") from None


def stacked(pixels: pl.Series, shape: Sequence[int]) -> np.ndarray:
    """Stack a column of images to uint8 [N, H, W].

    Raises:
        ValueError: an image has another size.
    """
    import numpy as np

    height, width = shape
    expected = height * width
    sizes = pixels.bin.size()
    if wrong := (sizes != expected).sum() + pixels.null_count():
        raise ValueError(
            f"{wrong} of {len(pixels)} images of {pixels.name!r} do not have {expected} bytes ({height} x {width} "
            "pixels); fix the product's features()."
        )
    return np.frombuffer(b"".join(pixels.to_list()), dtype=np.uint8).reshape(len(pixels), height, width)


def statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute each of `STATISTICS` for images uint8 [N, H, W], as float32 [N]."""
    import numpy as np

    parts = [_statistics(images[start : start + ROWS_AT_ONCE]) for start in range(0, max(1, len(images)), ROWS_AT_ONCE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in STATISTICS}


def _statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    import numpy as np

    exact = images.astype(np.float32)
    _, height, width = exact.shape
    padded = np.pad(exact, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / 4
    light = exact.sum(axis=(1, 2), dtype=np.float64)

    def mean(values: np.ndarray) -> np.ndarray:
        """Average each image; an image one pixel wide has no neighbours across, so no steps."""
        return np.asarray(values.sum(axis=(1, 2), dtype=np.float64) / max(1, values.shape[1] * values.shape[2]))

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros(len(exact)), where=whole > 0)

    def centre(axis: int, pixels: int) -> np.ndarray:
        positions = 2.0 * np.arange(pixels) - (pixels - 1)
        return share(exact.sum(axis=axis, dtype=np.float64) @ positions, light) / (2 * pixels)

    across, down = mean(np.abs(exact - exact[:, :, ::-1])), mean(np.abs(exact - exact[:, ::-1, :]))
    columns = {
        "brightness": mean(exact),
        "contrast": exact.std(axis=(1, 2), dtype=np.float64),
        "dark_share": mean(exact < DARK),
        "sharpness": mean(np.abs(exact - around)),
        "steps_across": mean(np.abs(np.diff(exact, axis=2))),
        "steps_down": mean(np.abs(np.diff(exact, axis=1))),
        "mirror_balance": share(across - down, across + down),
        "centre_across": centre(1, width),
        "centre_down": centre(2, height),
    }
    return {name: values.astype(np.float32) for name, values in columns.items()}
