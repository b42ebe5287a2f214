"""Decide whether a landed file is complete, by its source's convention (`Source.arrives`), and explain why not.

Handles markers, manifests, and files still being written. `platform_assets.sensors.landings` decides when a
key is closed without a file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from platform_assets.base import naming
from platform_assets.base.problems import Problem
from platform_assets.data import landed
from platform_assets.engine import digests
from platform_assets.engine.digests import reads
from platform_assets.product.channels import Landed
from platform_assets.product.sources import Arrives
from platform_assets.product.spec import Product, Source
from platform_assets.store import objects
from platform_assets.store.artifacts import sha256
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.notes import Raw

MARKER, MANIFEST = ".done", ".manifest.json"
"""Suffixes of the files next to a landed file that show it is complete."""

# A mark (inode, size, time) can lie, and reading every file at every look would cost as much as taking it in.
SAMPLED = 64
"""One in this many files is read even though its mark is unchanged; a different sample in each run."""

MOST_LOOKS = 3
"""How often a run looks at a file that keeps changing, before it leaves it for later."""

RANGE_END = "dagster/asset_partition_range_end"
_SHAPE = '{"rows": 1000, "sha256": "..."}'
_SHOWN = 12


class Unfinished(Problem):
    """A file that is not known to be complete; the message continues the file's name: `has 299 rows ...`."""


@dataclass(frozen=True)
class Gap:
    """A delivery that was incomplete when its deadline passed; `why` is empty where there was no file."""

    why: str = ""


@dataclass(frozen=True)
class Kept:
    """A delivery that its source no longer has as its channel reads it now: its record stays. `why` is a clause."""

    why: str


File = Landed | Gap | Kept
Files = dict[str, File]
"""File by key, a gap for a key that missed its deadline, or what is kept of an earlier delivery."""


def arrival_kind(spec: Product, source: Source, root: str) -> Arrives:
    """Return how a source's files are known to be complete; on S3 a file appears complete."""
    arrives = spec.arrives(source)
    return "rename" if arrives == "settled" and not objects.is_folder(root) else arrives


def no_marker(source: Source, key: str) -> str:
    """Return why a file without its marker is not complete."""
    return f"is there, and its marker {key}{source.suffix}{MARKER} is not"


def no_manifest(source: Source, key: str) -> str:
    """Return why a file without its manifest is not complete."""
    return f"is there, and its manifest {key}{source.suffix}{MANIFEST} is not"


def unlike_manifest(source: Source, file: Landed, manifest: bytes) -> str | None:
    """Return how a file differs from its manifest, or None.

    Rows are counted only if the file can be read; an unreadable file counts as complete, and fails later with its own
    message.
    """
    try:
        document = json.loads(manifest)
        count, digest = document["rows"], document["sha256"]
    except (ValueError, TypeError, KeyError):
        count = digest = None
    if type(count) is not int or not isinstance(digest, str):
        text = manifest.decode("utf-8", errors="replace")
        return f"has the manifest {text[: landed.SHOWN]!r}; expected JSON such as {_SHAPE}"
    actual = sha256(file.data)
    if actual != digest.lower():
        return (
            f"has the sha256 {actual[:_SHOWN]} in {len(file.data):,} bytes; its manifest says {digest[:_SHOWN]} for "
            f"{count:,} rows"
        )
    try:
        with reads.guarded(source.schema.__module__):
            rows = landed.parse(file.data, source.read, source.multiline)
    except landed.UnreadableFile:
        return None
    return None if rows.height == count else f"has {rows.height:,} rows; its manifest says {count:,}"


def settled_name(source: str, key: str, mark: str) -> str:
    """Return the short name of a settled file in the tags of the run that takes it in (`naming.TAG_SETTLED`)."""
    return sha256(f"{source} {key} {mark}".encode())[:8]


