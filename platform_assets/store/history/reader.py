"""Read the history of one product: releases, decisions, faults, requests, alerts and costs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from platform_assets.base.problems import LedgerProblem
from platform_assets.store.artifacts import sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records import alerts, prediction_log, versions
from platform_assets.store.records.attempts import (
    ATTEMPTS,
    ATTEMPTS_SO_FAR,
    OVERSPENDINGS,
    SO_FAR,
    Numbered,
    Overspending,
)
from platform_assets.store.records.decisions import DECISIONS, Decision
from platform_assets.store.records.faults import FAULTS, REQUEST_INPUT, FaultRecord, Hold
from platform_assets.store.records.notes import judgement
from platform_assets.store.records.releases import REFUSALS, RELEASES, Refusal, Release
from platform_assets.store.records.requests import ANSWERED, INTERVENTIONS, REQUESTS, AdvanceRequest, DecisionRequest
from platform_assets.store.records.sources import SLOW_SOURCES, SlowSource
from platform_assets.store.records.trainings import CHECKPOINTS, TRAININGS, Training
from platform_assets.store.records.verdicts import VERDICTS, Verdict

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.store.tables import TableStore


class Reader:
    """The ledgers and partition records of one product."""

    def __init__(self, root: str, product: str) -> None:
        """Name them without opening anything.

        Args:
            root: a folder or an `s3://` URL (`Settings.root`).
        """
        self.root, self.product = root, product
        self._ledgers = Ledgers(root, product)

    @cached_property
    def _tables(self) -> TableStore:
        from platform_assets.store.tables import TableStore

        return TableStore(self.root, self.product)


class Releases(Reader):
    """Releases by number, counted from 1, and verdicts by digest."""

    def live(self) -> tuple[int, Release] | None:
        """Return the newest release with its number, or None. Three small reads."""
        return self._ledgers.of(RELEASES).latest()

    def release(self, number: int) -> Release | None:
        """Return a release, or None. One read."""
        return self._ledgers.of(RELEASES).at(number)

    def releases(self, first: int = 1) -> Iterator[tuple[int, Release]]:
        """Yield the releases from a number on, oldest first. One read per release, and one more."""
        return self._ledgers.of(RELEASES).records(first)

    def newest_releases(self, count: int) -> list[tuple[int, Release]]:
        """Return up to `count` releases, the newest first. One read per release, and two more."""
        return self._ledgers.of(RELEASES).newest(count)

    def releases_newest_first(self) -> Iterator[tuple[int, Release]]:
        """Yield releases, the newest first, reading each one only when it is needed."""
        return self._ledgers.of(RELEASES).newest_first()

    def newest_release(self) -> int:
        """Return the number of the newest release, 0 for none. Two small reads."""
        return self._ledgers.of(RELEASES).newest_number()

    def refusal(self) -> Refusal | None:
        """Return the newest refusal of a release, None if there is none or a release followed. Five small reads."""
        newest = self._ledgers.of(REFUSALS).latest()
        return newest[1] if newest is not None and newest[1].release == self.newest_release() else None

    def release_sha256(self, number: int) -> str | None:
        """Return the hash of a release's bytes, or None. One read."""
        data = self._ledgers.stored(RELEASES.ledger, f"{number:08d}")
        return sha256(data) if data else None

    def stored_verdict(self, digest: str) -> tuple[bytes, Verdict] | None:
        """Return the verdict on a bundle with its bytes, or None. One read."""
        return self._ledgers.of(VERDICTS).stored(digest)

    def verdict(self, digest: str) -> Verdict | None:
        """Return the verdict on a bundle, or None. One read."""
        return self._ledgers.of(VERDICTS).read(digest)


class Decisions(Reader):
    """Decisions by key; a decision closes its key."""

    def ingested(self) -> tuple[int, prediction_log.Ingested] | None:
        """Return how far the prediction log was ingested, with the record's number, or None. Three small reads."""
        return self._ledgers.of(prediction_log.INGESTED).latest()

    def ingested_at(self, number: int) -> prediction_log.Ingested | None:
        """Return the record of an ingestion, or None. One read."""
        return self._ledgers.of(prediction_log.INGESTED).at(number)

    def claim(self) -> tuple[int, prediction_log.Claim] | None:
        """Return the newest claim of segments with its number, or None. Three small reads."""
        return self._ledgers.of(prediction_log.CLAIMS).latest()

    def claim_at(self, number: int) -> prediction_log.Claim | None:
        """Return a claim, or None. One read."""
        return self._ledgers.of(prediction_log.CLAIMS).at(number)

    def pruned(self) -> int:
        """Return up to which claim segments were deleted, 0 for none. One read."""
        hint = self._ledgers.of(prediction_log.PRUNED).read(prediction_log.PRUNED.ledger)
        return 0 if hint is None else hint.claim

    def decision(self, key: str) -> Decision | None:
        """Return the decision on a key, or None. One read."""
        return self._ledgers.of(DECISIONS).read(key)

    def is_decided(self, key: str) -> bool:
        """Tell whether a key is closed. One read."""
        return self._ledgers.read(DECISIONS.ledger, key) is not None

    def decisions(self, keys: Iterable[str]) -> dict[str, Decision]:
        """Return the existing decisions on these keys. One read per key."""
        pairs = ((key, self.decision(key)) for key in keys)
        return {key: record for key, record in pairs if record is not None}

    def closed_at(self, keys: Iterable[str]) -> dict[str, datetime]:
        """Return when the closed ones of these keys were decided. One read per key."""
        return {key: datetime.fromisoformat(record.at_utc) for key, record in self.decisions(keys).items()}


