"""Read what is on record about a product, now or at a past moment: all that `status` and `report` show.

A fact is read when it is first asked for, and once. Nothing is judged here: what no record says is unknown. Quality by
slice, calibration and what a model cost are computed, because no record holds them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import polars as pl
from msgspec.structs import asdict

from platform_assets.base import naming
from platform_assets.base.keys import KeyProblem
from platform_assets.base.wording import NOUNS, plural
from platform_assets.data import declared, unlabelled
from platform_assets.engine import project
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.evaluation.releases import RELEASED
from platform_assets.launch import rebuilding
from platform_assets.monitoring import performance_policy, recent_latency
from platform_assets.monitoring.measured import by_slice
from platform_assets.operations.intervals import inside
from platform_assets.operations.status import serving, state, todo
from platform_assets.product.spec import Product
from platform_assets.store.history.reader import History, judgement
from platform_assets.store.problems import TableProblem
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.alerts import Failure
from platform_assets.store.records.attempts import TRIAL, Overspending
from platform_assets.store.records.decisions import Decision, Latency
from platform_assets.store.records.faults import Fault, FaultRecord, Hold, Judgement
from platform_assets.store.records.notes import Features, Raw, Validated, measured
from platform_assets.store.records.performance import Measured
from platform_assets.store.records.releases import Release
from platform_assets.store.records.sources import SlowSource
from platform_assets.store.records.verdicts import Verdict
from platform_assets.store.tables import PartitionRecord
from platform_assets.training import versions
from platform_assets.training.rare_classes import AVERAGE_PRECISION, BASE_RATE

MOST_KEYS, MOST_LANDED = 92, 400
"""How many of the newest keys with answers, and of the newest landed ones, a report covers."""
MOST_OVERSPENDINGS = 12
"""The newest records of spending beyond the budget that are read."""
OF_A_RELEASE = ("cutoff", "outcome", "why", "by", "at_utc")
OF_A_HOLD = ("source", "check", "why", "at_utc")


class HistoryUntil(History):
    """The history as it stood at a moment, by the records' own times; a record without a time does not count."""

    def __init__(self, root: str, product: str, until: datetime) -> None:
        super().__init__(root, product)
        self._until = until

    def live(self) -> tuple[int, Release] | None:
        """Return the newest release of then. One read per release since."""
        newest_first = self.releases_newest_first()
        return next((item for item in newest_first if moment(item[1].at_utc) <= self._until), None)

    def decision(self, key: str) -> Decision | None:
        """Return the decision on a key; None where it came later."""
        decision = super().decision(key)
        return None if decision is None or moment(decision.at_utc) > self._until else decision

    def hold(self, key: str) -> Hold | None:
        """Return a key's newest fault record of then. One read per record."""
        known = [item for item in self.faults(key) if item[1].at_utc and moment(item[1].at_utc) <= self._until]
        return Hold(number=known[-1][0], record=known[-1][1]) if known else None


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A fault on contiguous keys, and what was done about it.

    Attributes:
        keys: the keys on which the same check of the same source failed, in order.
        fault: the first key's record.
        later: the records that followed, of all keys, as (key, record), oldest first.
    """

    keys: tuple[str, ...]
    fault: Fault
    later: tuple[tuple[str, FaultRecord], ...]


@dataclass(frozen=True)
class Standing:
    """What is known of any moment; members are named as those of `Past`.

    Attributes:
        until: the moment in question; None for now.
    """

    store: ProductStore
    until: datetime | None = None

    @property
    def spec(self) -> Product:
        """The product's file."""
        return self.store.spec

    @property
    def product(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def title(self) -> str:
        """Its title."""
        return self.spec.title

    @property
    def grain(self) -> str:
        """What its keys are."""
        return self.spec.grain.kind

    @cached_property
    def history(self) -> History:
        """Its ledgers, as of the moment."""
        store = self.store
        return store.history if self.until is None else HistoryUntil(store.settings.root, store.name, self.until)

    @cached_property
    def now(self) -> datetime | None:
        """The moment; None while a recording's clock is not set."""
        try:
            return self.until or self.store.now
        except LookupError:
            return None

    @property
    def at_utc(self) -> str | None:
        """The moment as records have it."""
        return None if self.now is None else self.now.isoformat(timespec="seconds")

    @cached_property
    def newest_closed_key(self) -> str | None:
        """The newest key with a decision."""
        grain, decision = self.spec.grain, self.history.decision
        keys = sorted(filter(grain.contains, self.store.tables.records("decision")), key=grain.index)
        if self.until is not None:
            # Keys are decided in order, so those with a decision come first.
            keys = keys[: bisect_left(keys, True, key=lambda key: decision(key) is None)]
        return keys[-1] if keys else None

    @cached_property
    def decision(self) -> Decision | None:
        """That decision."""
        return None if self.newest_closed_key is None else self.history.decision(self.newest_closed_key)

    @cached_property
    def live(self) -> tuple[int, Release] | None:
        """The newest release with its number."""
        return self.history.live()

    @cached_property
    def release(self) -> state.Live | None:
        """The live model, with its verdict and age."""
        if self.live is None:
            return None
        number, record = self.live
        grain, closed, verdict = self.spec.grain, self.newest_closed_key, self.history.verdict(record.digest)
        hours = None if self.now is None else (self.now - datetime.fromisoformat(record.at_utc)).total_seconds() / 3600
        names = [measure.name for measure in measures_of(self.spec.task).of_answers]
        models = {} if verdict is None else verdict.models
        numbers = {model: {name: values.get(name) for name in names} for model, values in models.items()}
        return state.Live(
            **asdict(released(number, record)),
            age_keys=None if closed is None else grain.index(closed) + 1 - grain.index(record.cutoff),
            age_hours=None if hours is None else round(hours, 2),
            verdict=None if verdict is None else state.Judged(passed=verdict.passed, rows=verdict.rows, models=numbers),
        )

    @cached_property
    def holds(self) -> dict[str, Hold]:
        """The keys with a fault, by key."""
        return self.history.holds()

    @cached_property
    def held(self) -> list[state.Held]:
        """The keys that are left out for it."""
        return [
            state.Held(key=key, kind=hold.kind, is_held=hold.is_held, **hold.record.present(OF_A_HOLD))
            for key, hold in sorted(self.holds.items())
            if hold.is_excluded
        ]


@dataclass(frozen=True)
class Facts(Standing):
    """What `status` shows of now; members are named as those of `State`.

    Attributes:
        failed: the newest failed run that Dagster knows of, which no sensor may have recorded yet.
    """

    failed: Failure | None = None

    @property
    def is_live(self) -> bool:
        """Whether it follows the wall clock."""
        return self.spec.is_live

    @property
    def now_utc(self) -> str | None:
        """The product's clock."""
        return None if self.now is None else self.now.isoformat()

    @cached_property
    def waits_for(self) -> str | None:
        """What the next key waits for."""
        return next_event(self.store, self.newest_closed_key, self.now)

    @cached_property
    def window(self) -> PartitionRecord | None:
        """The newest record of `performance` that has a window of labelled answers."""
        records = self.store.tables.records("performance")
        return self._newest({key: record for key, record in records.items() if measured(record).window})

    @cached_property
    def quality(self) -> state.Quality | None:
        """That window."""
        newest, spec = self.window, self.spec
        window = None if newest is None else measured(newest).window
        if newest is None or not window:
            return None
        measures, held = measures_of(spec.task), [hold.key for hold in self.held]
        records = self.store.tables.records("performance", held) if held else {}
        first = spec.grain.index(window.first)
        return state.Quality(
            key=newest.key,
            **window.members(("keys", "first", "last", "rows", "model")),
            quality={measure.name: inside(window.quality.get(measure.name), measure) for measure in measures.every},
            promises=performance_policy.describe((window.model and window.model.tests) or {}, spec.retraining) or None,
            held={
                key: quality[measures.headline.name]
                for key in held
                if key in records and (quality := measured(records[key]).quality) and spec.grain.index(key) >= first
            },
            headline=measures.headline.name,
        )

    @cached_property
    def slices(self) -> list[state.Slice] | None:
        """The measures of each group of each slice over that window; empty without slices.

        None where the rows cannot be read: status must also work on a damaged store, whose damage `doctor` names.
        """
        try:
            rows = self._labelled_rows(self.spec.slices) if self.spec.slices else None
        except TableProblem:
            return None
        if rows is None:
            return []
        measures = measures_of(self.spec.task)
        # Rows of before a slice was declared lack its column until they are measured again.
        columns = [name for name in self.spec.slices if name in rows.columns]
        return [
            state.Slice(
                slice=str(row["slice"]),
                value=str(row["value"]),
                rows=int(row["rows"] or 0),
                quality={
                    measure.name: float(value) if isinstance(value := row.get(measure.name), int | float) else None
                    for measure in measures.of_answers
                },
                note=None if row["note"] is None else str(row["note"]),
            )
            for row in by_slice(rows, columns, measures)
        ]

    @cached_property
    def drift(self) -> state.Drift | None:
        """The newest judgement."""
        newest = self._newest(self.store.tables.records("drift"))
        if newest is None:
            return None
        judged = judgement(newest)
        index = judged.index or None
        return state.Drift(
            key=newest.key,
            verdict=judged.verdict or "unknown",
            percentile=None if index is None else index.percentile,
            mean_psi=None if index is None else index.mean_psi,
            limit=self.spec.monitors.drift_limit,
        )

    @cached_property
    def recent_keys(self) -> list[str]:
        """The newest closed keys, as many as performance is measured over."""
        closed, back = self.newest_closed_key, self.spec.retraining.performance_window - 1
        return [] if closed is None else [*self.spec.grain.with_lookback((closed,), back)]

    @cached_property
    def put_aside(self) -> state.PutAside | None:
        """How many rows of features these keys lack for values that no field declares."""
        records = self.store.tables.records("features", self.recent_keys) if self.recent_keys else {}
        notes = {key: Features.of(record) for key, record in records.items()}
        newest = next((key for key in reversed(notes) if notes[key].rows_put_aside), None)
        if newest is None:
            return None
        rows = sum(note.rows_put_aside for note in notes.values())
        built = rows + sum(record.rows for record in records.values())
        return state.PutAside(
            rows=rows, built=built, keys=len(records), newest=newest, why=notes[newest].put_aside_by_reason
        )

    @cached_property
    def undeclared(self) -> list[state.Undeclared]:
        """The columns of these keys' deliveries that no schema declares, by source."""
        result = []
        for source in self.spec.sources if self.recent_keys else ():
            keys = [naming.UNPARTITIONED] if source.is_slow else self.recent_keys
            records = self.store.tables.records(naming.stage("raw", source.name), keys)
            declared_by_twins = self.spec.declared_by_twins(source)
            for key in reversed(keys):
                named = Raw.of(records[key]).undeclared if key in records else ()
                if columns := tuple(name for name in named if name not in declared_by_twins):
                    result.append(state.Undeclared(source=source.name, columns=columns, newest=key))
                    break
        return result

    @cached_property
    def unlabelled(self) -> list[state.Unlabelled]:
        """The keys whose labels were given up."""
        notes = unlabelled.notes(self.store.tables)
        return [state.Unlabelled(key=key, **notes[key]) for key in sorted(notes, key=self.spec.grain.index)]

    @cached_property
    def failure(self) -> state.Failed | None:
        """The newest failed run, of the product's records and of what Dagster knows."""
        number, failure = self.history.failure() or (None, None)
        # A sensor that records failures ticks after Dagster has them, and Dagster may have deleted those on record.
        if self.failed is not None and (
            failure is None or (self.failed.run_id != failure.run_id and self.failed.at_utc > failure.at_utc)
        ):
            number, failure = None, self.failed
        return None if failure is None else state.Failed(number=number, **asdict(failure))

    @cached_property
    def latency(self) -> Latency | None:
        """How many requests were slow."""
        closed = self.newest_closed_key
        return None if closed is None else recent_latency.recent_latency(self.store, closed)

    @cached_property
    def heard(self) -> state.Received | None:
        """What the service's processes sent for the newest closed key."""
        closed = self.newest_closed_key
        attendance = None if closed is None else self.history.attendance(closed)
        return None if closed is None or attendance is None else state.Received(key=closed, **asdict(attendance))

    @property
    def automation(self) -> str | None:
        """Whether sensors of a project's component run by themselves, with its file; None without a component."""
        component = project.component_of(self.spec.module)
        if component is None:
            return None
        if component.is_automatic:
            return f"on: sensors and schedules run unless a person stops them ({component.file})"
        return (
            f"off: sensors and schedules are stopped until a person starts them, or {component.file} says "
            "automation: true"
        )

    @cached_property
    def rare(self) -> state.Rare | None:
        """How the live model does on a rare class, from the record of its training."""
        if self.live is None or self.spec.task.kind != "binary":
            return None
        cutoff, digest = self.live[1].cutoff, self.live[1].digest
        record = self.store.tables.records("onnx", [cutoff]).get(cutoff)
        if record is None or record.content_digest != digest:
            return None
        training = self.history.training_of(str(record.inputs.get("checkpoint")))
        quality = {} if training is None else training.quality
        precision, rate = quality.get(AVERAGE_PRECISION), quality.get(BASE_RATE)
        return None if precision is None or rate is None else state.Rare(average_precision=precision, base_rate=rate)

    @cached_property
    def refused(self) -> state.Refused | None:
        """The newest evaluated model if its verdict refuses it and nobody released it all the same.

        Otherwise the newest one that was not released, because it does not answer logged requests.
        """
        tables, history = self.store.tables, self.history
        newest = self._newest(tables.records("evaluation"))
        record = None if newest is None else tables.records("onnx", [newest.key]).get(newest.key)
        verdict = None if record is None else history.verdict(record.content_digest)
        is_live = verdict is not None and self.live is not None and self.live[1].digest == verdict.digest
        if newest is not None and verdict is not None and not verdict.passed and not is_live:
            return state.Refused(cutoff=newest.key, digest=verdict.digest, reasons=tuple(verdict.reasons))
        refusal = history.refusal()
        if refusal is None:
            return None
        return state.Refused(cutoff=refusal.cutoff, digest=refusal.digest, reasons=(refusal.reason,))

    @cached_property
    def behind(self) -> versions.Older | None:
        """The keys of the next training that an earlier version of the product made."""
        return versions.of_next_training(self.store)

    @property
    def older(self) -> state.Older | None:
        """The same with their cost and what becomes of them."""
        behind = self.behind
        if behind is None:
            return None
        return state.Older(
            keys=len(behind.keys),
            among=behind.among,
            first=behind.keys[0],
            last=behind.keys[-1],
            stages=dict(behind.stages),
            since_utc=None if behind.since_utc is None else behind.since_utc.isoformat(timespec="seconds"),
            cpu_s=round(behind.cpu_s, 2),
            usd=round(rebuilding.usd(behind), 6),
            renewal=versions.renewing(self.store, behind),
            outlook=rebuilding.outlook(self.store, behind),
        )

    @cached_property
    def snapshots(self) -> list[state.Snapshot]:
        """The slow tables of which keys keep older snapshots, or that a rebuild has yet to cover."""
        standing, newest = self.store.snapshots.standing(), self.history.newest_rebuild()
        number = None if newest is None else newest[0]
        has_begun = number is not None and self.history.rebuild_snapshots(number) is not None
        result = []
        for source in self.spec.feature_sources:
            one = standing.get(naming.stage("validated", source.name)) if source.is_slow else None
            if one is not None and (one.older or one.left):
                rebuild = None if has_begun and not one.left else number
                left = one.left if has_begun else None
                result.append(
                    state.Snapshot(source=source.name, keys=one.keys, older=one.older, rebuild=rebuild, left=left)
                )
        return result

    @cached_property
    def slow(self) -> list[SlowSource] | None:
        """The sources that hold the ticks up."""
        return self.history.slow_sources() or None

    @cached_property
    def todo(self) -> list[state.Todo]:
        """What a person should do now."""
        return [
            *todo.all_of(self.store, self.holds, self.decision),
            *todo.of_older(self.store, self.behind),
            *todo.of_refused(self.store, self.refused),
            *serving.todos(self.store),
        ]

    def _labelled_rows(self, slices: tuple[str, ...] = ()) -> pl.DataFrame | None:
        """Return label, answer and slices of the newest window; None where no key has these columns. One read.

        Args:
            slices: columns of slices; a slice that the newest key was stored without is left out.
        """
        newest, tables = self.window, self.store.tables
        window = None if newest is None else measured(newest).window
        if newest is None or not window:
            return None
        answer = ["label", *self.spec.task.answer_types()]
        records = tables.records("performance", window.key_names)
        columns = [*answer, *(name for name in slices if name in newest.columns)]
        names = [key for key in window.key_names if key in records and not set(columns) - set(records[key].columns)]
        return tables.read("performance", names, columns=columns).drop_nulls(answer) if names else None

    def _newest(self, records: Mapping[str, PartitionRecord]) -> PartitionRecord | None:
        return max(records.values(), key=lambda record: self.spec.grain.index(record.key), default=None)


@dataclass(frozen=True)
class Reported(Facts):
    """What a report shows besides."""

    @property
    def noun(self) -> str:
        """What a key of the product is: `day`, `hour` or `batch`."""
        return NOUNS[self.grain]

    @property
    def nouns(self) -> str:
        """Its plural."""
        return plural(self.noun)

    @cached_property
    def measured(self) -> dict[str, Measured]:
        """The newest keys' numbers, in order: from the first with answers on, including those nobody asked about."""
        performance = self.store.tables.records("performance")
        recorded = sorted(performance, key=self.spec.grain.index)
        first = next((position for position, key in enumerate(recorded) if performance[key].rows), len(recorded))
        return {key: measured(performance[key]) for key in recorded[first:][-MOST_KEYS:]}

    @property
    def keys(self) -> tuple[str, ...]:
        """These keys."""
        return tuple(self.measured)

    @property
    def answered(self) -> int:
        """How many of them have answers."""
        return sum(numbers.rows > 0 for numbers in self.measured.values())

    @cached_property
    def judged(self) -> dict[str, Judgement]:
        """How they were judged."""
        return {key: judgement(record) for key, record in self.store.tables.records("drift", self.keys).items()}

    @cached_property
    def decisions(self) -> dict[str, Decision]:
        """The decisions on them, and on the key before them, which led to the first model."""
        return self.history.decisions(self.spec.grain.with_lookback(self.keys, 1) if self.keys else ())

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        """Their faults, oldest first."""
        first, keys = dict[tuple[str, str, str], Fault](), dict[tuple[str, str, str], list[str]]()
        later = dict[tuple[str, str, str], list[tuple[str, FaultRecord]]]()
        for key in self.keys:
            name = None  # a record before the first fault, such as a drop by a person, is of no episode
            is_faulty = key in self.judged and self.judged[key].was_ever_faulty
            for _, record in self.history.faults(key) if is_faulty else ():
                if isinstance(record, Fault) and name is None:
                    name = (record.episode, record.source, record.check)
                    first.setdefault(name, record)
                    keys.setdefault(name, []).append(key)
                elif name is not None:
                    later.setdefault(name, []).append((key, record))
        return tuple(
            Episode(keys=tuple(keys[name]), fault=fault, later=tuple(later.get(name, ())))
            for name, fault in first.items()
        )

    @cached_property
    def releases(self) -> tuple[tuple[int, Release], ...]:
        """All releases, oldest first."""
        return tuple(self.history.releases())

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts on their models, by digest."""
        read = {digest: self.history.verdict(digest) for digest in {record.digest for _, record in self.releases}}
        return {digest: verdict for digest, verdict in read.items() if verdict is not None}

    @cached_property
    def attempts(self) -> pl.DataFrame:
        """Trainings, exports and trials, by `store.history.attempts.SCHEMA`, the newest first."""
        return self.history.attempts()

    @cached_property
    def usd_of_models(self) -> dict[int, float]:
        """What each accepted model cost, by the first release of it: every attempt since the one before it.

        So failures, lost work, and trainings whose models lost their evaluation count; trials of a search do not. Its
        own end with the last attempt that names its digest, which is the export, or else its cutoff.
        """
        # A search serves all models to come, so its trials are the month's.
        tries = self.attempts.filter(pl.col("step") != TRIAL).select("number", "usd", "cutoff", "digest")
        result, digests, start = dict[int, float](), set[str](), 0
        for number, record in self.releases:
            if record.outcome != RELEASED or record.digest in digests:  # a rollback costs nothing
                continue
            digests.add(record.digest)
            left = tries.filter(pl.col("number") > start)
            own = left.filter(digest=record.digest)
            numbers = (left.filter(cutoff=record.cutoff) if own.is_empty() else own)["number"].to_list()
            end = max(numbers, default=start)
            result[number] = float(left.filter(pl.col("number") <= end)["usd"].sum())
            start = end
        return result

    @cached_property
    def overspendings(self) -> list[Overspending]:
        """What someone allowed beyond the budget, and why, oldest first."""
        return self.history.overspendings(MOST_OVERSPENDINGS)

    @cached_property
    def answers(self) -> pl.DataFrame | None:
        """Label and answer of the newest window's rows; None before labels."""
        return self._labelled_rows()

    @cached_property
    def quarantine(self) -> tuple[Mapping[tuple[str, str], int], Mapping[str, int]]:
        """Rows put aside by source and reason, and landed ones by source, over the newest `MOST_LANDED` keys.

        Keys before the first answer count too. Rows that `features` put aside count under `declared.THE_FEATURES`, of
        the rows built.
        """
        tables, index = self.store.tables, self.spec.grain.index
        aside, landed = Counter[tuple[str, str]](), dict[str, int]()
        for source in self.spec.sources:
            raw = tables.records(naming.stage("raw", source.name))
            newest = list(raw) if source.is_slow else sorted(raw, key=index)[-MOST_LANDED:]
            landed[source.name] = sum(raw[key].rows for key in newest)
            for record in tables.records(naming.stage("quarantine", source.name), newest).values():
                for kind, number in Validated.of(record).quarantined_by_kind.items():
                    aside[source.name, kind] += number
        built = tables.records("features")
        records = [built[key] for key in sorted(built, key=index)[-MOST_LANDED:]]
        notes = [Features.of(record) for record in records]
        for note in notes:
            for reason, number in note.put_aside_by_reason.items():
                aside[declared.THE_FEATURES, reason] += number
        if any(note.put_aside_by_reason for note in notes):
            rows = sum(record.rows for record in records) + sum(note.rows_put_aside for note in notes)
            landed[declared.THE_FEATURES] = rows
        return aside, landed


def released(number: int, record: Release) -> state.Released:
    """Return a release by its record."""
    return state.Released(number=number, digest=record.digest, **record.members(OF_A_RELEASE))


def moment(text: str) -> datetime:
    """Parse a time of a record, or of a person, which is UTC unless it has an offset."""
    parsed = datetime.fromisoformat(text)
    return parsed.replace(tzinfo=parsed.tzinfo or UTC).astimezone(UTC)


def next_event(product: ProductStore, closed: str | None, now: datetime | None) -> str | None:
    """Return what must happen before the next key closes, as part of a sentence; None without a key or a clock.

    Looks for landed files alone: other channels may take long to ask.

    Args:
        closed: the newest key that is closed.
    """
    spec = product.spec
    if now is None:
        return None
    try:
        key = spec.grain.first if closed is None else spec.grain.shift(closed, 1)
    except KeyProblem:  # the grain ends there
        return None
    opens = spec.closes_from(key)
    if opens is not None and now < opens:
        return f"the end of {key}, {opens:%Y-%m-%d %H:%M} UTC"
    keyed = [source for source in spec.feature_sources if not source.is_slow and source.is_landed]
    missing = [source for source in keyed if product.channels[source.name].probe(key) is None]
    due = [moment for source in missing if (moment := spec.due_at(source, key)) is not None]
    if missing and (not due or now < max(due)):
        files = " and ".join(product.channels[source.name].cite(key) for source in missing)
        return files + (f"; without it {key} closes at {max(due):%Y-%m-%d %H:%M} UTC" if due else "")
    return f"a sensor, which closes {key} within seconds while Dagster's daemon runs (on a laptop: `make dev`)"
