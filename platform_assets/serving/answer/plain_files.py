"""Reduce a PNG or JPEG file to what its grey levels need, before a decoder sees it.

A walk over the parts of a file from a stranger: its header's size is compared with the declared one, and metadata is
dropped. `pictures` decodes the result.

A file can cost here: one look at each of its first parts, whose number is limited, a checksum, and a copy of what is
used. Texts, colour profiles, EXIF and other packed parts are never unpacked.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from platform_assets.base.problems import Problem

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
SPARE_BYTES = 65_536
"""How much larger than its pixels a file may be: more than the usual metadata of a small image."""
SCANS_MAX = 64
"""For a JPEG file: each scan costs a look at every pixel. A usual progressive file has about ten."""
TABLES_BYTES_MAX = 4_096
"""For a JPEG file before its pixels; 4 tables of each kind are 2,708. The decoder processes them in Python."""
_PNG_PARTS_MIN, _JPEG_PARTS_MAX = 64, 64
_PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset([0xC4, 0xCC, 0xDB, 0xDD])
_COLOURS, _METADATA = frozenset([0xE0, 0xEE]), frozenset([*range(0xE1, 0xEE), 0xEF, 0xFE])
_SCAN, _SEVERAL = 0xDA, 0xE2
_MARKER = re.compile(rb"\xff+")


class Unfit(Problem, ValueError):
    """A file that is not accepted; the message is a sentence without its subject."""


def format_of(data: bytes | bytearray) -> str | None:
    """Return a file's format by its first bytes, PNG or JPEG, or None for neither."""
    if data.startswith(PNG):
        return "PNG"
    return "JPEG" if data.startswith(JPEG) else None


def plain(data: bytes | bytearray, shape: tuple[int, int]) -> bytes:
    """Return a file with the same pixels and nothing else.

    Args:
        data: the file.
        shape: the declared (height, width) in pixels.

    Raises:
        Unfit: it is not a PNG or JPEG file with one image of this shape and at most 8 bits per colour, or it is far
            larger than such an image needs. Whether its pixels are complete is not known yet.
    """
    if not data:
        raise Unfit(f"is an empty file; expected {expectation(shape)}.")
    kind = format_of(data)
    if kind is None:
        raise Unfit(f"is not a PNG or JPEG file; expected {expectation(shape)}.")
    return b"".join(_png(data, shape) if kind == "PNG" else _jpeg(data, shape))


def expectation(shape: tuple[int, int]) -> str:
    """Describe the accepted files."""
    return f"a PNG or JPEG file of {_size(*shape)} pixels (height x width)"


def broken(reason: str, shape: tuple[int, int]) -> Unfit:
    """Return the refusal of a file that cannot be read; the reason may be empty."""
    details = f" ({reason})" if reason else ""
    return Unfit(f"is a broken or truncated PNG or JPEG file{details}; expected {expectation(shape)}.")


def bytes_max(shape: tuple[int, int]) -> int:
    """Return how large a file may be: pixels need at most 4 bytes each, plus one per row, plus metadata."""
    height, width = shape
    return SPARE_BYTES + height * (4 * width + 1)


