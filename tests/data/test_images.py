"""Image files, and image statistics in closed form."""

import struct
import zlib

import numpy as np
import polars as pl
import pytest
from PIL import Image

from platform_assets.data import images
from tests.serving.picture_files import file_of

SHAPE = (4, 6)


def of(image: np.ndarray) -> dict[str, float]:
    return {name: float(values[0]) for name, values in images.statistics(image[None]).items()}


def drawn(rows: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, *SHAPE), dtype=np.uint8)


def test_all_statistics_of_a_constant_image_except_brightness_are_zero() -> None:
    plain = np.full(SHAPE, 90, dtype=np.uint8)
    assert of(plain) == {**dict.fromkeys(images.STATISTICS, 0.0), "brightness": 90.0}


def test_a_black_image_is_dark_and_has_its_centre_in_the_middle() -> None:
    assert of(np.zeros(SHAPE, dtype=np.uint8)) == {**dict.fromkeys(images.STATISTICS, 0.0), "dark_share": 1.0}


def test_a_vertical_edge_is_a_step_across() -> None:
    """Left half 0, right half 200: 2 of 6 columns are 50 from the mean of their neighbours, 1 of 5 steps is 200."""
    edge = np.zeros(SHAPE, dtype=np.uint8)
    edge[:, 3:] = 200
    assert of(edge) == pytest.approx(
        {
            "brightness": 100,
            "contrast": 100,
            "dark_share": 0.5,
            "sharpness": 50 * 2 / 6,
            "steps_across": 200 / 5,
            "steps_down": 0,
            "mirror_balance": 1,
            "centre_across": 0.25,
            "centre_down": 0,
        }
    )


def test_mirroring_moves_the_centre_and_nothing_else() -> None:
    for image in drawn():
        values = of(image)
        assert of(image[:, ::-1]) == pytest.approx({**values, "centre_across": -values["centre_across"]}, abs=1e-5)
        assert of(image[::-1]) == pytest.approx({**values, "centre_down": -values["centre_down"]}, abs=1e-5)


def test_a_quarter_turn_swaps_across_and_down() -> None:
    for image in drawn():
        values = of(image)
        turned = {
            **values,
            "steps_across": values["steps_down"],
            "steps_down": values["steps_across"],
            "mirror_balance": -values["mirror_balance"],
            "centre_across": values["centre_down"],
            "centre_down": -values["centre_across"],
        }
        assert of(np.rot90(image)) == pytest.approx(turned, abs=1e-5)


def test_a_negative_is_as_sharp_as_its_photo() -> None:
    for image in drawn():
        positive, negative = of(image), of(255 - image)
        assert negative["brightness"] == pytest.approx(255 - positive["brightness"], abs=1e-4)
        for name in ("contrast", "sharpness", "steps_across", "steps_down", "mirror_balance"):
            assert negative[name] == pytest.approx(positive[name], abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 3)])
def test_every_statistic_of_the_smallest_images_is_finite(shape: tuple[int, int]) -> None:
    result = images.statistics(np.full((3, *shape), 7, dtype=np.uint8))
    assert list(result) == list(images.STATISTICS)
    assert all(values.shape == (3,) and values.dtype == np.float32 for values in result.values())
    assert all(np.isfinite(values).all() for values in result.values())


def test_empty_input_has_no_statistics() -> None:
    result = images.statistics(np.empty((0, *SHAPE), dtype=np.uint8))
    assert {name: values.shape for name, values in result.items()} == dict.fromkeys(images.STATISTICS, (0,))


def test_many_images_are_measured_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    together = images.statistics(drawn(7))
    monkeypatch.setattr(images, "ROWS_AT_ONCE", 3)
    for name, values in images.statistics(drawn(7)).items():
        assert values.tolist() == together[name].tolist()


def test_a_png_gives_back_its_grey_levels_and_the_same_bytes_again() -> None:
    pixels = drawn()[0].tobytes()
    assert images.from_file(images.to_png(pixels, SHAPE)) == (pixels, *SHAPE)
    assert images.to_png(pixels, SHAPE) == images.to_png(pixels, SHAPE)


def test_colours_become_grey_and_jpeg_is_accepted() -> None:
    assert images.from_file(file_of(Image.new("RGB", (6, 4), (120, 120, 120)), "JPEG")) == (bytes([120] * 24), 4, 6)


def test_a_file_is_refused_wherever_it_is_cut() -> None:
    file = images.to_png(drawn()[0].tobytes(), SHAPE)
    for end in range(len(file)):
        with pytest.raises(images.UnreadableImage, match=f"^{end} bytes are not a complete PNG or JPEG file"):
            images.from_file(file[:end])


def png_of(height: int, width: int, bits: int = 8, colour: int = 0) -> bytes:
    """Return a PNG file of black, with any size its header may claim."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = bytes(1 + width * channels * bits // 8) * height if height < 100 else b""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows)))
    output = b"\x89PNG\r\n\x1a\n"
    for kind, data in (*parts, (b"IEND", b"")):
        output += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return output


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_16_bits_per_colour_are_refused_and_8_are_accepted(colour: int) -> None:
    assert images.from_file(png_of(*SHAPE, 8, colour)) == (bytes(24), *SHAPE)
    with pytest.raises(images.UnreadableImage, match=r"are an image of 16 bits per colour; expected 8 at most$"):
        images.from_file(png_of(*SHAPE, 16, colour))


def test_a_file_of_several_images_is_refused() -> None:
    first, second = (Image.frombytes("L", (6, 4), image.tobytes()) for image in drawn(2))
    for form, mode in (("PNG", "L"), ("MPO", "RGB")):
        data = file_of(first.convert(mode), form, save_all=True, append_images=[second.convert(mode)])
        with pytest.raises(images.UnreadableImage, match="hold 2 images, one after the other; expected one"):
            images.from_file(data)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (8_001, 8_000, r"claim to be 8001 x 8000 pixels \(height x width\); expected at most 64,000,000 pixels"),
        (10_000, 10_000, "claim to be far more than 64,000,000 pixels"),
        (60_000, 60_000, "claim to be far more than 64,000,000 pixels"),
    ],
)
def test_a_size_beyond_bounds_is_refused_before_a_pixel_is_decoded(height: int, width: int, message: str) -> None:
    with pytest.raises(images.UnreadableImage, match=message):
        images.from_file(png_of(height, width))


def test_a_file_with_any_byte_changed_is_read_or_refused_with_a_message() -> None:
    file = images.to_png(drawn()[0].tobytes(), SHAPE)
    refused = 0
    for index in range(len(file)):
        changed = bytearray(file)
        changed[index] ^= 0x55
        try:
            images.from_file(bytes(changed))
        except images.UnreadableImage:
            refused += 1
    assert refused > len(file) / 2


def test_other_kinds_of_image_are_refused() -> None:
    with pytest.raises(images.UnreadableImage):
        images.from_file(file_of(Image.new("L", (6, 4)), "BMP"))


def test_a_column_is_stacked_in_order() -> None:
    rows = drawn()
    column = pl.Series("photo", [image.tobytes() for image in rows])
    assert np.array_equal(images.stacked(column, SHAPE), rows)
    assert images.stacked(column.clear(), SHAPE).shape == (0, *SHAPE)


@pytest.mark.parametrize("image", [b"short", None])
def test_an_image_of_another_size_is_refused(image: bytes | None) -> None:
    column = pl.Series("photo", [drawn()[0].tobytes(), image], dtype=pl.Binary)
    with pytest.raises(ValueError, match=r"1 of 2 images of 'photo' do not have 24 bytes \(4 x 6 pixels\)"):
        images.stacked(column, SHAPE)
