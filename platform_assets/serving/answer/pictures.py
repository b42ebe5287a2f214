"""Convert the images that callers send to grey levels: bytes from 0 to 255, row by row.

Accepts base64 text, PNG and JPEG files and lists of rows; anything else gets a sentence.

The file comes from a stranger. Before Pillow sees it, its metadata is dropped unread (Pillow would unpack 8 KB of it in
60 ms), and it is no larger than such an image needs; before Pillow decodes a pixel, its header has the declared size.
So a file can cost as much as an image of the declared size, and a JPEG file up to `SCANS_MAX` looks at each pixel.
Colours become grey; transparency and a camera's rotation (EXIF) are ignored.
"""

from __future__ import annotations

import binascii
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from itertools import islice

from platform_assets.base.problems import Problem
from platform_assets.serving.answer.requests import Refused

FORMATS = ("PNG", "JPEG")
CONTENT_TYPES = ("image/png", "image/jpeg")
"""For a body that is a file."""
TEXT_SCHEMA = {"contentEncoding": "base64", "pattern": "^(iVBORw0KGgo|/9j/)[A-Za-z0-9+/]*={0,2}$"}
"""In JSON schema: base64 text that begins like a PNG or a JPEG file."""
SPARE_BYTES = 65_536
"""How much larger than its pixels a file may be: more than the usual metadata of a small image."""
PARTS_MAX = 64
"""Of a file, and one more per KB that it may have: each costs a look at it."""
SCANS_MAX = 64
"""For a JPEG file: each scan costs a look at every pixel. A usual progressive file has about ten."""
_PNG_KEPT = frozenset([b"IHDR", b"PLTE", b"IDAT", b"IEND"])
_JPEG_KEPT = frozenset([*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE])
"""Frames, tables, restarts, and how colours are encoded."""
_SCAN = b"\xff\xda"
_SHOWN_MAX = 80
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error, zlib.error),
    *(AttributeError, RuntimeError, Warning),
)
"""What Pillow raises for damaged files; `tests/serving/test_pictures.py` searches for more."""
# Pillow warns of damaged metadata in words that differ per file, and Python would keep each of them.
warnings.filterwarnings("ignore", module=r"PIL\.")


class _Unfit(Problem):
    """A file that is not accepted; the message is a sentence without its subject."""


def format_of(data: bytes | bytearray) -> str | None:
    """Return a file's format by its first bytes, PNG or JPEG, or None for neither."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    return "JPEG" if data.startswith(b"\xff\xd8\xff") else None


def bytes_max(shape: tuple[int, int]) -> int:
    """Return how large a file may be: pixels need at most 4 bytes each, plus one per row, plus metadata."""
    height, width = shape
    return SPARE_BYTES + height * (4 * width + 1)


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
        kind = format_of(data)
        if kind is None:
            raise _Unfit(f"is {'not a PNG or JPEG file' if data else 'an empty file'}; expected {_file(shape)}.")
        if len(data) > bytes_max(shape):
            raise _Unfit(
                f"is a file of {len(data):,} bytes; expected at most {bytes_max(shape):,} for {_size(shape)} pixels. "
                "Save it without metadata."
            )
        # Without metadata, which is looked at only as far as it says how long it is.
        parts_max = PARTS_MAX + bytes_max(shape) // 1024
        kept = list(islice(_png(data, shape) if kind == "PNG" else _jpeg(data, shape), parts_max))
        if len(kept) == parts_max:
            raise _Unfit(f"has {parts_max} parts or more; expected fewer. Save it again.")
        with Image.open(io.BytesIO(b"".join(kept)), formats=FORMATS) as image:
            if image.size != shape[::-1]:
                raise _Unfit(f"is {image.height} x {image.width} pixels (height x width); expected {_size(shape)}.")
            # 16 bits show in the decoder's raw mode, even if the image's own mode is plain RGB.
            if any(";16" in str(tile.args) for tile in image.tile):
                raise _Unfit("has 16 bits per colour; expected at most 8. Save it with 8.")
            return image.convert("L").tobytes()
    except _Unfit as problem:
        raise Refused(422, f"{path} {problem}", path) from problem
    except (*_DAMAGE, Image.DecompressionBombError) as problem:
        # That it cannot be identified says nothing more, with the address of an object.
        reason = "" if isinstance(problem, UnidentifiedImageError) else " ".join(str(problem).split())[:_SHOWN_MAX]
        raise Refused(422, f"{path} {_broken(reason.rstrip('.'), shape)}", path) from problem


def _png(data: bytes | bytearray, shape: tuple[int, int]) -> Iterator[bytes | bytearray]:
    """Yield each part of a file, nothing for metadata."""
    yield data[:8]
    at, name = 8, b""
    while name != b"IEND":
        name, end = bytes(data[at + 4 : at + 8]), at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            raise _broken("it ends early", shape)
        if name == b"acTL" and (count := int.from_bytes(data[at + 8 : at + 12])) > 1:
            raise _Unfit(f"contains {count} images; expected a file with one.")
        is_kept = name in _PNG_KEPT
        # Pillow does not look at the checksum of pixels.
        if is_kept and zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise _broken(f"{name.decode()} does not match its checksum", shape)
        yield data[at:end] if is_kept else b""
        at = end


def _jpeg(data: bytes | bytearray, shape: tuple[int, int]) -> Iterator[bytes | bytearray]:
    """Yield each part of a file, nothing for metadata, and its scans as one."""
    yield data[:2]
    at = 2
    while data[at : at + 2] != _SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at : at + 2] == b"\xff\xff":
            end = at + 1  # a part may begin with any number of them
        elif data[at : at + 1] != b"\xff" or end > len(data):
            raise _broken("it ends early, or is damaged where its next part begins", shape)
        elif data[at + 4 : at + 8] == b"MPF\0":
            raise _Unfit("contains several images; expected a file with one.")
        yield data[at:end] if data[at + 1] in _JPEG_KEPT else b""
        at = end
    # Within a scan's own bytes, 0xff is followed by others: this counts no fewer scans than there are.
    if data.count(_SCAN, at) > SCANS_MAX:
        raise _Unfit(f"has more than {SCANS_MAX} scans; expected at most that many. Save it again.")
    yield data[at:]


def _broken(reason: str, shape: tuple[int, int]) -> _Unfit:
    details = f" ({reason})" if reason else ""
    return _Unfit(f"is a broken or truncated PNG or JPEG file{details}; expected {_file(shape)}.")


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _file(shape: tuple[int, int]) -> str:
    return f"a PNG or JPEG file of {_size(shape)} pixels (height x width)"


def expectation(shape: tuple[int, int]) -> str:
    """Describe what an image field accepts."""
    height, width = shape
    return f"the base64 text of {_file(shape)}, or {height} lists of {width} whole numbers from 0 to 255"


def warm(shape: tuple[int, int]) -> None:
    """Read a file of each format once, so that no caller pays for loading the decoders."""
    from PIL import Image

    for name in FORMATS:
        buffer = io.BytesIO()
        Image.new("L", shape[::-1]).save(buffer, format=name)
        of_file(buffer.getvalue(), shape, name)
