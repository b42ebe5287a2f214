"""Tell whether a landed file is whole, by what its source promises (`Source.arrives`), and why it is not yet.

Belongs here: markers, manifests, and looks at a file that is being written. Does not belong here: whether the rows of a
whole file are right (`compute.landed`, `compute.validate`), or when a key is closed without one (`sensors.landings`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from platform_assets import naming
from platform_assets.compute import landed
from platform_assets.handle import Product
from platform_assets.problems import Problem
from platform_assets.product.channels import Landed
from platform_assets.product.sources import Arrives
from platform_assets.records.notes import Raw
from platform_assets.specs.base import ProductSpec, Source
from platform_assets.storage import objects
from platform_assets.storage.adoption import has_current_code
from platform_assets.storage.artifacts import sha256
from platform_assets.storage.records import PartitionRecord

MARKER, MANIFEST = ".done", ".manifest.json"
"""What an upstream adds to the name of a file for the one that says that it is whole."""

SAMPLED = 64
"""One in so many files with the mark of the file that was taken in is read all the same, others in each run."""

MOST_LOOKS = 3
"""How often a run looks at a file that is another one in each look, before it leaves it for later."""

RANGE_END = "dagster/asset_partition_range_end"
_SHAPE = '{"rows": 1000, "sha256": "..."}'
_SHOWN = 12


class Unfinished(Problem):
    """A file that is there and not known to be whole; the message goes on after the file's name: `has 299 rows ...`."""


@dataclass(frozen=True)
class Gap:
    """A delivery that was not whole when its deadline passed; `why` is empty where there was no file."""

    why: str = ""


File = Landed | Gap
Files = dict[str, File]
"""By key: its file, or a gap for one that missed its deadline."""


def arrival_kind(spec: ProductSpec, source: Source, root: str) -> Arrives:
    """Return how one tells that a source's file below a storage root is whole: on S3 it appears so."""
    found = spec.arrives(source)
    return "rename" if found == "settled" and not objects.is_folder(root) else found


def no_marker(source: Source, key: str) -> str:
    """Return why a file without its marker is not whole."""
    return f"is there, and its marker {key}{source.suffix}{MARKER} is not"


def no_manifest(source: Source, key: str) -> str:
    """Return why a file without its manifest is not whole."""
    return f"is there, and its manifest {key}{source.suffix}{MANIFEST} is not"


def unlike_manifest(source: Source, file: Landed, manifest: bytes) -> str | None:
    """Return why a file is not the one of its manifest, or None.

    Rows are counted where the file can be read; one that cannot is whole all the same, and fails by its own sentence.
    """
    try:
        told = json.loads(manifest)
        rows, digest = told["rows"], told["sha256"]
    except (ValueError, TypeError, KeyError):
        rows = digest = None
    if type(rows) is not int or not isinstance(digest, str):
        text = manifest.decode("utf-8", errors="replace")
        return f"has the manifest {text[: landed.SHOWN]!r}; expected JSON such as {_SHAPE}"
    came = sha256(file.data)
    if came != digest.lower():
        return (
            f"has the sha256 {came[:_SHOWN]} in {len(file.data):,} bytes; its manifest says {digest[:_SHOWN]} for "
            f"{rows:,} rows"
        )
    try:
        columns = list(source.columns().columns)
        height = landed.rows(file.data, columns=columns, arrived_at_utc=file.arrived_at_utc, read=source.read).height
    except landed.UnreadableFile:
        return None
    return None if height == rows else f"has {height:,} rows; its manifest says {rows:,}"


def settled_name(source: str, key: str, mark: str) -> str:
    """Return by which short name a file that has settled is told to the run that takes it in (`naming.TAG_SETTLED`)."""
    return sha256(f"{source} {key} {mark}".encode())[:8]