STAGE = "drift"
INTERVENTIONS_READ = 100
"""How many of the newest interventions are read."""


class Faults(Reader):
    """The fault ledgers, one per key."""

    def hold(self, key: str) -> Hold | None:
        """Return a key's hold: its newest fault record, or None. Three small reads."""
        latest = self._ledgers.of(FAULTS.of(key)).latest()
        return None if latest is None else Hold(number=latest[0], record=latest[1])

    def holds(self, keys: Iterable[str] | None = None) -> dict[str, Hold]:
        """Return the holds of these keys (all judged keys by default) that have a fault on record, by key.

        Looks up only keys whose judgement has or had a fault, and those that a person settled: a year costs one read of
        partition records, one per newest intervention, and three per such key.
        """
        judged = self._tables.records(STAGE, None if keys is None else set(keys))
        requested = set(judged) if keys is None else set(keys)
        faulty = {key for key, record in judged.items() if judgement(record).was_ever_faulty}
        settled = {record.key for _, record in self._ledgers.of(INTERVENTIONS).newest(INTERVENTIONS_READ)}
        holds = {key: self.hold(key) for key in sorted(faulty | (settled & requested))}
        return {key: hold for key, hold in holds.items() if hold is not None}

    def excluded(self, keys: Iterable[str]) -> dict[str, Hold]:
        """Return the holds that exclude keys from reference and training, by key. Costs as `holds`, and one more read.

        A key with a nulled source stays excluded until it has been built and judged without that source.
        """
        holds = self.holds(tuple(keys))
        nulled = [key for key, hold in holds.items() if hold.nulled_source is not None]
        judged = self._tables.records(STAGE, nulled) if nulled else {}
        waiting = {key for key in nulled if judged[key].inputs.get(REQUEST_INPUT) != str(holds[key].number)}
        return {key: hold for key, hold in holds.items() if hold.is_excluded or key in waiting}

    def faults(self, key: str) -> Iterator[tuple[int, FaultRecord]]:
        """Yield the fault records of a key, oldest first. One read per record, and one more."""
        return self._ledgers.of(FAULTS.of(key)).records()

    def newest_faults(self, key: str, count: int) -> list[tuple[int, FaultRecord]]:
        """Return up to `count` fault records of a key, the newest first. One read per record, and two more."""
        return self._ledgers.of(FAULTS.of(key)).newest(count)


class Requests(Reader):
    """Requests and failures by number, counted from 1."""

    def requests(self, after: int) -> Iterator[tuple[int, AdvanceRequest | DecisionRequest]]:
        """Yield the requests after a number, oldest first. One read per request, and one more."""
        return self._ledgers.of(REQUESTS).records(after + 1)

    def newest_requests(self, count: int) -> list[tuple[int, AdvanceRequest | DecisionRequest]]:
        """Return up to `count` requests, the newest first. One read per request, and two more."""
        return self._ledgers.of(REQUESTS).newest(count)

    def newest_settled_request(self) -> int:
        """Return the number up to which requests are settled, 0 for none. Three small reads."""
        latest = self._ledgers.of(ANSWERED).latest()
        return 0 if latest is None else latest[1].request

    def slow_sources(self) -> list[SlowSource]:
        """Return the sources that hold the product's ticks up. One read."""
        file = self._ledgers.of(SLOW_SOURCES).read(SLOW_SOURCES.ledger)
        return [] if file is None else file.sources

    def failure(self) -> tuple[int, alerts.Failure] | None:
        """Return the newest failed run with its number, or None. Three small reads."""
        return self._ledgers.of(alerts.FAILURES).latest()

    def newest_failures(self, count: int) -> list[tuple[int, alerts.Failure]]:
        """Return up to `count` failed runs, the newest first. One read per failure, and two more."""
        return self._ledgers.of(alerts.FAILURES).newest(count)


MOST_READ = 100
"""Among how many of the newest trainings that of a checkpoint is looked for."""


