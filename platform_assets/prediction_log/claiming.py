"""Ingest segments exactly once: claim them, write their answers as parts, record that, fold the parts into keys.

A claim is created before anything else, and an ingestion that finds an unfinished one finishes it first. The same
segments give the same parts, so it does not matter how often, by how many processes, or where one was killed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from platform_assets.base.problems import RecordExists
from platform_assets.data import answer_rows
from platform_assets.prediction_log import segments, streams
from platform_assets.prediction_log.folding import Folder, finished
from platform_assets.prediction_log.parsing import MOST_NAMED, STAGE, arrivals
from platform_assets.prediction_log.predictions_maker import Ingesting, classify
from platform_assets.prediction_log.segments import Listed
from platform_assets.store.objects import open_store
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.parts import Parts
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.prediction_log import CLAIMS, INGESTED, Claim, Ingested, Remark
from platform_assets.store.segments import NewerSegment, Segment, SegmentProblem

BATCH_BYTES = 16 * 1024 * 1024
"""How much of the log is held in memory and claimed together."""
BATCH_SEGMENTS = 2_000
"""How many segments one claim names at most; most of them have no answers."""


@dataclass
class _Batch:
    """Segments that are claimed together.

    Attributes:
        listed: all of them.
        read: by path, those with answers.
        problems: by path, why a segment cannot be used.
        waiting: those that only newer code reads.
    """

    listed: list[Listed] = field(default_factory=list)
    read: dict[str, Segment] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether the batch must be claimed before more is read."""
        size = sum(len(segment.body) for segment in self.read.values())
        return size >= BATCH_BYTES or len(self.listed) >= BATCH_SEGMENTS


