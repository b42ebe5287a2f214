"""Gather what a product's report tells, from records and ledgers, over its newest keys.

Belongs here: reading. Does not belong here: markup, or numbers that no record holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from platform_assets import naming, status
from platform_assets.compute import costs, declared
from platform_assets.handle import Product
from platform_assets.history.attempts import frame
from platform_assets.history.faults import judgement
from platform_assets.history.performance import measured
from platform_assets.history.reader import History
from platform_assets.records import notes
from platform_assets.records.attempts import Overspending
from platform_assets.records.decisions import Decision
from platform_assets.records.faults import Fault, FaultRecord
from platform_assets.records.judgements import Judgement
from platform_assets.records.performance import Measured
from platform_assets.records.releases import Release
from platform_assets.records.verdicts import Verdict
from platform_assets.specs.base import ProductSpec
from platform_assets.status.state import State
from platform_assets.storage.tables import PartitionRecord, TableStore

if TYPE_CHECKING:
    import polars as pl

MOST_KEYS = 92
"""How many of the newest keys a report covers."""
MOST_LANDED = 400
MOST_ATTEMPTS = 500
MOST_OVERSPENDINGS = 12
KEYED_STAGES = ("features", "outcomes", "performance", "drift")
MODEL_STAGES = ("checkpoint", "onnx", "evaluation", "service")
_VALUE = re.compile(r" is (?:(?!, expected |; ).)*, expected ")
_REPEATED = re.compile(r"repeats row \S+")
"""What `compute.validate` writes about one row, and no other row says alike."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A fault, from the first contiguous key that had it to what was done.

    Attributes:
        keys: those with the same failing check of the same source, in order.
        fault: the first key's record.
        then: the records that followed, over all its keys, as (key, record), oldest first.
    """

    keys: tuple[str, ...]
    fault: Fault
    then: tuple[tuple[str, FaultRecord], ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report tells.

    Attributes:
        spec: the product.
        standing: from `status.of_product`.
        keys: the keys it covers, in order: from the first with answers on, also those that nobody could be asked about.
        measured: the numbers of the keys.
        judged: how the keys were judged.
        decisions: by key.
        episodes: faults in the covered keys.
        releases: (number, record), oldest first.
        verdicts: by digest.
        attempts: at trainings and exports, by `history.attempts.SCHEMA`.
        overspendings: what a person allowed beyond the budget, and why, oldest first.
        answers: joined rows of the newest window, for calibration; None before labels.
        quarantine: rows by (source, reason), of all keys that landed, those before the first answer too; also those of
            `declared.THE_FEATURES` that were put aside, if any.
        landed: rows landed by source, of the same keys; rows built of the features where some were put aside.
        cpu_s: by stage.
    """

    spec: ProductSpec
    standing: State
    keys: tuple[str, ...]
    measured: Mapping[str, Measured]
    judged: Mapping[str, Judgement]
    decisions: Mapping[str, Decision]
    episodes: tuple[Episode, ...]
    releases: tuple[tuple[int, Release], ...]
    verdicts: Mapping[str, Verdict]
    attempts: pl.DataFrame
    overspendings: tuple[Overspending, ...]
    answers: pl.DataFrame | None
    quarantine: Mapping[tuple[str, str], int]
    landed: Mapping[str, int]
    cpu_s: Mapping[str, float]

    @property
    def answered(self) -> int:
        """How many of the keys have answers."""
        return sum(notes.rows > 0 for notes in self.measured.values())

    @property
    def cost_usd(self) -> float:
        """What the trainings cost at their profiles' prices."""
        return costs.total_usd(self.attempts)


@dataclass
class _Quarantine:
    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    landed: dict[str, int] = field(default_factory=dict)


def gather(product: Product) -> Facts:
    """Read a product's facts."""
    spec, tables, history = product.spec, product.tables, product.history
    performance = tables.records("performance")
    keys = _since_first_answer(spec, performance)[-MOST_KEYS:]
    judged = {key: judgement(record) for key, record in tables.records("drift", keys).items()}
    released = tuple(history.releases())
    digests = {record.digest for _, record in released}
    verdicts = {digest: history.verdict(digest) for digest in sorted(digests)}
    quarantine = _quarantined(product)
    return Facts(
        spec=spec,
        standing=status.of_product(product),
        keys=keys,
        measured={key: measured(performance[key]) for key in keys},
        judged=judged,
        decisions=history.decisions(_with_first(spec, keys)),
        episodes=_episodes(history, [key for key in keys if key in judged and judged[key].was_ever_faulty]),
        releases=released,
        verdicts={digest: verdict for digest, verdict in verdicts.items() if verdict is not None},
        attempts=frame(history.newest_attempts(MOST_ATTEMPTS)),
        overspendings=tuple(history.overspendings(MOST_OVERSPENDINGS)),
        answers=_answers(product, performance, keys),
        quarantine=quarantine.rows,
        landed=quarantine.landed,
        cpu_s=_cpu_s(product),
    )


