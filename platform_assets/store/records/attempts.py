"""Define attempts at steps and their cost, as reported by the step and by its launcher, and launches over budget."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from platform_assets.base import naming
from platform_assets.base.failures import NODE_LOST
from platform_assets.store.records.base import Document, Number, Part, Record, RecordKind

LAUNCHER, STEP = "launcher", "step"
TRAIN, EXPORT, BACKTEST, TRIAL = "train", "export", "backtest", "trial"
"""What attempts are for; a backtest's are trainings that make no model of the loop, a search's trials store none."""
FINISHED = "finished"
VANISHED = "vanished"
"""Reason of an attempt that left no end, by the next holder of its lease."""
UNDER_WAY = "under_way"
"""Reason of an attempt that was announced and has no reported end."""
LAUNCHER_NULLS = ("cpu_s", "digest", "exit_code", "node", "peak_memory_mb", "waited_s", "zone")
"""Members that a launcher writes as null when unknown; a step leaves unknown members out."""


class Launch(Part, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """An attempt's data before it starts; passed to its step and stored on its pod.

    Attributes:
        id: of its record.
        usd_per_hour, on_demand_usd_per_hour: of all its nodes.
        requested_at_utc: by the launcher's clock.
        save_limit_s: how long a save may take when the step is stopped.
        data_zone, cross_zone_usd_per_gb: the zone of the data, and the price of 10^9 bytes from there to another one,
            by its profile.
    """

    id: str
    product: str | None
    step: str | None
    fingerprint: str | None
    cutoff: str | None
    run_id: str
    launcher: str
    profile: str
    is_spot: bool
    memory_gb: Number
    usd_per_hour: Number
    on_demand_usd_per_hour: Number
    priced_on: str
    requested_at_utc: str
    save_limit_s: Number | None = None
    data_zone: str | None = None
    cross_zone_usd_per_gb: Number | None = None

    @staticmethod
    def read(document: object) -> Launch:
        """Parse a pod's annotation or a sensor's cursor."""
        return msgspec.convert(document, Launch)


class ProcessLocation(Part, frozen=True, kw_only=True):
    """Where an attempt ran, as far as its launcher knows."""

    host: str | None = None
    pid: int | None = None
    node: str | None = None
    zone: str | None = None


class Attempt(Record, frozen=True, kw_only=True):
    """An attempt at a step.

    Attributes:
        id: shared by the reports of a step and its launcher about the same attempt.
        by: `step` or `launcher`.
        reason: how it ended: `finished`, `under_way`, `vanished`, or a class of failure.
        said: the evidence, in one sentence.
        wall_s: how long each of its nodes was paid for, on average.
        save_s: how long its longest save took.
        save_limit_s: how long one may take when the step is stopped, by its profile.
        received_bytes: what its pod received from the network while it was under way: what it read from the store, and
            little else. Only for a training whose profile has a `data_zone`.
        cross_zone_bytes: the same where it ran in another zone than the data, 0 in the data's; absent where its zone is
            not known.
        cross_zone_usd: their price; `cost_usd`, the price of the node, is without it.
    """

    id: str | None = None
    by: str | None = None
    product: str | None = None
    step: str | None = None
    fingerprint: str | None = None
    cutoff: str | None = None
    digest: str | None = None
    run_id: str | None = None
    launcher: str | None = None
    fence: int | None = None
    reason: str
    said: str | None = None
    exit_code: int | None = None
    profile: str | None = None
    is_spot: bool | None = None
    memory_gb: Number | None = None
    usd_per_hour: Number
    on_demand_usd_per_hour: Number | None = None
    priced_on: str | None = None
    host: str | None = None
    pid: int | None = None
    node: str | None = None
    zone: str | None = None
    requested_at_utc: str | None = None
    started_at_utc: str | None = None
    ended_at_utc: str | None = None
    wall_s: Number | None
    waited_s: Number | None = None
    resumed_from_step: int | None = None
    steps_done: int | None = None
    steps_saved: int | None = None
    steps_lost: int | None = None
    save_s: Number | None = None
    save_limit_s: Number | None = None
    cpu_s: Number | None = None
    peak_memory_mb: Number | None = None
    cost_usd: Number | None = None
    on_demand_cost_usd: Number | None = None
    data_zone: str | None = None
    cross_zone_usd_per_gb: Number | None = None
    received_bytes: int | None = None
    cross_zone_bytes: int | None = None
    cross_zone_usd: Number | None = None

    def document(self) -> Document:
        """Return it as JSON values, with null for what its launcher does not know."""
        document = super().document()
        unknown = dict.fromkeys(LAUNCHER_NULLS) if self.by == LAUNCHER else {}
        return {**unknown, **document}

    def launch(self) -> Launch:
        """Return its data before it started; a launcher's record has all of it."""
        return Launch(**self.members(Launch.__struct_fields__))


