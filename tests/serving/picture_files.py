"""Make picture files, good ones and every kind of bad one, each with the words of its refusal."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image

from tests.doubles import models

HEIGHT, WIDTH = models.SHAPE
GREY = Image.frombytes("L", (WIDTH, HEIGHT), models.PIXELS)


def file_of(image: Image.Image = GREY, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def head(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def png_of(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def jpeg_of(height: int, width: int) -> bytes:
    """Return a JPEG file whose head claims another size."""
    data = bytearray(file_of(form="JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


PNG, JPEG = file_of(), file_of(form="JPEG", quality=95)
MOTION = file_of(save_all=True, append_images=[GREY.rotate(180)])
TEXT_BOMB = png_of(
    head(WIDTH, HEIGHT),
    chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 20_000_000)),
    PNG[33 : -len(chunk(b"IEND", b""))],
)
IDAT = chunk(b"IDAT", zlib.compress((b"\0" + b"\x11" * WIDTH) * HEIGHT))

BAD_FILES = {
    "empty": (b"", "is an empty file; expected a PNG or JPEG file of 4 x 5 pixels (height x width)"),
    "text": (b"hello", "is no PNG or JPEG file; expected a PNG or JPEG file of 4 x 5 pixels"),
    "gif": (file_of(form="GIF"), "is no PNG or JPEG file"),
    "bmp": (file_of(form="BMP"), "is no PNG or JPEG file"),
    "tiff": (file_of(form="TIFF"), "is no PNG or JPEG file"),
    "webp": (file_of(form="WEBP"), "is no PNG or JPEG file"),
    "a signature alone": (PNG[:8], "is a broken or truncated PNG or JPEG file"),
    "turned": (file_of(GREY.rotate(90, expand=True)), "is 5 x 4 pixels (height x width); expected 4 x 5"),
    "large": (file_of(Image.new("L", (32, 30))), "is 30 x 32 pixels (height x width); expected 4 x 5"),
    "large jpeg": (file_of(Image.new("L", (32, 30)), "JPEG"), "is 30 x 32 pixels (height x width); expected 4 x 5"),
    "cut behind its pixels": (PNG[:-8], "is a broken or truncated PNG or JPEG file"),
    "cut": (PNG[:-40], "is a broken or truncated PNG or JPEG file"),
    "cut jpeg": (JPEG[: len(JPEG) // 2], "is a broken or truncated PNG or JPEG file"),
    "cut behind its scan": (JPEG[:-2], "is a broken or truncated PNG or JPEG file"),
    "damaged": (PNG[:45] + b"\xff\xff" + PNG[47:], "is a broken or truncated PNG or JPEG file"),
    "a head alone": (PNG[:33], "is a broken or truncated PNG or JPEG file"),
    "few pixels": (png_of(head(WIDTH, HEIGHT), chunk(b"IDAT", zlib.compress(b"\0" * 9))), "is a broken or truncated"),
    "bomb": (png_of(head(60_000, 60_000), IDAT), "is 60000 x 60000 pixels (height x width); expected 4 x 5"),
    "jpeg bomb": (jpeg_of(65_535, 65_535), "holds far more pixels than declared; expected 4 x 5"),
    "two heads": (png_of(head(WIDTH, HEIGHT), head(30_000, 30_000), IDAT), "holds far more pixels than declared"),
    "text bomb": (TEXT_BOMB, "is a broken or truncated PNG or JPEG file (Decompressed data too large"),
    "16 bits": (file_of(GREY.convert("I;16")), "has 16 bits a colour; expected 8 at most"),
    "16 bits a colour": (png_of(head(WIDTH, HEIGHT, 16, 2), IDAT), "has 16 bits a colour; expected 8 at most"),
    "motion": (MOTION, "holds 2 images, one after the other; expected a file with one"),
    "several": (
        file_of(GREY.convert("RGB"), "MPO", save_all=True, append_images=[GREY.convert("RGB")]),
        "holds 2 images, one after the other",
    ),
}
