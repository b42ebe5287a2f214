"""Convert the images that callers send to grey levels: bytes from 0 to 255, row by row.

Accepts base64 text, PNG and JPEG files and lists of rows; anything else gets a sentence.

The file comes from a stranger. The decoder sees it only after `plain_files`: its header has the declared size, and only
its pixels are left, with few bytes in addition. So a file can cost as much as an image of the declared size, and a JPEG
file with many scans up to `plain_files.SCANS_MAX` looks at each pixel. Colours become grey; transparency and a camera's
rotation (EXIF) are ignored.
"""

from __future__ import annotations

import binascii
import io

from platform_assets.serving.answer import plain_files
from platform_assets.serving.answer.requests import Refused

FORMATS = ("PNG", "JPEG")
CONTENT_TYPES = ("image/png", "image/jpeg")
"""For a body that is a file."""
TEXT_SCHEMA = {"contentEncoding": "base64", "pattern": "^(iVBORw0KGgo|/9j/)[A-Za-z0-9+/]*={0,2}$"}
"""In JSON schema: base64 text that begins like a PNG or a JPEG file."""
_SHOWN_MAX = 80


def grey_levels(value: str | list[list[int]], shape: tuple[int, int], path: str) -> bytes:
    """Return the grey levels of an image in a JSON body.

    Args:
        value: base64 text of a file, or rows of grey levels whose number and length were checked.
        shape: the declared (height, width) in pixels.
        path: of the field, for messages.

    Raises:
        Refused: (422) it is not an image of this shape.
    """
    if not isinstance(value, str):
        return b"".join(map(bytes, value))
    try:
        data = binascii.a2b_base64(value, strict_mode=True)
    except ValueError as problem:
        raise Refused(422, f"{path} is not base64 text ({problem}); expected {expectation(shape)}.", path) from problem
    return of_file(data, shape, path)


def of_file(data: bytes | bytearray, shape: tuple[int, int], path: str) -> bytes:
    """Return the grey levels of a PNG or JPEG file.

    Args:
        data: the file.
        shape: the declared (height, width) in pixels.
        path: of the field, for messages.

    Raises:
        Refused: (422) it is not a complete file of these formats with one image of this shape and 8 bits per colour,
            or it is far larger than such an image needs.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        plain = plain_files.plain(data, shape)
        try:
            with Image.open(io.BytesIO(plain), formats=FORMATS) as image:
                return image.convert("L").tobytes()
        except UnidentifiedImageError as problem:
            raise plain_files.broken("", shape) from problem
        except Exception as problem:  # a decoder of hostile bytes may raise anything
            reason = " ".join(str(problem).split())[:_SHOWN_MAX].rstrip(".")
            raise plain_files.broken(reason, shape) from problem
    except plain_files.Unfit as problem:
        raise Refused(422, f"{path} {problem}", path) from problem


def expectation(shape: tuple[int, int]) -> str:
    """Describe what an image field accepts."""
    height, width = shape
    return (
        f"the base64 text of {plain_files.expectation(shape)}, or {height} lists of {width} whole numbers from 0 to 255"
    )


def warm(shape: tuple[int, int]) -> None:
    """Read a file of each format once, so that no caller pays for loading the decoders."""
    from PIL import Image

    for name in FORMATS:
        buffer = io.BytesIO()
        Image.new("L", shape[::-1]).save(buffer, format=name)
        of_file(buffer.getvalue(), shape, name)
