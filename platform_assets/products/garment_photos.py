"""Classify photos of garments into ten kinds.

Everything about garments is in this file and nothing about garments is anywhere else. From top to bottom: sources with
their files and schemas, features, the label, the model, the recording that plays upstream, its faults, and `SPEC`. It
is over 300 lines because a product is one file; a live product needs no recording.

Data: Fashion-MNIST (Zalando Research, MIT licence), 70,000 photos of 28 by 28 grey levels, as Debian's package
`dataset-fashion-mnist` installs it, in the dataset's order. The dataset has no moments; they are invented here.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from driftline import (
    MOMENT_FORMAT,
    BatchGrain,
    CrossRule,
    Deliver,
    FaultKind,
    Field,
    Gates,
    History,
    Monitors,
    MultiClass,
    Product,
    RecordingMissing,
    Retraining,
    Service,
    Source,
    Tables,
    Training,
    UnreadableFile,
    Window,
    images,
    rule,
)

if TYPE_CHECKING:
    import numpy as np
    import pandera.polars as pa

SHAPE = (28, 28)
CLASSES = (
    "t_shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)
"""In the order of the dataset's numbers."""
BATCHES, PHOTOS = 140, 500
GRAIN = BatchGrain(count=BATCHES)
MOMENT = pl.Datetime("us", "UTC")
LEAST_BRIGHT = 64
"""A quarter of the scale: the brightest point of every honest photo is 254 or 255, of one scaled to 0 to 1 it is 1."""


# Sources ------------------------------------------------------------------------------------------------------------

