"""A picture is the same in every form; an invalid one is a 422 with its field and a message, and costs nothing."""

import gc
import json
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from platform_assets.data import images
from platform_assets.serving.answer import pictures
from platform_assets.serving.answer.requests import Refused
from tests.doubles import models
from tests.serving.picture_files import (
    BAD_FILES,
    GREY,
    HEIGHT,
    JPEG,
    MOTION,
    PNG,
    WIDTH,
    after_start,
    chunk,
    file_of,
    head,
    png_of,
    segment,
    text_bomb,
    text_of,
    with_chunks,
)
from tests.volume import draws


@pytest.fixture
def app(make: Callable[..., Any]) -> Any:
    return make(models.image_contract(), starts=True)


def probabilities(answered: tuple[int, Any]) -> list[float]:
    status, answer = answered
    assert status == 200, answer
    return list(answer["probabilities"].values())


def test_a_picture_is_the_same_as_a_file_and_as_lists(app: Any) -> None:
    forms = [models.rows_of(), text_of(PNG), text_of(images.to_png(models.PIXELS, models.SHAPE))]
    forms += [text_of(file_of(GREY.convert(mode))) for mode in ("RGB", "RGBA", "LA", "P")]
    forms += [text_of(file_of(GREY.convert("P"), transparency=bytes(range(20))))]
    answered = [probabilities(app.predict(models.image_row(form))) for form in forms]
    answered += [probabilities(app.predict_file(PNG)), probabilities(app.predict_file(PNG, "Image/PNG; a=b"))]
    assert answered == [answered[0]] * len(answered)
    assert answered[0] == pytest.approx(models.expected_classes(), abs=1e-6)
    together = app.predict([models.image_row(form) for form in forms])[1]
    assert [list(item["probabilities"].values()) for item in together] == [
        pytest.approx(answered[0], abs=1e-6) for _ in forms
    ]
    stored = {record["features"]["photo"] for record in app.records()}
    assert stored == {text_of(models.PIXELS)}


def test_a_jpeg_file_is_answered_within_its_loss(app: Any) -> None:
    grey, height, width = images.from_file(JPEG)
    assert (height, width) == models.SHAPE
    assert max(abs(one - other) for one, other in zip(grey, models.PIXELS, strict=True)) < 40
    expected = pytest.approx(models.expected_classes(grey), abs=1e-6)
    assert probabilities(app.predict(models.image_row(text_of(JPEG)))) == expected
    assert probabilities(app.predict_file(JPEG, "image/jpeg")) == expected
    assert probabilities(app.predict_file(file_of(GREY.convert("CMYK"), "JPEG"), "image/jpeg"))
    assert probabilities(app.predict_file(file_of(form="JPEG", progressive=True), "image/jpeg"))


TEXTS = (b"zTXt", b"iTXt", b"iCCP")


