"""Turn what a caller sends as an image into grey levels: bytes from 0 to 255, row by row.

Belongs here: base64, PNG and JPEG files, lists of rows, and a sentence for each that is none. Does not belong here:
what a contract declares (`contract`), or measuring images (`compute.images`).

A stranger wrote the file. Its size is compared with the declared one before a pixel is decoded, so no file can cost
more than an image of the declared size. Colours become grey, transparency and a camera's turn (EXIF) are passed over.
"""

from __future__ import annotations

import binascii
import io
from typing import TYPE_CHECKING

from platform_assets.serving.contract import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG")
CONTENT_TYPES = ("image/png", "image/jpeg")
"""Of a body that is a file."""
_PNG, _PNG_HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", 25
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_SIGNATURES = (_PNG[:8], b"\xff\xd8\xff")
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_SHOWN_MAX = 80


def grey_levels(value: str | list[list[int]], shape: tuple[int, int], path: str) -> bytes:
    """Return the grey levels of an image in a JSON body.

    Args:
        value: base64 text of a file, or rows of grey levels whose number and length were checked.
        shape: the declared (height, width) in pixels.
        path: of the field, for sentences.

    Raises:
        Refused: (422) it is no image of this shape.
    """
    if not isinstance(value, str):
        return b"".join(map(bytes, value))
    try:
        data = binascii.a2b_base64(value, strict_mode=True)
    except ValueError as problem:
        raise Refused(422, f"{path} is no base64 text ({problem}); expected {expectation(shape)}.", path) from problem
    return of_file(data, shape, path)


def of_file(data: bytes | bytearray, shape: tuple[int, int], path: str) -> bytes:
    """Return the grey levels of a PNG or JPEG file.

    Args:
        data: the file.
        shape: the declared (height, width) in pixels.
        path: of the field, for sentences.

    Raises:
        Refused: (422) it is no whole file of these formats with one image of this shape and 8 bits a colour.
    """
    from PIL import Image, UnidentifiedImageError

    found = _unfit_head(data, shape)
    if found is None:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                found = _unfit(image, shape)
                if found is None:
                    image.info.pop("transparency", None)
                    return image.convert("L").tobytes()
        except UnidentifiedImageError as problem:
            what = "a broken or truncated" if data.startswith(_SIGNATURES) else "no"
            raise Refused(422, f"{path} is {what} PNG or JPEG file; expected {_wanted(shape)}.", path) from problem
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
            raise Refused(
                422, f"{path} holds far more pixels than declared; expected {_size(*shape)}.", path
            ) from problem
        except Exception as problem:
            reason = " ".join(str(problem).split())[:_SHOWN_MAX].rstrip(".")
            raise Refused(
                422, f"{path} is a broken or truncated PNG or JPEG file ({reason}); expected {_wanted(shape)}.", path
            ) from problem
    raise Refused(422, f"{path} {found}", path)


def expectation(shape: tuple[int, int]) -> str:
    """Return in words what an image field takes."""
    height, width = shape
    return f"the base64 text of {_wanted(shape)}, or {height} lists of {width} whole numbers from 0 to 255"


def warm(shape: tuple[int, int]) -> None:
    """Read a file of each format once, so that no caller pays for loading the decoders."""
    from PIL import Image

    for name in FORMATS:
        buffer = io.BytesIO()
        Image.new("L", shape[::-1]).save(buffer, format=name)
        of_file(buffer.getvalue(), shape, name)


def _unfit_head(data: bytes | bytearray, shape: tuple[int, int]) -> str | None:
    """Say what is wrong with a file before it is opened: a PNG file tells its size and depth in its first bytes."""
    if not data:
        return f"is an empty file; expected {_wanted(shape)}."
    if not data.startswith(_PNG) or len(data) < _PNG_HEAD:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if (height, width) != shape:
        return _other_size(height, width, shape)
    if data[24] > 8:
        return _too_deep(data[24])
    # The decoder is content once it has every pixel; a file that lacks its end may lack more.
    return None if _PNG_END in data else f"is a broken or truncated PNG or JPEG file; expected {_wanted(shape)}."


def _unfit(image: Image, shape: tuple[int, int]) -> str | None:
    """Say what is wrong with an opened file of which no pixel was decoded yet."""
    if (image.height, image.width) != shape:
        return _other_size(image.height, image.width, shape)
    if image.mode in _DEEP_MODES:
        return _too_deep(16)
    count = getattr(image, "n_frames", 1)
    if count != 1:
        return f"holds {count} images, one after the other; expected a file with one."
    return None


def _other_size(height: int, width: int, shape: tuple[int, int]) -> str:
    return f"is {_size(height, width)} pixels (height x width); expected {_size(*shape)}."


def _too_deep(bits: int) -> str:
    return f"has {bits} bits a colour; expected 8 at most. Save it with 8."


def _wanted(shape: tuple[int, int]) -> str:
    return f"a PNG or JPEG file of {_size(*shape)} pixels (height x width)"


def _size(height: int, width: int) -> str:
    return f"{height} x {width}"