def _png(data: bytes | bytearray, shape: tuple[int, int]) -> Iterator[bytes]:
    """Yield the header, the palette and the pixels, merged into one chunk, and the end."""
    at, palette, pixels = len(PNG), b"", []
    parts_max = _PNG_PARTS_MIN + bytes_max(shape) // 1024
    for number in range(parts_max):
        length, kind, start = int.from_bytes(data[at : at + 4]), bytes(data[at + 4 : at + 8]), at + 8
        part, at = bytes(data[start : start + length]), start + length + 4
        if at > len(data):
            raise broken("it ends early", shape)
        if (kind == b"IHDR") != (number == 0):
            raise broken("it has a second IHDR" if number else "its first chunk is not IHDR", shape)
        if kind in _PNG_KEPT and zlib.crc32(part, zlib.crc32(kind)) != int.from_bytes(data[at - 4 : at]):
            raise broken(f"{kind.decode()} does not match its checksum", shape)
        if kind == b"IHDR":
            if length != 13:
                raise broken(f"its IHDR has {length} bytes, not 13", shape)
            _check(len(data), int.from_bytes(part[4:8]), int.from_bytes(part[:4]), part[8], shape)
            yield PNG + _chunk(kind, part)
        elif kind == b"IDAT":
            pixels.append(part)
        elif kind == b"PLTE":
            palette = _chunk(kind, part)
        elif kind == b"acTL" and (count := int.from_bytes(part[:4])) > 1:
            raise Unfit(f"contains {count} images; expected a file with one.")
        elif kind == b"IEND":
            yield palette + _chunk(b"IDAT", b"".join(pixels)) + _chunk(kind, b"")
            return
    raise Unfit(f"has more than {parts_max} chunks; expected at most that many. Save it again.")


def _chunk(kind: bytes, part: bytes) -> bytes:
    return len(part).to_bytes(4) + kind + part + zlib.crc32(part, zlib.crc32(kind)).to_bytes(4)


def _jpeg(data: bytes | bytearray, shape: tuple[int, int]) -> Iterator[bytes]:
    """Yield the start, the tables, the image's header, its colour information, and its scans."""
    at, has_frame, tables = 2, False, 0
    yield b"\xff\xd8"
    for _ in range(_JPEG_PARTS_MAX):
        match = _MARKER.match(data, at)
        start = len(data) if match is None else match.end()
        kind, at = int.from_bytes(data[start : start + 1]), start + 1 + int.from_bytes(data[start + 1 : start + 3])
        part = bytes(data[start + 3 : at])
        if at > len(data) or at < start + 3:
            raise broken("it ends early, or is damaged where its next part begins", shape)
        if kind in _FRAMES:
            if has_frame or len(part) < 6:
                raise broken("it has a second header" if has_frame else "its header is too short", shape)
            has_frame = True
            _check(len(data), int.from_bytes(part[1:3]), int.from_bytes(part[3:5]), part[0], shape)
        elif kind == _SEVERAL and part.startswith(b"MPF\0"):
            raise Unfit("contains several images; expected a file with one.")
        if kind == _SCAN:
            if not has_frame:
                raise broken("its pixels come before its header", shape)
            scans = bytes(data[start - 1 :])
            # Within a scan's own bytes, 0xff is followed by others: this counts no fewer scans than there are.
            if scans.count(b"\xff\xda") > SCANS_MAX:
                raise Unfit(f"has more than {SCANS_MAX} scans; expected at most that many. Save it again.")
            yield scans
            return
        tables += len(part) if kind in _TABLES else 0
        if tables > TABLES_BYTES_MAX:
            raise Unfit(
                f"has more than {TABLES_BYTES_MAX:,} bytes of tables; expected at most that many. Save it again."
            )
        if kind in _FRAMES or kind in _TABLES or kind in _COLOURS:
            yield b"\xff" + data[start:at]
        elif kind not in _METADATA:
            raise broken(f"it has a part of unknown kind 0x{kind:02x}", shape)
    raise Unfit(f"has more than {_JPEG_PARTS_MAX} parts before its pixels; expected at most that many. Save it again.")


def _check(size: int, height: int, width: int, bits: int, shape: tuple[int, int]) -> None:
    """Compare what a file's header claims with what is declared, and the file's size with both."""
    if (height, width) != shape:
        raise Unfit(f"is {_size(height, width)} pixels (height x width); expected {_size(*shape)}.")
    if bits > 8:
        raise Unfit(f"has {bits} bits per colour; expected at most 8. Save it with 8.")
    if size > bytes_max(shape):
        raise Unfit(
            f"is a file of {size:,} bytes; expected at most {bytes_max(shape):,} for {_size(*shape)} pixels. Save it "
            "without metadata."
        )


def _size(height: int, width: int) -> str:
    return f"{height} x {width}"