@pytest.fixture
def _uncollected() -> Iterator[None]:
    """Let no garbage of other tests be collected meanwhile, which may take longer than what is measured."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    "data",
    [
        *(with_chunks(text_bomb(kind)) for kind in TEXTS),
        with_chunks(*[text_bomb(kind, 200_000) for kind in TEXTS] * 30),
        with_chunks(*[chunk(b"tEXt", b"a\0b"), chunk(b"gAMA", b"\0\0\0\1"), chunk(b"eXIf", b"no EXIF")] * 20),
        png_of(head(WIDTH, HEIGHT), *[chunk(b"IDAT", PNG[at : at + 1]) for at in range(41, len(PNG) - 16)]),
        PNG + bytes(60_000),
    ],
)
@pytest.mark.usefixtures("_uncollected")
def test_metadata_in_a_file_is_skipped_and_never_unpacked(app: Any, data: bytes) -> None:
    expected = probabilities(app.predict_file(PNG))
    began = time.process_time()
    assert probabilities(app.predict_file(data)) == expected
    assert probabilities(app.predict(models.image_row(text_of(data)))) == expected
    # The bombs unpacked cost more, twice; both requests together cost about 2 ms.
    assert time.process_time() - began < 0.05


def test_metadata_of_a_jpeg_file_is_skipped(app: Any) -> None:
    expected = probabilities(app.predict_file(JPEG, "image/jpeg"))
    for data in (
        after_start(segment(0xE1, b"Exif\0\0" + bytes(30_000)), segment(0xFE, b"a comment")),
        after_start(*[segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(900))] * 40),
        after_start(*[segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 2_000)] * 2),
        after_start(b"\xff" * 100),
        JPEG + bytes(60_000),
    ):
        assert probabilities(app.predict_file(data, "image/jpeg")) == expected


def test_the_largest_valid_files_are_accepted() -> None:
    noise = random.Random(0).randbytes(4 * 100 * 80)
    for mode, form, options in (
        ("RGBA", "PNG", {"compress_level": 0}),
        ("RGB", "PNG", {"compress_level": 0}),
        ("CMYK", "JPEG", {"quality": 100, "subsampling": 0}),
    ):
        image = Image.frombytes("RGBA", (80, 100), noise).convert("RGB" if mode == "CMYK" else mode).convert(mode)
        data = file_of(image, form, icc_profile=bytes(3_000), **options)
        grey, height, width = images.from_file(data)
        assert (height, width) == (100, 80)
        assert pictures.of_file(data, (100, 80), "photo") == grey


SEEDS = {
    "PNG": PNG,
    "JPEG": JPEG,
    "motion": MOTION,
    "palette": file_of(GREY.convert("P"), transparency=bytes(range(20))),
    "progressive": file_of(form="JPEG", progressive=True),
    "CMYK": file_of(GREY.convert("CMYK"), "JPEG"),
    "profile": with_chunks(text_bomb(b"iCCP")),
    "GIF": file_of(form="GIF"),
    "TIFF": file_of(form="TIFF"),
    "EXIF": after_start(segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08" + bytes(range(60)))),
}
PART = st.binary(min_size=1, max_size=4)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "put", "cut", "twice"]), st.integers(0, 2_000), st.binary(min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=draws(1_000), deadline=None)
@given(st.sampled_from([*SEEDS]), CHANGES, st.booleans(), st.tuples(st.integers(0, 70_000), st.integers(0, 70_000)))
def test_any_damaged_file_is_read_or_refused_and_no_other_size_is_decoded(
    name: str, changes: list[tuple[str, int, bytes]], is_summed: bool, size: tuple[int, int]
) -> None:
    data = bytearray(SEEDS[name])
    for change, place, part in changes:
        place %= len(data)
        if change == "flip":
            data[place] ^= part[0]
        elif change == "put":
            data[place : place + len(part)] = part
        elif change == "twice":
            data[place:place] = data[place : place + 16 * len(part)]
        else:
            data = data[: place + 1]
    if changes[0][1] == 0 and data.startswith(PNG[:8]):
        data[16:24] = struct.pack(">II", *size)
    if is_summed and data.startswith(PNG[:8]):  # or a damaged part of PNG goes no further than its checksum
        at = 8
        while at + 12 <= len(data):
            end = at + 8 + int.from_bytes(data[at : at + 4])
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
            at = end + 4
    decoded = []
    prepare = ImageFile.ImageFile.load_prepare

    def load_prepare(image: ImageFile.ImageFile) -> None:
        decoded.append(image.size)
        prepare(image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load_prepare", load_prepare)
        try:
            result: bytes | Refused = pictures.of_file(data, models.SHAPE, "photo")
        except Refused as refused:
            result = refused
    if isinstance(result, Refused):
        assert (result.status, result.field) == (422, "photo")
        assert result.sentence.endswith(".")
        assert len(result.sentence) < 300
    else:
        assert len(result) == HEIGHT * WIDTH
    assert set(decoded) <= {(WIDTH, HEIGHT)}


def test_an_image_among_other_fields_keeps_its_position(make: Callable[..., Any]) -> None:
    app = make(models.image_contract(models.MIXED_FIELDS, logs_features=False), starts=True)
    for carrier in ("UA", None):
        features = {"photo": text_of(PNG), "weight": 1.5, "carrier": carrier}
        answered = probabilities(app.predict({**models.image_row(), "features": features}))
        assert answered == pytest.approx(models.expected_classes(), abs=1e-6)
    assert all("features" not in record for record in app.records())
    status, answer = app.predict_file(PNG)
    assert (status, answer["field"]) == (415, None)
    assert "has other fields too; expected JSON" in answer["error"]


def test_a_contract_without_an_image_refuses_files(make: Callable[..., Any]) -> None:
    app = make(starts=True)
    status, answer = app.predict_file(PNG)
    assert status == 415
    assert "a request to tiny has no image; expected JSON" in answer["error"]


def test_the_same_picture_in_another_form_is_the_same_request(app: Any) -> None:
    first = app.predict(models.image_row(idempotency_key="k"))
    assert first[0] == 200
    assert app.predict(models.image_row(text_of(PNG), idempotency_key="k")) == first
    assert app.predict_file(PNG, idempotency_key="k") == first
    assert len(app.records()) == 1
    status, answer = app.predict(models.image_row(models.rows_of(bytes(20)), idempotency_key="k"))
    assert (status, answer["field"]) == (422, "idempotency_key")


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_field_in_every_form(app: Any, name: str) -> None:
    data, text = BAD_FILES[name]
    for path, (status, answer) in (
        ("features.photo", app.predict(models.image_row(text_of(data)))),
        ("[1].features.photo", app.predict([models.image_row(), models.image_row(text_of(data))])),
        ("features.photo", app.predict_file(data)),
    ):
        assert (status, answer["field"]) == (422, path), answer
        assert answer["error"].startswith(f"{path} {text}")
        assert answer["error"].endswith(".")
        assert len(answer["error"]) < 300
    assert app.records() == []


def changed(row: int, column: int, level: Any) -> list[Any]:
    rows: list[list[Any]] = models.rows_of()
    rows[row][column] = level
    return rows


@pytest.mark.parametrize(
    ("photo", "field", "message"),
    [
        (5, "", "Expected `str | array`, got `int`"),
        ({}, "", "Expected `str | array`, got `object`"),
        ([], "", "Expected `array` of length >= 4"),
        (models.rows_of()[:3], "", "Expected `array` of length >= 4"),
        (list(models.PIXELS), "[0]", "Expected `array`, got `int`"),
        ([*models.rows_of()[:3], [1, 2, 3]], "[3]", "Expected `array` of length >= 5"),
        ([*models.rows_of()[:3], "text"], "[3]", "Expected `array`, got `str`"),
        (changed(2, 3, 256), "[2][3]", "Expected `float` <= 255.0"),
        (changed(2, 3, -1), "[2][3]", "Expected `float` >= 0.0"),
        (changed(2, 3, 10**40), "[2][3]", "Expected `float` <= 255.0"),
        (changed(2, 3, 0.5), "[2][3]", "Expected `float` that's a multiple of 1.0"),
        (changed(0, 0, True), "[0][0]", "Expected `float`, got `bool`"),
        (changed(0, 0, None), "[0][0]", "Expected `float`, got `null`"),
        ("%%%", "", "is not base64 text (Only base64 data is allowed); expected the base64 text of a PNG or JPEG file"),
        ("aGVsbG8=aGVsbG8=", "", "is not base64 text"),
        (text_of(PNG).rstrip("=")[:-2], "", "is not base64 text"),
        (text_of(PNG) + "\n", "", "is not base64 text"),
        ("data:image/png;base64," + text_of(PNG), "", "is not base64 text"),
        ("日本", "", "is not base64 text"),
        ("", "", "is an empty file"),
    ],
)
def test_json_that_is_not_a_picture_is_refused(app: Any, photo: Any, field: str, message: str) -> None:
    status, answer = app.predict(models.image_row(photo))
    assert (status, answer["field"]) == (422, f"features.photo{field}")
    assert message in answer["error"]
    status, answer = app.predict({**models.image_row(), "features": {"photo": None}})
    assert (status, answer["field"]) == (422, "features.photo")


def test_escapes_and_duplicate_keys_are_examined_correctly(app: Any) -> None:
    plain = json.dumps(models.image_row(text_of(PNG)))
    assert app.predict(plain.replace("/", "\\/").encode())[0] == 200
    twice = plain.replace('"photo":', f'"photo": {json.dumps(text_of(JPEG))}, "photo":')
    assert "a name that appears twice" in app.predict(twice.encode())[1]["error"]
    twice = plain.replace('"photo":', f'"photo": {json.dumps(models.rows_of())}, "photo":')
    assert "a name that appears twice" in app.predict(twice.encode())[1]["error"]


def test_grey_levels_may_have_a_point(app: Any) -> None:
    one = app.predict(models.image_row(models.rows_of()))[1]
    other = app.predict(models.image_row([[float(level) for level in line] for line in models.rows_of()]))[1]
    assert one["probabilities"] == other["probabilities"]
    assert app.records()[0]["features"] == app.records()[1]["features"]