MANIFEST = "manifest.csv"
LISTED = ("photo_id", "file", "known_at_utc")
MOST_BYTES = 64_000_000
"""Per unpacked batch, and again for its photos' pixels: 80 times an honest batch, and harmless to a machine."""
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises for damaged archives, including text that is not UTF-8 and unknown compression methods."""


def photos_schema() -> pa.DataFrameSchema:
    """Return the columns `read_photos` gives for a batch: one row per photo."""
    import pandera.polars as pa

    height, width = SHAPE
    return pa.DataFrameSchema(
        {
            "photo_id": pa.Column(pl.String, pa.Check.str_matches(r"^p\d{5}$")),
            "height": pa.Column(pl.Int64, pa.Check.equal_to(height, error=f"{height} pixels")),
            "width": pa.Column(pl.Int64, pa.Check.equal_to(width, error=f"{width} pixels")),
            "darkest": pa.Column(pl.Int64),
            "brightest": pa.Column(
                pl.Int64, pa.Check.ge(LEAST_BRIGHT, error=f"at least {LEAST_BRIGHT} on the scale from 0 to 255")
            ),
            "pixels": pa.Column(pl.Binary),
            "known_at_utc": pa.Column(MOMENT),
        },
        checks=[rule("a photo is not blank", pl.col("darkest") < pl.col("brightest"))],
        strict=True,
    )


def labels_schema() -> pa.DataFrameSchema:
    """Return what each photo shows, according to a person."""
    import pandera.polars as pa

    return pa.DataFrameSchema(
        {
            "photo_id": pa.Column(pl.String, pa.Check.str_matches(r"^p\d{5}$")),
            "garment": pa.Column(pl.String, pa.Check.isin(list(CLASSES))),
            "known_at_utc": pa.Column(MOMENT),
        },
        strict=True,
    )


def read_photos(data: bytes) -> pl.DataFrame:
    """Parse a zip of image files and a manifest into rows.

    Raises:
        UnreadableFile: a broken zip, manifest or image, a file missing from the zip or the manifest, or more than
            `MOST_BYTES`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = _names(archive)
            listed = _manifest(archive.read(MANIFEST))
            _check_listed(listed, names)
            files = {row["file"]: archive.read(row["file"]) for row in listed}
    except UnreadableFile:
        raise
    except _BROKEN_ZIP as problem:
        raise UnreadableFile(
            f"{len(data):,} bytes are not a complete zip archive ({problem}); expected {MANIFEST} and the photos it "
            "lists. Deliver it again."
        ) from None
    rows, pixels = [], 0
    for row in listed:
        rows.append(_photo(row, files[row["file"]]))
        pixels += len(rows[-1][5])
        if pixels > MOST_BYTES:
            raise UnreadableFile(
                f"the first {len(rows)} of {len(listed)} photos have {pixels:,} pixels; expected at most "
                f"{MOST_BYTES:,} in a batch. Fix the delivery."
            )
    schema = {
        "photo_id": pl.String,
        "height": pl.Int64,
        "width": pl.Int64,
        "darkest": pl.Int64,
        "brightest": pl.Int64,
        "pixels": pl.Binary,
        "known_at_utc": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _names(archive: zipfile.ZipFile) -> set[str]:
    """Return the names in a zip before anything is unpacked; refuse too much data, a duplicate name, or no manifest.

    No file unpacks to more bytes than the zip claims here: `zipfile` stops there.
    """
    names = archive.namelist()
    if (claimed := sum(member.file_size for member in archive.infolist())) > MOST_BYTES:
        raise UnreadableFile(
            f"the zip's {len(names)} files unpack to {claimed:,} bytes; expected at most {MOST_BYTES:,} in a batch. "
            "Fix the delivery."
        )
    if len(distinct := set(names)) < len(names):
        duplicate = Counter(names).most_common(1)[0][0]
        raise UnreadableFile(f"the zip holds {duplicate!r} twice; expected each file once. Fix the delivery.")
    if MANIFEST not in distinct:
        raise UnreadableFile(
            f"the zip has no {MANIFEST} among its {len(names)} files; expected one with the columns "
            f"{', '.join(LISTED)}. Deliver it again."
        )
    return distinct


def _check_listed(listed: list[dict[str, str]], names: set[str]) -> None:
    """Refuse a zip that lacks a file its manifest lists, or holds one it does not list."""
    if missing := [row["file"] for row in listed if row["file"] not in names]:
        raise UnreadableFile(
            f"{MANIFEST} lists {len(listed)} photos and the zip lacks {len(missing)} of their files, such as "
            f"{missing[0]!r}; expected them all. Deliver it again."
        )
    if unlisted := sorted(names - {MANIFEST, *(row["file"] for row in listed)}):
        raise UnreadableFile(
            f"the zip holds {len(unlisted)} files that {MANIFEST} does not list, such as {unlisted[0]!r}; expected a "
            "line for each. Deliver it again."
        )


def _manifest(data: bytes) -> list[dict[str, str]]:
    """Parse the manifest's lines; refuse other columns, or a photo listed twice."""
    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as problem:
        raise UnreadableFile(f"{MANIFEST} is not CSV in UTF-8: {problem}. Deliver it again.") from None
    header = lines[0] if lines else []
    if tuple(header) != LISTED:
        raise UnreadableFile(
            f"{MANIFEST} has the columns {', '.join(header) or '(none)'}; expected {', '.join(LISTED)}, in this order. "
            "Fix the delivery."
        )
    if wrong := next((line for line in lines[1:] if len(line) != len(LISTED)), None):
        raise UnreadableFile(
            f"{MANIFEST} has the line {','.join(wrong)[:80]!r} of {len(wrong)} cells; expected {len(LISTED)}. Deliver "
            "it again."
        )
    names = [line[0] for line in lines[1:]]
    if len(set(names)) != len(names):
        duplicate = Counter(names).most_common(1)[0][0]
        raise UnreadableFile(f"{MANIFEST} lists {duplicate!r} twice; expected one line per photo. Fix the delivery.")
    return [dict(zip(LISTED, line, strict=True)) for line in lines[1:]]


def _photo(listed: dict[str, str], data: bytes) -> tuple[str, int, int, int, int, bytes, str]:
    try:
        pixels, height, width = images.from_file(data)
    except images.UnreadableImage as problem:
        raise UnreadableFile(
            f"photo {listed['photo_id']!r} cannot be read from {listed['file']!r}: {problem}. Deliver the batch again."
        ) from None
    return listed["photo_id"], height, width, min(pixels), max(pixels), pixels, listed["known_at_utc"]


def photo_statistics(photos: pl.DataFrame) -> pl.DataFrame:
    """Measure the statistics by which a batch of photos is compared with earlier ones."""
    return pl.DataFrame(images.statistics(images.stacked(photos["pixels"], SHAPE)))


SOURCES = (
    Source(
        name="photos",
        description="One zip per batch from the studio, with one PNG per photo and a manifest. 500 photos of one "
        "garment each on black, 28 by 28 grey levels, upright, in the order of Fashion-MNIST (MIT licence): the 60,000 "
        "training photos, then the 10,000 test photos. No photo is missing or repeated.",
        schema=photos_schema,
        known_at="known_at_utc",
        unique=("pixels",),
        content=("pixels",),
        statistics=photo_statistics,
        suffix=".zip",
        read=read_photos,
    ),
    Source(
        name="labels",
        description="The kind of garment on each photo, from the people who sort them, at the end of the batch. At 28 "
        "by 28 pixels shirts are hard to tell from T-shirts, pullovers and coats, even for people.",
        schema=labels_schema,
        known_at="known_at_utc",
        unique=("photo_id",),
        is_label=True,
    ),
)


# Rules between sources ----------------------------------------------------------------------------------------------


def _unlabelled(tables: Tables) -> pl.DataFrame:
    return tables["photos"].join(tables["labels"], on="photo_id", how="anti")


RULES = (
    CrossRule(
        name="every photo has a label",
        sources=("labels", "photos"),
        broken=_unlabelled,
    ),
)


# Features, label, model ---------------------------------------------------------------------------------------------

FIELDS = (
    Field(
        name="photo",
        dtype="image",
        shape=SHAPE,
        description="the garment, upright and light on black, 28 by 28 grey levels",
    ),
)


def features(tables: Tables, window: Window) -> pl.DataFrame:
    """Return each photo, served at the moment it was taken."""
    return (
        tables["photos"]
        .filter(pl.col("key").is_in(window.keys))
        .sort("known_at_utc", "photo_id")
        .select(
            pl.col("key").cast(pl.String),
            pl.col("photo_id").alias("entity"),
            pl.col("known_at_utc").alias("service_time"),
            pl.col("known_at_utc").alias("asked_at"),
            pl.col("pixels").alias("photo"),
        )
    )


def label(labels: pl.DataFrame) -> pl.DataFrame:
    """Label each photo with the kind its sorters chose."""
    return labels.select(
        "key",
        pl.col("photo_id").alias("entity"),
        pl.col("garment").alias("label"),
        pl.col("known_at_utc").alias("known_at"),
    )


def model(learned: Any, training: Training) -> Any:
    """Build the network, which normalises its inputs itself."""
    from driftline import ConvNet

    return ConvNet(learned, len(CLASSES), **training.settings)


# The recording ------------------------------------------------------------------------------------------------------

DATASET = Path("/usr/share/datasets/fashion-mnist")
FILES = ("train", "t10k")
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
BATCH_TIME = timedelta(hours=1)
PHOTO_TIME = timedelta(seconds=7)
"""500 of them leave two minutes until the next batch."""
ZIPPED_AT = (1980, 1, 1, 0, 0, 0)
"""The earliest moment a zip can hold, so that equal photos give equal bytes whenever they are zipped."""


def deliver(source: str, key: str) -> bytes | None:
    """Return the file of a source and key as its upstream system would write it; None if there is no such key."""
    if not GRAIN.contains(key):
        return None
    index = GRAIN.index(key)
    grey, kinds = _recording()
    at = slice(index * PHOTOS, (index + 1) * PHOTOS)
    names = [f"p{number:05d}" for number in range(at.start, at.stop)]
    taken = [(BEGIN + index * BATCH_TIME + i * PHOTO_TIME).strftime(MOMENT_FORMAT) for i in range(PHOTOS)]
    if source == "labels":
        rows = {"photo_id": names, "garment": [CLASSES[kind] for kind in kinds[at].tolist()]}
        return pl.DataFrame(rows).with_columns(pl.lit(taken[-1]).alias("known_at_utc")).write_csv().encode()
    listed = zip(names, (f"{name}.png" for name in names), taken, strict=True)
    return _zipped(grey[at], pl.DataFrame(list(listed), schema=LISTED, orient="row").write_csv().encode())


def _zipped(grey: np.ndarray, manifest: bytes) -> bytes:
    """Zip photos [N, H, W] in the order of the manifest's lines."""
    files = {MANIFEST: manifest}
    for line, photo in zip(_manifest(manifest), grey, strict=True):
        files[line["file"]] = images.to_png(photo.tobytes(), photo.shape)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, ZIPPED_AT), data)
    return buffer.getvalue()