class Intake:
    """Takes the files of one source in for one run, each when it is whole."""

    def __init__(self, context: dg.AssetExecutionContext, product: Product, source: Source, code: str) -> None:
        """Look at nothing yet.

        Args:
            context: of the run, whose tag names files that a sensor has seen settled.
            product: where files land.
            source: whose files.
            code: the stage's code digest; what other code took in is read again.
        """
        self._code, self._tables = code, product.tables
        self._log, self._product, self._source = context.log, product, source
        self._channel = product.channels[source.name]
        self._kind = arrival_kind(product.spec, source, product.settings.root)
        tags = context.run.tags
        self._settled = frozenset(tags.get(naming.TAG_SETTLED, "").split())
        self._asked = frozenset(tags.get(naming.TAG_REQUESTED, "").split())
        self._salt = tags.get(RANGE_END, "")
        self._looks: dict[str, tuple[str | None, float]] = {}

    def look(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Return the marks of the keys' files, None where there is none; the first look at a file is remembered."""
        marks = {key: self._channel.probe(key) for key in keys}
        for key, mark in marks.items():
            self._looks.setdefault(key, (mark, time.perf_counter()))
        return marks

    def recorded_digest(self, key: str, record: PartitionRecord | None) -> str | None:
        """Return the sha256 of a file that its record says, by the file's mark; None when the file must be read.

        Read all the same are files that a request names (`repair__product`) and a sample: one whose bytes changed
        behind an equal mark is found there.

        Args:
            key: whose file, which `look` has seen.
            record: of the key.
        """
        mark, _ = self._looks.get(key, (None, 0.0))
        if mark is None or record is None or Raw.of(record).mark != mark:
            return None
        if not has_current_code(self._tables, record, self._code):
            return None
        chosen = sha256(f"{record.stage} {key} {record.content_digest} {self._salt}".encode())
        return None if key in self._asked or int(chosen, 16) % SAMPLED == 0 else record.inputs.get("file")

    def files(self, keys: Iterable[str]) -> Files:
        """Return the files of the keys, a gap for one that missed its deadline; without labels that have not landed.

        Raises:
            dagster.Failure: a file that is not there, or not whole, and may still come.
        """
        source, files = self._source, Files()
        for key in keys:
            try:
                files[key] = self.take(key)
                continue
            except FileNotFoundError as problem:
                gap, told = Gap(), f"{problem}"
            except Unfinished as problem:
                gap = Gap(f"{problem}")
                told = f"{self._channel.cite(key)} {problem}."
            if self._is_overdue(key):
                files[key] = gap
            elif not source.is_label:
                raise dg.Failure(
                    f"{told} Deliver it, then materialise {naming.stage('raw', source.name)} again from {key}.",
                    metadata={"missing_key": key},
                    allow_retries=False,
                ) from None
            if gap.why:
                left = "The key goes on without it." if key in files else "It is left for later."
                self._log.warning(f"{told} {left}")
        return files

    def take(self, key: str) -> Landed:
        """Return a key's file, whole; wait for it to settle where nobody says so.

        Raises:
            FileNotFoundError: there is none.
            Unfinished: it is not whole.
        """
        if self._kind == "settled":
            return self._take_settled(key)
        has_marker = self._kind != "marker" or self._channel.probe(key, MARKER) is not None
        file = self._channel.fetch(key)
        if not has_marker:
            raise Unfinished(no_marker(self._source, key))
        if self._kind == "manifest":
            try:
                manifest = self._channel.fetch(key, MANIFEST).data
            except FileNotFoundError:
                raise Unfinished(no_manifest(self._source, key)) from None
            if (why := unlike_manifest(self._source, file, manifest)) is not None:
                raise Unfinished(why)
        return file

    def _is_overdue(self, key: str) -> bool:
        """Tell whether a key must be closed without this source; labels are late by nature and never overdue."""
        source = self._source
        due_at = None if source.is_label or source.is_slow else self._product.spec.due_at(source, key)
        if due_at is None:
            return False
        try:
            return self._product.now >= due_at
        except LookupError:
            return False

    def _take_settled(self, key: str) -> Landed:
        for _ in range(MOST_LOOKS):
            seen, at = self._looks.get(key) or (self._channel.probe(key), time.perf_counter())
            if seen is not None and settled_name(self._source.name, key, seen) not in self._settled:
                self._wait(key, at)
            file = self._channel.fetch(key)
            if file.mark == seen:
                return file
            self._looks[key] = (file.mark, time.perf_counter())
        raise Unfinished(f"was another one in each of {MOST_LOOKS} looks, {self._source.settle} apart")

    def _wait(self, key: str, since_s: float) -> None:
        left_s = since_s + self._source.settle.total_seconds() - time.perf_counter()
        if left_s > 0:
            self._log.info(
                f"{self._source.name} of {key}: nobody says that the file is whole, so a second look follows in "
                f"{left_s:.0f} s (`arrives` of the source)."
            )
            time.sleep(left_s)