def kind_of(reason: str) -> str:
    """Return a quarantined row's reason without its own values, so that rows with the same trouble are counted once."""
    return _REPEATED.sub("repeats another row", _VALUE.sub(" is not as expected: ", reason))


def _since_first_answer(spec: ProductSpec, performance: Mapping[str, PartitionRecord]) -> tuple[str, ...]:
    keys = sorted(performance, key=spec.grain.index)
    first = next((place for place, key in enumerate(keys) if performance[key].rows), len(keys))
    return tuple(keys[first:])


def _with_first(spec: ProductSpec, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys and the one before them, whose decision led to the first model."""
    return spec.grain.with_lookback(tuple(keys), 1) if keys else ()


def _episodes(history: History, faulty: Sequence[str]) -> tuple[Episode, ...]:
    """Return the episodes of the faulty keys; a key's records come oldest first."""
    found: dict[tuple[str, str, str], tuple[list[str], list[tuple[str, FaultRecord]]]] = {}
    firsts: dict[tuple[str, str, str], Fault] = {}
    for key in faulty:
        name = None
        for _, record in history.faults(key):
            if isinstance(record, Fault) and name is None:
                name = (record.episode, record.source, record.check)
                firsts.setdefault(name, record)
                found.setdefault(name, ([], []))[0].append(key)
            elif name is not None:
                found[name][1].append((key, record))
    return tuple(
        Episode(keys=tuple(keys), fault=firsts[name], then=tuple(then)) for name, (keys, then) in found.items()
    )


def _answers(product: Product, performance: Mapping[str, PartitionRecord], keys: Sequence[str]) -> pl.DataFrame | None:
    """Return label and answer of the newest window's labelled rows."""
    windows = [window for key in keys if (window := measured(performance[key]).window)]
    if not windows:
        return None
    columns = ["label", *product.spec.task.answer_types()]
    names = [key for key in windows[-1].key_names if not set(columns) - set(performance[key].columns)]
    return product.tables.read("performance", names, columns=columns).drop_nulls(columns) if names else None


def _quarantined(product: Product) -> _Quarantine:
    """Count quarantined rows by source and reason, over the newest `MOST_LANDED` keys that landed."""
    spec = product.spec
    found = _Quarantine()
    for source in spec.sources:
        raw = product.tables.records(naming.stage("raw", source.name))
        wanted = list(raw) if source.is_slow else sorted(raw, key=spec.grain.index)[-MOST_LANDED:]
        found.landed[source.name] = sum(raw[key].rows for key in wanted)
        stage = naming.stage("quarantine", source.name)
        kept = [key for key, record in product.tables.records(stage, wanted).items() if record.rows]
        if kept:
            reasons = product.tables.read(stage, kept, columns=["reason"])["reason"]
            for reason, count in reasons.value_counts(sort=True).iter_rows():
                name = (source.name, kind_of(str(reason)))
                found.rows[name] = found.rows.get(name, 0) + count
    built = product.tables.records("features")
    newest = [built[key] for key in sorted(built, key=spec.grain.index)[-MOST_LANDED:]]
    aside = [notes.Features.of(record) for record in newest]
    if any(each.put_aside_by_reason for each in aside):
        rows = sum(record.rows for record in newest) + sum(each.rows_put_aside for each in aside)
        found.landed[declared.THE_FEATURES] = rows
        for reason, count in (each for noted in aside for each in noted.put_aside_by_reason.items()):
            name = (declared.THE_FEATURES, reason)
            found.rows[name] = found.rows.get(name, 0) + count
    return found


def _cpu_s(product: Product) -> dict[str, float]:
    """Return the CPU seconds that making all keys took, by stage, as their records say."""
    of_source = {
        stage: sum(_sum(product.tables, naming.stage(stage, source.name)) for source in product.spec.sources)
        for stage in ("raw", "validated")
    }
    return of_source | {stage: _sum(product.tables, stage) for stage in (*KEYED_STAGES, *MODEL_STAGES)}


def _sum(tables: TableStore, stage: str) -> float:
    return sum(float(notes.Notes.of(record).cpu_s) for record in tables.records(stage).values())
