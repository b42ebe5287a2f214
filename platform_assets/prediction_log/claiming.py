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
from platform_assets.prediction_log.segments import Body, Listed
from platform_assets.prediction_log.streams import Ranges
from platform_assets.store.objects import open_store
from platform_assets.store.partition_records import PartitionRecord
from platform_assets.store.parts import Parts
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.claims import CLAIMS, Claim, Remark
from platform_assets.store.records.ingested import INGESTED, Ingested
from platform_assets.store.segments import NewerSegment, SegmentProblem

BATCH_BYTES = 16 * 1024 * 1024
"""How much of the log is held in memory and claimed together."""
BATCH_SEGMENTS = 2_000
"""How many segments one claim names at most; most of them have no answers."""


@dataclass
class _Batch:
    """Segments that are claimed together.

    Attributes:
        listed: all of them.
        bodies: by path, of those with answers.
        problems: by path, why a segment cannot be used.
        waiting: those that only newer code reads.
    """

    listed: list[Listed] = field(default_factory=list)
    bodies: dict[str, Body] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether the batch must be claimed before more is read."""
        size = sum(len(body.data) for body in self.bodies.values())
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
        self._fold_after(0 if newest is None else newest.folded)
        folded = number
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
        still_waiting = [path for path in waiting if segments.is_newer(self._store, self._product.name, path)]
        ready = [segments.listed(path) for path in waiting if path not in still_waiting]
        listing = [*ready, *segments.unclaimed(self._store, self._product.name, self._history)]
        for batch in self._batches(listing):
            claim = self._claim_of(batch, newest, still_waiting, folded)
            number += 1
            try:
                self._product.ledgers.of(CLAIMS).create_number(number, claim)
            except RecordExists:
                return False
            self._finish(number, claim, batch.bodies)
            newest, still_waiting = claim, claim.waiting
        return not listing

    def _batches(self, listing: Iterable[Listed]) -> Iterator[_Batch]:
        batch = _Batch()
        for item in listing:
            batch.listed.append(item)
            if item.has_body:
                self._read(item, batch)
            if batch.is_full:
                yield batch
                batch = _Batch()
        if batch.listed:
            yield batch

    def _read(self, item: Listed, batch: _Batch) -> None:
        try:
            batch.bodies[item.path] = segments.read(self._store, self._product.name, item.path, item.size)
        except NewerSegment:
            batch.waiting.append(item.path)
        except SegmentProblem as problem:
            batch.problems[item.path] = str(problem)

    def _claim_of(self, batch: _Batch, newest: Claim | None, waiting: list[str], folded: int) -> Claim:
        cursor_ms = max([item.time_ms for item in batch.listed] + [0 if newest is None else newest.cursor_ms])
        paths = [item.path for item in batch.listed]
        remarks, taken = self._follow(batch, {} if newest is None else newest.streams)
        unusable = {*batch.problems, *batch.waiting}
        newest_batch = None
        if batch.bodies and not self._maker.is_timed:
            newest_batch = max(arrivals(self._product), key=self._product.spec.grain.index, default="")
        return Claim(
            segments=[path for path in paths if path not in unusable],
            skipped=segments.skipped(batch.problems),
            cursor_ms=cursor_ms,
            at_utc=self._now().isoformat(),
            newest_batch=newest_batch,
            waiting=sorted({*waiting, *batch.waiting}),
            ahead=segments.ahead(self._product.name, cursor_ms, paths, [] if newest is None else newest.ahead),
            remarks=remarks,
            streams=taken,
            folded=folded,
        )

    def _follow(self, batch: _Batch, taken: dict[str, Ranges]) -> tuple[list[Remark], dict[str, Ranges]]:
        """Return what is unusual about the order of a batch's segments, and the bytes taken with it."""
        remarks = []
        for path, body in batch.bodies.items():
            end = body.first + len(body.data)
            if text := streams.remark(taken.get(body.stream, []), body.first, end):
                remarks.append(Remark(segment=path, remark=text))
            taken = streams.extended(taken, body.stream, body.first, end)
        return remarks, taken

    def _finish(self, number: int, claim: Claim, bodies: Mapping[str, Body]) -> None:
        """Write the part of a claim, and record it unless another process has."""
        problems = {item.segment: item.reason for item in claim.skipped}
        parsed, offsets = [], dict[str, int]()
        for path in claim.segments:
            body = bodies.get(path)
            try:
                if body is None and segments.listed(path).has_body:
                    body = segments.read(self._store, self._product.name, path)
            except SegmentProblem as problem:  # it was readable when it was claimed
                problems[path] = str(problem)
                continue
            if body is not None:
                parsed.append(self._maker.parse(body.data, body.stream, body.first))
                offsets[body.stream] = max(offsets.get(body.stream, 0), body.first + len(body.data))
        frames, left_out = self._frames(claim, parsed)
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
        self._record(number, record)
        self.finished.append(record)

    def _frames(
        self, claim: Claim, parsed: list[answer_rows.Parsed]
    ) -> tuple[dict[str, pl.DataFrame], list[answer_rows.LeftOut]]:
        """Return the rows of a claim by key, and what is left out."""
        if not parsed:
            return {}, []
        until = datetime.fromisoformat(claim.at_utc)
        rows, left_out = classify(self._product, self._maker, parsed, newest_batch=claim.newest_batch, until=until)
        by_key = rows.partition_by("key", as_dict=True)
        return {
            str(key): answer_rows.first_given(part.drop("key")) for (key,), part in sorted(by_key.items())
        }, left_out

    def _record(self, claim: int, record: Ingested) -> None:
        """Record that a claim is finished, once."""
        while finished(self._history) < claim:
            number, _ = self._history.ingested() or (0, None)
            with contextlib.suppress(RecordExists):  # another run was quicker
                self._product.ledgers.of(INGESTED).create_number(number + 1, record)

    def _fold_after(self, folded: int) -> None:
        """Fold the keys of all finished claims after one."""
        claims = dict[str, int]()
        number, newest = self._history.ingested() or (0, None)
        while newest is not None and newest.claim > folded:
            for key in newest.keys:
                claims.setdefault(key, newest.claim)
            number -= 1
            newest = self._history.ingested_at(number) if number else None
        self.folded |= {key: self._folder.fold(key, claim) for key, claim in sorted(claims.items())}

    def _now(self) -> datetime:
        """Return the product's moment, the end of time for a recording whose clock is elsewhere."""
        try:
            return self._product.now
        except LookupError:
            return datetime.max.replace(tzinfo=UTC)