class Announced(Record, frozen=True, kw_only=True):
    """An attempt that is about to start; its records will have numbers above `after`."""

    id: str
    after: int


class AttemptsSoFar(Record, frozen=True, kw_only=True):
    """The records of a product's first attempts, by number; a cache of its ledger, which may be lost."""

    attempts: list[Attempt]


class Overspending(Record, frozen=True, kw_only=True):
    """A launch over the budget of `month`; `over` is a sentence with the amount, `why` a person's reason."""

    product: str
    cutoff: str
    fingerprint: str
    month: str
    why: str
    over: str
    run_id: str
    at_utc: str
    budget_usd: Number
    spent_usd: Number
    next_usd: Number
    over_usd: Number


ATTEMPTS = RecordKind(naming.ATTEMPTS, Attempt)
PROGRESS = RecordKind(naming.LEASES, Attempt)
"""A step's own progress report, next to its lease: `{number}.progress`."""
ANNOUNCED = RecordKind(naming.ANNOUNCED, Announced)
OVERSPENDINGS = RecordKind(naming.OVERSPENDINGS, Overspending)
ATTEMPTS_SO_FAR = RecordKind(naming.COST, AttemptsSoFar)
SO_FAR = "attempts"
"""The cache's file; each check of a budget writes it."""

Numbered = tuple[int, Attempt]
"""A record with its number in the ledger."""


def unique_attempts(records: Iterable[Numbered]) -> list[Numbered]:
    """Merge the reports on each attempt into one, the newest first.

    A step and its launcher both report on an attempt, at least once each. Among records with one `id` the launcher's
    wins, because it also knows about ends that the step could not report; among equals the highest number wins. "Under
    way" counts only until an end is reported. A record without `id` is an attempt of its own. A launcher that had lost
    the node takes the end, and how long it took, from the step's own record.
    """
    standing: dict[object, Numbered] = {}
    own: dict[object, Attempt] = {}
    for number, record in sorted(records, key=lambda item: item[0]):
        name: object = record.id or number
        if record.by == STEP and record.reason not in (UNDER_WAY, VANISHED):
            own[name] = record
        before = standing.get(name)
        if before is None or _rank((number, record)) > _rank(before):
            standing[name] = (number, record)
    merged = [(number, _with_own_end(record, own.get(name))) for name, (number, record) in standing.items()]
    return sorted(merged, key=lambda item: item[0], reverse=True)


def _with_own_end(record: Attempt, own: Attempt | None) -> Attempt:
    if own is None or record.by != LAUNCHER or record.reason != NODE_LOST.name:
        return record
    return msgspec.structs.replace(
        record,
        reason=FINISHED if own.reason == FINISHED else record.reason,
        ended_at_utc=max(own.ended_at_utc or "", record.ended_at_utc or ""),
        wall_s=max(own.wall_s or 0.0, record.wall_s or 0.0),
    )


def _rank(item: Numbered) -> tuple[bool, bool, int]:
    number, record = item
    return record.reason != UNDER_WAY, record.by == LAUNCHER, number
