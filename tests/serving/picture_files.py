"""Picture files, valid ones and every kind of invalid one, each with the message of its refusal."""

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
    """Return a JPEG file whose header claims another size."""
    data = bytearray(file_of(form="JPEG"))
    path = data.index(b"\xff\xc0")
    data[path + 5 : path + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def segment(kind: int, data: bytes) -> bytes:
    """Return a part of a JPEG file."""
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(data) + 2) + data


def after_start(*segments: bytes) -> bytes:
    """Return the JPEG file with segments inserted before its others."""
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def text_bomb(kind: bytes, bytes_unpacked: int = 20_000_000) -> bytes:
    """Return a chunk of zTXt, iTXt or iCCP that unpacks to very many bytes."""
    begin = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    return chunk(kind, begin + zlib.compress(b"\0" * bytes_unpacked))


def with_chunks(*chunks: bytes) -> bytes:
    """Return the PNG file with chunks inserted after its header."""
    return PNG[:33] + b"".join(chunks) + PNG[33:]


PNG, JPEG = file_of(), file_of(form="JPEG", quality=95)
MOTION = file_of(save_all=True, append_images=[GREY.rotate(180)])
IDAT = chunk(b"IDAT", zlib.compress((b"\0" + b"\x11" * WIDTH) * HEIGHT))
IDAT_END = PNG[-16:-8]
FRAME, SCAN = JPEG.index(b"\xff\xc0"), JPEG.index(b"\xff\xda")

BAD_FILES = {
    "empty": (b"", "is an empty file; expected a PNG or JPEG file of 4 x 5 pixels (height x width)"),
    "text": (b"hello", "is not a PNG or JPEG file; expected a PNG or JPEG file of 4 x 5 pixels"),
    "gif": (file_of(form="GIF"), "is not a PNG or JPEG file"),
    "bmp": (file_of(form="BMP"), "is not a PNG or JPEG file"),
    "tiff": (file_of(form="TIFF"), "is not a PNG or JPEG file"),
    "webp": (file_of(form="WEBP"), "is not a PNG or JPEG file"),
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
    "bomb": (png_of(head(60_000, 60_000), IDAT), "is a broken or truncated PNG or JPEG file (Image size (36"),
    "jpeg bomb": (jpeg_of(65_535, 65_535), "is a broken or truncated PNG or JPEG file (Image size (42"),
    "no colours": (png_of(head(WIDTH, HEIGHT, 8, 7), IDAT), "is a broken or truncated PNG or JPEG file; expected"),
    "wrong checksum": (
        PNG.replace(IDAT_END, b"\0\0\0\0" + IDAT_END[4:]),
        "is a broken or truncated PNG or JPEG file (IDAT does not match its checksum)",
    ),
    "far too large": (
        with_chunks(chunk(b"tEXt", bytes(65_536))),
        f"is a file of {len(PNG) + 12 + 65_536:,} bytes; expected at most 65,620 for 4 x 5 pixels. Save it without",
    ),
    "far too large jpeg": (after_start(*[segment(0xE1, bytes(33_000))] * 2), "is a file of 66,"),
    "very many chunks": (with_chunks(*[chunk(b"tEXt", b"a\0")] * 1_400), "has 128 parts or more; expected fewer"),
    "very many parts": (after_start(*[segment(0xFE, b"a")] * 1_400), "has 128 parts or more; expected fewer"),
    "very many scans": (JPEG[:SCAN] + JPEG[SCAN:-2] * 65 + JPEG[-2:], "has more than 64 scans; expected at most"),
    "12 bits": (JPEG[: FRAME + 4] + b"\x0c" + JPEG[FRAME + 5 :], "is a broken or truncated PNG or JPEG file"),
    "16 bits": (file_of(GREY.convert("I;16")), "has 16 bits per colour; expected at most 8"),
    "16 bits a colour": (png_of(head(WIDTH, HEIGHT, 16, 2), IDAT), "has 16 bits per colour; expected at most 8"),
    "motion": (MOTION, "contains 2 images; expected a file with one"),
    "several": (
        file_of(GREY.convert("RGB"), "MPO", save_all=True, append_images=[GREY.convert("RGB")]),
        "contains several images; expected a file with one",
    ),
}
