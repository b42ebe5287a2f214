"""An oversized or damaged zip of photos is refused with a message before it costs anything."""

import io
import zipfile

import pytest

from platform_assets.data import images
from platform_assets.data.landed import UnreadableFile
from platform_assets.products import garment_photos
from tests.product.test_garment_photos import LINE, PNG, manifest, zipped

pytestmark = pytest.mark.slow


def test_a_zip_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("manifest.csv", "a.png"):
            archive.writestr(name, bytes(32_000_001))
    data = buffer.getvalue()
    assert len(data) < 100_000
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(
        UnreadableFile, match="the zip's 2 files unpack to 64,000,002 bytes; expected at most 64,000,000"
    ):
        garment_photos.read_photos(data)


def test_a_file_unpacks_to_no_more_than_the_zip_claims() -> None:
    data = bytearray(zipped({"manifest.csv": manifest(LINE), "a.png": PNG}))
    at = data.rindex(b"PK\1\2") + 24
    data[at : at + 4] = (9).to_bytes(4, "little")
    with pytest.raises(UnreadableFile, match="not a complete zip archive"):
        garment_photos.read_photos(bytes(data))


@pytest.mark.costly
def test_photos_of_too_many_pixels_together_are_refused() -> None:
    large = images.to_png(bytes(9_000_000), (3_000, 3_000))
    names = [f"p{index:05d}" for index in range(9)]
    lines = manifest(*(f"{name},a.png,2024-01-01T00:00:00Z" for name in names))
    with pytest.raises(
        UnreadableFile, match="the first 8 of 9 photos have 72,000,000 pixels; expected at most 64,000,000"
    ):
        garment_photos.read_photos(zipped({"manifest.csv": lines, "a.png": large}))


def test_a_duplicate_name_in_the_zip_is_refused() -> None:
    data = zipped({"manifest.csv": manifest(LINE), "a.png": PNG, "b.png": PNG}).replace(b"b.png", b"a.png")
    with pytest.raises(UnreadableFile, match=r"the zip holds 'a\.png' twice; expected each file once"):
        garment_photos.read_photos(data)


def test_a_manifest_is_judged_before_a_photo_is_unpacked() -> None:
    damaged = zipped({"a.png": PNG, "manifest.csv": manifest("p00000,a.png")}).replace(b"IDAT", b"IDAR")
    with pytest.raises(UnreadableFile, match="of 2 cells; expected 3"):
        garment_photos.read_photos(damaged)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.filterwarnings("default")  # a damaged extra field may make zipfile warn
def test_a_zip_with_any_byte_changed_is_read_or_refused_with_a_message(method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("manifest.csv", manifest(LINE))
        archive.writestr("a.png", images.to_png(bytes(range(16)), (4, 4)))
    packed = buffer.getvalue()
    messages: list[str] = []
    for index in range(len(packed)):
        for change in (0x01, 0x55, 0xFF):
            changed = bytearray(packed)
            changed[index] ^= change
            try:
                garment_photos.read_photos(bytes(changed))
            except UnreadableFile as problem:
                messages.append(str(problem))
    assert len(messages) > len(packed)
    endings = ("Deliver it again.", "Fix the delivery.", "Deliver the batch again.")
    assert [sentence for sentence in messages if not sentence.endswith(endings)] == []