@cache
def _recording() -> tuple[np.ndarray, np.ndarray]:
    """Read all photos uint8 [N, H, W] and the numbers of their kinds [N]; once per process (about 0.5 s)."""
    import numpy as np

    grey = [_read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, *SHAPE) for part in FILES]
    return np.concatenate(grey), np.concatenate([_read(f"{part}-labels-idx1-ubyte.gz", 8) for part in FILES])


def _read(name: str, header: int) -> np.ndarray:
    """Read the numbers in one of the dataset's files (idx format), which follow a header of `header` bytes."""
    import numpy as np

    try:
        data = gzip.decompress((DATASET / name).read_bytes())
    except FileNotFoundError:
        raise RecordingMissing(
            f"the recording is not installed: there is no {DATASET / name}. Install Debian's dataset-fashion-mnist "
            "(`apt-get install dataset-fashion-mnist`)."
        ) from None
    return np.frombuffer(data, dtype=np.uint8, offset=header)


def _broken(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Deliver, str, str], bytes | None]:
    """Return a delivery with changed photos and an unchanged manifest."""

    def deliver_broken(sound: Deliver, name: str, key: str) -> bytes | None:
        data = sound(name, key)
        if name != "photos" or data is None:
            return data
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            manifest = archive.read(MANIFEST)
        return _zipped(change(images.stacked(read_photos(data)["pixels"], SHAPE)), manifest)

    return deliver_broken