class Intake:
    """Takes in the files of one source for one run, once each is complete."""

    def __init__(self, context: dg.AssetExecutionContext, product: ProductStore, source: Source, code: str) -> None:
        """Prepare the intake without looking at files.

        Args:
            context: of the run; a tag names files that a sensor has seen settled.
            code: the stage's code digest; files taken in by other code are read again.
        """
        self._code = code
        self._log, self._product, self._source = context.log, product, source
        self._channel = product.channels[source.name]
        self.identity = None if source.channel is None else digests.channel_digest(source.channel)
        self._kind = arrival_kind(product.spec, source, product.settings.root)
        tags = context.run.tags
        self._settled = frozenset(tags.get(naming.TAG_SETTLED, "").split())
        self._requested = frozenset(tags.get(naming.TAG_REQUESTED, "").split())
        self._salt = tags.get(RANGE_END, "")
        self._looks: dict[str, tuple[str | None, float]] = {}

    def look(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Return the marks of the keys' files, None without a file; remember the first look at each file.

        Raises:
            dagster.Failure: a key's period still runs.
        """
        keys, product, source = tuple(keys), self._product, self._source
        # The deliveries of a period that still runs may lack rows that are to come. Labels are left for later where the
        # key itself may be closed before its end.
        for key in keys:
            moment = product.awaited_until(source, key)
            if moment is None or (source.is_label and product.spec.closes_from(key) is None):
                continue
            raise dg.Failure(
                f"{source.name} of {key} may be taken in from {moment.isoformat()} on, and it is "
                f"{product.now.isoformat()}: the period still runs, so rows may be missing. Materialise "
                f"{naming.stage('raw', source.name)} of {key} after that, or set is_early=True in the product's file "
                "where the source delivers everything before the end of the period.",
                metadata={"running_key": key, "taken_from_utc": moment.isoformat()},
                allow_retries=False,
            )
        marks = {key: self._channel.probe(key) for key in keys}
        for key, mark in marks.items():
            self._looks.setdefault(key, (mark, time.perf_counter()))
        return marks

    def recorded_digest(self, key: str, record: PartitionRecord | None) -> str | None:
        """Return a file's sha256 from its record if the file's mark is unchanged; None when the file must be read.

        Files named by a request (`repair__product`) and a sample are always read: this finds files whose bytes changed
        although their mark did not.

        Args:
            key: one that `look` has seen.
            record: of the key.
        """
        mark, _ = self._looks.get(key, (None, 0.0))
        # To compare the marks of 31 files of 4 MB takes 3 ms of CPU, to read them 140.
        if mark is None or record is None or Raw.of(record).mark != mark:
            return None
        if Raw.of(record).channel != self.identity or record.code_digest != self._code:
            return None
        # The sample follows from the key and the run's range: a run that is repeated reads the same files.
        chosen = sha256(f"{record.stage} {key} {record.content_digest} {self._salt}".encode())
        return None if key in self._requested or int(chosen, 16) % SAMPLED == 0 else record.inputs.get("file")

    def files(self, keys: Iterable[str], records: Mapping[str, PartitionRecord]) -> Files:
        """Return the keys' files, with a gap for a missed deadline; labels that have not landed are left out.

        A file that was taken in before and is gone is replaced by its stored copy, unless the channel now reads
        something else: then the earlier delivery is kept, which is not a delivery of this channel.

        Raises:
            dagster.Failure: a file is missing or incomplete, and may still come.
        """
        source, files = self._source, Files()
        for key in keys:
            if (moment := self._product.awaited_until(source, key)) is not None:
                self._log.warning(f"{source.name} of {key} is taken in from {moment.isoformat()} on; left for later.")
                continue
            try:
                files[key] = self.take(key)
                continue
            except FileNotFoundError as problem:
                if (file := self._earlier(key, records.get(key))) is not None:
                    files[key] = file
                    continue
                gap, message = Gap(), f"{problem}"
            except Unfinished as problem:
                gap = Gap(f"{problem}")
                message = f"{self._channel.cite(key)} {problem}."
            if self._is_overdue(key):
                files[key] = gap
            elif not source.is_label:
                raise dg.Failure(
                    f"{message} Deliver it, then materialise {naming.stage('raw', source.name)} again from {key}.",
                    metadata={"missing_key": key},
                    allow_retries=False,
                ) from None
            if gap.why:
                consequence = "The key goes on without it." if key in files else "It is left for later."
                self._log.warning(f"{message} {consequence}")
        return files

    def is_other_channel(self, record: PartitionRecord | None) -> bool:
        """Tell whether a key's delivery came through a channel that read something else."""
        return record is not None and not Raw.of(record).is_missing and Raw.of(record).channel != self.identity

    def keep(self, record: PartitionRecord, reason: str) -> Kept | None:
        """Keep an earlier delivery, and say so; None for a key that a person asked for."""
        if record.key in self._requested:
            return None
        kept = Kept(f"{reason}, so the rows that were delivered before are kept")
        older = " They do not train together with rows of the present version; `driftline status` says what to do."
        message = f"{self._source.name} of {record.key}: {kept.why}."
        self._log.warning(message + (older if self.is_other_channel(record) else ""))
        return kept

    def _earlier(self, key: str, record: PartitionRecord | None) -> Landed | Kept | None:
        """Return what stands in for a delivery that is gone: its copy, or the earlier one that is kept."""
        if record is None:
            return None
        if self.is_other_channel(record):
            return self.keep(record, f"{self._channel.cite(key)} has nothing for the key now")
        notes = Raw.of(record)
        if notes.sha256 is None or notes.uri is None or notes.arrived_at_utc is None or notes.mark is None:
            return None  # there was no delivery
        self._log.info(f"{notes.uri} is gone; the copy that was stored when it was taken in is read instead.")
        return Landed(
            uri=notes.uri,
            data=self._product.artifacts.get(notes.sha256, compressed=True),
            arrived_at_utc=datetime.fromisoformat(notes.arrived_at_utc),
            mark=notes.mark,
        )

    def take(self, key: str) -> Landed:
        """Return a key's complete file; if nothing marks it as complete, wait until it has settled.

        Raises:
            FileNotFoundError: there is no file.
            Unfinished: it is incomplete.
        """
        if self._kind == "settled":
            for _ in range(MOST_LOOKS):
                mark, at = self._looks.get(key) or (self._channel.probe(key), time.perf_counter())
                if mark is not None and settled_name(self._source.name, key, mark) not in self._settled:
                    left_s = at + self._source.settle.total_seconds() - time.perf_counter()
                    if left_s > 0:
                        self._log.info(
                            f"{self._source.name} of {key}: nothing marks the file as complete, so a second look "
                            f"follows in {left_s:.0f} s (`arrives` of the source)."
                        )
                        time.sleep(left_s)
                file = self._channel.fetch(key)
                if file.mark == mark:
                    return file
                self._looks[key] = (file.mark, time.perf_counter())
            raise Unfinished(f"changed in each of {MOST_LOOKS} looks, {self._source.settle} apart")
        # Before the file is read: a marker that comes in between would vouch for bytes that were read before it.
        has_marker = self._kind != "marker" or self._channel.probe(key, MARKER) is not None
        file = self._channel.fetch(key)
        if not has_marker:
            raise Unfinished(no_marker(self._source, key))
        if self._kind == "manifest":
            try:
                manifest = self._channel.fetch(key, MANIFEST).data
            except FileNotFoundError:
                raise Unfinished(no_manifest(self._source, key)) from None
            if (reason := unlike_manifest(self._source, file, manifest)) is not None:
                raise Unfinished(reason)
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