class Claiming:
    """One ingestion of a product's segments.

    Attributes:
        finished: the records of the claims that it finished.
        folded: the records of the keys that it brought up to date.
    """

    def __init__(self, product: ProductStore, code: str) -> None:
        """Prepare without reading anything.

        Args:
            code: the digest of the stage's code.
        """
        self._product = product
        self._history = product.history
        self._maker = Ingesting.for_product(product.spec)
        self._store = open_store(product.settings.root)
        self._parts = Parts(product.settings.root, product.name, STAGE)
        self._folder = Folder(product, self._maker, code)
        self.finished: list[Ingested] = []
        self.folded: dict[str, PartitionRecord] = {}

    def take_in(self) -> None:
        """Take in every segment that no claim names. Afterwards every key has the answers of all finished claims."""
        number, newest = self._finished_claim()
        # An earlier run may have been killed between its record and its folds.
        self._fold_after(0 if newest is None else newest.folded)
        folded = number
        # Another process may claim first, and a listing holds at most `MOST_LISTED`: look until nothing is new.
        while not self._take_new(number, newest, folded):
            number, newest = self._finished_claim()
        self._fold_after(folded)

    def fold(self, keys: Iterable[str]) -> dict[str, PartitionRecord]:
        """Return the records of keys; a key without answers gets an empty one."""
        return {key: self._folder.fold(key, 0) for key in keys}

    def _finished_claim(self) -> tuple[int, Claim | None]:
        """Return the newest claim with its number, finished."""
        number, newest = self._history.claim() or (0, None)
        if newest is not None and finished(self._history) < number:
            self._finish(number, newest, {})
        return number, newest

    def _take_new(self, number: int, newest: Claim | None, folded: int) -> bool:
        """Claim and finish what is new; return whether nothing was, neither for this process nor for another."""
        waiting = [] if newest is None else newest.waiting
        # Tried again in each run: the platform may have been updated since.
        still_waiting = [path for path in waiting if segments.is_newer(self._store, self._product.name, path)]
        ready = [segments.listed(path) for path in waiting if path not in still_waiting]
        listing = [*ready, *segments.unclaimed(self._store, self._product.name, self._history)]
        for batch in self._batches(listing):
            cursor_ms = max([item.time_ms for item in batch.listed] + [0 if newest is None else newest.cursor_ms])
            paths = [item.path for item in batch.listed]
            # What is unusual about the order of the segments, and the bytes taken with them.
            remarks, taken = list[Remark](), {} if newest is None else newest.streams
            for path, segment in batch.read.items():
                stream, first = segment.header.stream, segment.header.first
                end = first + len(segment.body)
                if text := streams.remark(taken.get(stream, []), first, end):
                    remarks.append(Remark(segment=path, remark=text))
                taken = streams.extended(taken, stream, first, end)
            unusable = {*batch.problems, *batch.waiting}
            # On record, so that whoever finishes this claim gives its answers the same keys.
            newest_batch = None
            if batch.read and not self._maker.is_timed:
                newest_batch = max(arrivals(self._product), key=self._product.spec.grain.index, default="")
            at = datetime.max.replace(tzinfo=UTC)  # of a recording whose clock is elsewhere
            with contextlib.suppress(LookupError):
                at = self._product.now
            claim = Claim(
                segments=[path for path in paths if path not in unusable],
                skipped=segments.skipped(batch.problems),
                cursor_ms=cursor_ms,
                at_utc=at.isoformat(),
                newest_batch=newest_batch,
                waiting=sorted({*still_waiting, *batch.waiting}),
                ahead=segments.ahead(self._product.name, cursor_ms, paths, [] if newest is None else newest.ahead),
                remarks=remarks,
                streams=taken,
                folded=folded,
            )
            number += 1
            try:
                self._product.ledgers.of(CLAIMS).create_number(number, claim)
            except RecordExists:  # another process claimed first: look again
                return False
            self._finish(number, claim, batch.read)
            newest, still_waiting = claim, claim.waiting
        return not listing

    def _batches(self, listing: Iterable[Listed]) -> Iterator[_Batch]:
        batch = _Batch()
        for item in listing:
            batch.listed.append(item)
            # Heartbeats are the most of them; their names say that they hold no answers, so they cost no request.
            if item.has_body:
                try:
                    batch.read[item.path] = segments.read(self._store, self._product.name, item.path, item.size)
                except NewerSegment:
                    batch.waiting.append(item.path)
                except SegmentProblem as problem:
                    batch.problems[item.path] = str(problem)
            if batch.is_full:
                yield batch
                batch = _Batch()
        if batch.listed:
            yield batch

    def _finish(self, number: int, claim: Claim, read: Mapping[str, Segment]) -> None:
        """Write the part of a claim, and record it unless another process has."""
        problems = {item.segment: item.reason for item in claim.skipped}
        parsed, offsets = [], dict[str, int]()
        for path in claim.segments:
            segment = read.get(path)
            try:
                if segment is None and segments.listed(path).has_body:
                    segment = segments.read(self._store, self._product.name, path)
            except SegmentProblem as problem:  # it was readable when it was claimed
                problems[path] = str(problem)
                continue
            if segment is not None:
                header, body = segment.header, segment.body
                parsed.append(self._maker.parse(body, header.stream, header.first))
                offsets[header.stream] = max(offsets.get(header.stream, 0), header.first + len(body))
        frames, left_out = dict[str, pl.DataFrame](), list[answer_rows.LeftOut]()
        if parsed:
            # Answers are late by the decisions of then: a claim that is finished twice must give the same rows.
            until = datetime.fromisoformat(claim.at_utc)
            rows, left_out = classify(self._product, self._maker, parsed, newest_batch=claim.newest_batch, until=until)
            for (key,), part in sorted(rows.partition_by("key", as_dict=True).items()):
                frames[str(key)] = answer_rows.first_given(part.drop("key"))
        # Before the record: after a kill in between the next run writes the same part again, which replaces this one.
        self._parts.replace(number, frames)
        record = Ingested(
            offsets=offsets,
            rows=sum(frame.height for frame in frames.values()),
            keys=sorted(frames),
            left_out=len(left_out),
            left_out_named=left_out[:MOST_NAMED],
            claim=number,
            segments=len(claim.segments),
            skipped=segments.skipped(problems),
            waiting=claim.waiting,
            remarks=claim.remarks,
        )
        # Another run may have taken the next number, for this claim or a later one.
        while finished(self._history) < number:
            newest, _ = self._history.ingested() or (0, None)
            with contextlib.suppress(RecordExists):  # another run was quicker
                self._product.ledgers.of(INGESTED).create_number(newest + 1, record)
        self.finished.append(record)

    def _fold_after(self, folded: int) -> None:
        """Fold the keys of all finished claims after one."""
        claims = dict[str, int]()
        number, newest = self._history.ingested() or (0, None)
        while newest is not None and newest.claim > folded:
            for key in newest.keys:
                claims.setdefault(key, newest.claim)  # newest first, so this is the key's newest claim
            number -= 1
            newest = self._history.ingested_at(number) if number else None
        self.folded |= {key: self._folder.fold(key, claim) for key, claim in sorted(claims.items())}
