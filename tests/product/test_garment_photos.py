"""Garment photos: deliveries, quarantined and refused files, fields and labels."""

import gzip
import io
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from platform_assets.data import images, landed, validation
from platform_assets.data.landed import UnreadableFile
from platform_assets.engine.product_files import load
from platform_assets.product.spec import RecordingMissing, Window
from platform_assets.products import garment_photos

pytestmark = pytest.mark.slow

SPEC = load("garment_photos")
ARRIVED = datetime(2024, 2, 1, tzinfo=UTC)
HEIGHT, WIDTH = garment_photos.SHAPE
RAW = Path("/usr/share/datasets/fashion-mnist")
needs_the_dataset = pytest.mark.skipif(
    not RAW.is_dir(), reason="needs the photos: apt-get install dataset-fashion-mnist"
)


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def manifest(*lines: str) -> bytes:
    return "\n".join(["photo_id,file,known_at_utc", *lines, ""]).encode()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def batch(*photos: np.ndarray) -> bytes:
    files = {f"p{index:05d}.png": images.to_png(item.tobytes(), item.shape) for index, item in enumerate(photos)}
    lines = [f"{name[:-4]},{name},2024-01-01T00:00:{index:02d}Z" for index, name in enumerate(files)]
    return zipped({"manifest.csv": manifest(*lines), **files})


def landed_rows(source: str, data: bytes) -> pl.DataFrame:
    source_spec = SPEC.source(source)
    return landed.rows(data, columns=[*source_spec.schema().columns], arrived_at_utc=ARRIVED, read=source_spec.read)


def validate_batch(source: str, data: bytes, key: str = "0001") -> validation.Split:
    result = SPEC.source(source)
    raw = landed_rows(source, data)
    return validation.split(raw, result.columns(), schema_version=1, unique=result.unique, key=key)


def test_loading_the_products_imports_neither_torch_nor_pandera_nor_pillow() -> None:
    code = (
        "import sys; from platform_assets.engine import product_files; product_files.load_all();"
        "print(sorted({'torch', 'pandera', 'dagster', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_the_dataset_the_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(garment_photos, "DATASET", tmp_path)
    garment_photos._recording.cache_clear()
    with pytest.raises(RecordingMissing, match="apt-get install dataset-fashion-mnist"):
        garment_photos.deliver("photos", "0001")
    assert garment_photos.deliver("photos", "0141") is None


def test_a_batch_is_read_as_rows() -> None:
    image = photo().clip(5, 200)
    (row,) = validate_batch("photos", batch(image)).good.drop("source_offset").rows(named=True)
    assert row == {
        "photo_id": "p00000",
        "height": 28,
        "width": 28,
        "darkest": 5,
        "brightest": 200,
        "pixels": image.tobytes(),
        "known_at_utc": datetime(2024, 1, 1, tzinfo=UTC),
    }


LINE = "p00000,a.png,2024-01-01T00:00:00Z"
PNG = images.to_png(photo().tobytes(), (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no zip", "6 bytes are not a complete zip archive"),
        (batch(photo())[:-40], "not a complete zip archive"),
        (batch(photo()).replace(b"IDAT", b"IDAR"), "not a complete zip archive"),
        (zipped({"a.png": PNG}), "the zip has no manifest.csv among its 1 files"),
        (zipped({"manifest.csv": b""}), r"has the columns \(none\); expected photo_id, file, known_at_utc"),
        (zipped({"manifest.csv": b"id,file\n"}), "has the columns id, file; expected photo_id, file, known_at_utc"),
        (zipped({"manifest.csv": manifest("p00000,a.png")}), "has the line 'p00000,a.png' of 2 cells; expected 3"),
        (zipped({"manifest.csv": b"\xff"}), "is not CSV in UTF-8"),
        (zipped({"manifest.csv": manifest(LINE, LINE), "a.png": PNG}), "lists 'p00000' twice"),
        (
            zipped({"manifest.csv": manifest(LINE)}),
            "lists 1 photos and the zip lacks 1 of their files, such as 'a.png'",
        ),
        (zipped({"manifest.csv": manifest(), "b.png": PNG}), "holds 1 files that manifest.csv does not list"),
        (
            zipped({"manifest.csv": manifest(LINE), "a.png": PNG[:200]}),
            "photo 'p00000' cannot be read from 'a.png': 200 bytes are not a complete PNG or JPEG file",
        ),
    ],
)
def test_a_broken_file_is_refused_with_a_message(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableFile, match=message):
        landed_rows("photos", data)


def test_an_empty_manifest_is_an_empty_batch() -> None:
    assert validate_batch("photos", zipped({"manifest.csv": manifest()})).good.height == 0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.pad(photo(1), 2), "height is 32, expected 28 pixels; width is 32, expected 28 pixels"),
        (photo(1)[:14], "height is 14, expected 28 pixels"),
        (photo(1).reshape(14, 56), "height is 14, expected 28 pixels; width is 56, expected 28 pixels"),
        (photo(1) // 255, "brightest is 1, expected at least 64 on the scale from 0 to 255"),
        (photo(1).clip(0, 63), "brightest is 63, expected at least 64 on the scale from 0 to 255"),
        (
            np.full((28, 28), 200, dtype=np.uint8),
            "rule broken: a photo is not blank",
        ),
        (photo(0), "repeats row 0 of the file in pixels"),
    ],
)
def test_each_rule_quarantines_its_photo(bad: np.ndarray, reason: str) -> None:
    split = validate_batch("photos", batch(photo(0), bad, photo(2)))
    assert split.good["photo_id"].to_list() == ["p00000", "p00002"]
    assert split.quarantined["reason"].to_list() == [reason]