class History(Releases, Decisions, Faults, Requests):
    """Everything on record about a product; each method states its cost in requests.

    Numbered records are counted from 1.
    """

    def newest_rebuild(self) -> tuple[int, versions.Rebuild] | None:
        """Return the newest rebuild with its number, or None. Three small reads."""
        return self._ledgers.of(versions.REBUILDS).latest()

    def rebuild_snapshots(self, number: int) -> versions.RebuildSnapshots | None:
        """Return what a rebuild's first run took; None before that run. One small read."""
        return self._ledgers.of(versions.REBUILD_SNAPSHOTS).read(str(number))

    def alert(self, alert_id: str) -> alerts.Alert | None:
        """Return an alert, or None. One read."""
        return self._ledgers.of(alerts.ALERTS).read(alert_id)

    def end(self, alert_id: str) -> alerts.Ended | None:
        """Return the end of an alert's episode, None while it goes on. One read."""
        return self._ledgers.of(alerts.ENDS).read(alert_id + alerts.ENDED)

    def queued(self, number: int) -> alerts.Queued | None:
        """Return the entry of the queue with this number, or None. One read."""
        return self._ledgers.of(alerts.ALERT_QUEUE).at(number)

    def newest_queued(self, count: int) -> list[alerts.Queued]:
        """Return up to `count` entries of the queue, the newest first. One read per entry, and two more."""
        return [queued for _, queued in self._ledgers.of(alerts.ALERT_QUEUE).newest(count)]

    def delivery(self, queued: alerts.Queued) -> alerts.Delivered | None:
        """Return the delivery of an entry that was got or finally refused, or None. One read."""
        return self._ledgers.of(alerts.DELIVERIES).read(queued.delivery)

    def attendance(self, key: str) -> prediction_log.Attendance | None:
        """Return what processes sent for a key, or None. One read."""
        return self._ledgers.of(prediction_log.ATTENDANCE).read(key)

    def key_end(self, key: str) -> prediction_log.KeyEnd | None:
        """Return the announced end of a recording's key, or None. One read."""
        return self._ledgers.of(prediction_log.KEY_ENDS).read(key)

    def attempts(self) -> pl.DataFrame:
        """Return the attempts at trainings and exports as `attempts.SCHEMA`: one row each, the newest first.

        Costs what `attempts_so_far` does.
        """
        from platform_assets.store.history.attempts import frame  # polars loads with it, and sensors read no attempts

        return frame(self.attempts_so_far())

    def attempts_so_far(self) -> list[Numbered]:
        """Return all records of attempts at trainings and exports, the oldest first.

        One read, and one per record that is not cached.
        """
        # Records are written once and their numbers have no gaps, so what a check of the budget cached stays valid.
        try:
            cached = self._ledgers.of(ATTEMPTS_SO_FAR).read(SO_FAR)
        except LedgerProblem:  # damaged or of another version: all are read
            cached = None
        records = [] if cached is None else list(enumerate(cached.attempts, start=1))
        return [*records, *self._ledgers.of(ATTEMPTS).records(len(records) + 1)]

    def attempt_records(self, after: int) -> Iterator[Numbered]:
        """Yield the records of attempts after a number, oldest first. One read per record, and one more."""
        return self._ledgers.of(ATTEMPTS).records(after + 1)

    def overspendings(self, count: int) -> list[Overspending]:
        """Return up to `count` newest launches over budget, the oldest first. One read per record, and two more."""
        return [record for _, record in reversed(self._ledgers.of(OVERSPENDINGS).newest(count))]

    def checkpoint(self, fingerprint: str) -> str | None:
        """Return the digest of a finished training's manifest, None if it is not finished. One read."""
        record = self._ledgers.of(CHECKPOINTS).read(fingerprint)
        return None if record is None else record.manifest

    def trainings_newest_first(self) -> Iterator[tuple[int, Training]]:
        """Yield trainings, the newest first, reading each only when it is needed. Two small reads, and one each."""
        return self._ledgers.of(TRAININGS).newest_first()

    def training_of(self, checkpoint: str) -> Training | None:
        """Return the newest training that made a checkpoint, among the newest `MOST_READ`; None if there is none."""
        newest = islice(self.trainings_newest_first(), MOST_READ)
        return next((record for _, record in newest if record.checkpoint == checkpoint), None)

    def compatible_versions(self) -> dict[str, list[tuple[str, str]]]:
        """Return the pairs of versions that go together, by stage. One read per statement, and one more."""
        pairs: dict[str, list[tuple[str, str]]] = {}
        for _, record in self._ledgers.of(versions.COMPATIBLE).records(1):
            pairs.setdefault(record.stage, []).append(record.versions)
        return pairs

    def renewal(self, after: int = 0) -> tuple[int, versions.Renewal] | None:
        """Return the newest renewal after a number, or None. One read per renewal, and one more."""
        return next(iter(deque(self._ledgers.of(versions.RENEWALS).records(after + 1), maxlen=1)), None)

    def defined_in(self) -> str | None:
        """Return the module that defined the product when its first rows were taken in. One read."""
        record = self._ledgers.of(versions.DEFINED_IN).read(versions.FIRST)
        return None if record is None else record.module