def _inverted(grey: np.ndarray) -> np.ndarray:
    return 255 - grey


def _rotated(grey: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.rot90(grey, axes=(1, 2))


BLUR = 5
"""Pixels: enough to lose every seam and lace while a garment stays recognisable."""


def _blurred(grey: np.ndarray) -> np.ndarray:
    """Average the square around each pixel."""
    import numpy as np

    reach = BLUR // 2
    padded = np.pad(grey.astype(np.float64), ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    squares = np.lib.stride_tricks.sliding_window_view(padded, (BLUR, BLUR), axis=(1, 2))
    return np.asarray(squares.mean(axis=(3, 4)).round().astype(np.uint8))


def _padded(grey: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.pad(grey, ((0, 0), (2, 2), (2, 2)))


FAULTS = (
    FaultKind(
        name="inverted",
        description="photos are negatives: dark garments on white",
        source="photos",
        check="shifted_statistics",
        deliver=_broken(_inverted),
    ),
    FaultKind(
        name="rotated",
        description="photos are rotated by 90 degrees, as from a camera mounted on its side",
        source="photos",
        check="shifted_statistics",
        deliver=_broken(_rotated),
    ),
    FaultKind(
        name="blurred",
        description="photos are out of focus",
        source="photos",
        check="shifted_statistics",
        deliver=_broken(_blurred),
    ),
    FaultKind(
        name="wrong_size",
        description="photos have a black frame and are 32 by 32 pixels",
        source="photos",
        check="quarantined_share",
        deliver=_broken(_padded),
    ),
)


SPEC = Product(
    name="garment_photos",
    short_name="photos",
    title="Garments on photos",
    description="Which of ten kinds of garment does a photo show? Asked when it is taken, answered with a probability "
    "for each kind. Fashion-MNIST (Zalando Research, MIT licence) in 140 batches of 500; all kinds are equally "
    "frequent, and no kind appears or disappears. Known gaps: its moments are invented, its labels arrive at once, "
    "and there is one photo per garment, upright on black.",
    grain=GRAIN,
    sources=SOURCES,
    lookback=0,
    features=features,
    fields=FIELDS,
    entity="photo",
    label=label,
    label_delay=0,
    task=MultiClass(classes=CLASSES),
    model=model,
    training=Training(
        profile="cpu_small",
        threads=1,
        epochs=6,
        batch_size=64,
        learning_rate=2e-3,
        weight_decay=1e-2,
        settings={"channels": (16, 32), "hidden": 128, "dropout": 0.4},
    ),
    window=None,
    holdout=4,
    min_keys=20,
    gates=Gates(max_drop=0.015),
    service=Service(max_rows=256, max_body_bytes=2_000_000, logs_features=True),
    monitors=Monitors(
        rules=RULES,
        record_keys=30,
        min_record_keys=10,
        season=1,
        max_statistic_shift=0.5,
        drift_window=5,
        repair_within=3,
    ),
    retraining=Retraining(
        decide_every=5,
        anchor="0001",
        max_age=10,
        cooldown=5,
        performance_window=10,
        min_excess_loss=0.1,
        monthly_budget_usd=1.0,
        expected_hours=0.1,  # measured: .035 CPU seconds per step; 1,224 steps for 26 batches, 6,600 for all 140
    ),
    history=History(deliver=deliver, demo_first="0001", demo_last="0030", demo_until="0050", faults=FAULTS),
)