def test_a_photo_without_a_moment_is_quarantined() -> None:
    data = zipped({"manifest.csv": manifest("p00000,a.png,yesterday"), "a.png": PNG})
    (reason,) = validate_batch("photos", data).quarantined["reason"]
    assert reason == "known_at_utc is 'yesterday', which is not a moment such as 2013-03-01T05:00:00Z"


def test_an_unknown_kind_of_garment_is_quarantined() -> None:
    data = b"photo_id,garment,known_at_utc\np00000,hat,2024-01-01T00:00:00Z\np00001,bag,2024-01-01T00:00:00Z\n"
    split = validate_batch("labels", data)
    assert split.good["garment"].to_list() == ["bag"]
    assert split.quarantined["reason"].item().startswith("garment is hat, expected isin")


def test_every_photo_needs_a_label() -> None:
    (rule,) = SPEC.monitors.rules
    photos = pl.DataFrame({"photo_id": ["p00000", "p00001"]})
    assert rule.broken({"photos": photos, "labels": photos[:1]})["photo_id"].to_list() == ["p00001"]


@pytest.fixture(scope="module")
def raw() -> tuple[np.ndarray, np.ndarray]:
    """The dataset as in its own files: photos [70000, 28, 28] and the numbers of their kinds."""

    def read(name: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((RAW / name).read_bytes())[header:], dtype=np.uint8)

    parts = ("train", "t10k")
    grey = np.concatenate([read(f"{part}-images-idx3-ubyte.gz", 16) for part in parts])
    return grey.reshape(-1, HEIGHT, WIDTH), np.concatenate([read(f"{part}-labels-idx1-ubyte.gz", 8) for part in parts])


def tables_of(*keys: str) -> dict[str, pl.DataFrame]:
    assert SPEC.history is not None
    return {
        source.name: pl.concat(
            validate_batch(source.name, SPEC.history.deliver(source.name, key) or b"", key).good.with_columns(
                key=pl.lit(key)
            )
            for key in keys
        )
        for source in SPEC.sources
    }


@needs_the_dataset
@pytest.mark.parametrize("key", ["0001", "0120", "0121", "0140"])
def test_features_and_labels_are_those_of_the_raw_files(key: str, raw: tuple[np.ndarray, np.ndarray]) -> None:
    tables = tables_of(key)
    assert all(table.height == 500 for table in tables.values())
    built = SPEC.features({"photos": tables["photos"]}, Window(grain=SPEC.grain, keys=(key,)))
    start = SPEC.grain.index(key) * 500
    assert built.columns == ["key", "entity", "service_time", "asked_at", *(item.name for item in SPEC.fields)]
    assert built["entity"].to_list() == [f"p{index:05d}" for index in range(start, start + 500)]
    assert np.array_equal(images.stacked(built["photo"], garment_photos.SHAPE), raw[0][start : start + 500])
    assert built["asked_at"].equals(built["service_time"], check_names=False)
    assert built["key"].unique().to_list() == [key]
    labels = SPEC.label(tables["labels"])
    assert labels.columns == ["key", "entity", "label", "known_at"]
    assert labels.schema["label"] == SPEC.task.label_type()
    expected: dict[str, Any] = dict(labels.select("entity", "label").iter_rows())
    assert [garment_photos.CLASSES.index(expected[name]) for name in built["entity"]] == raw[1][
        start : start + 500
    ].tolist()
