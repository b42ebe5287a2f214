"""Judge keys: gather a key's rows, the accepted keys before it and the live model's reference, and run the checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec
import polars as pl
from msgspec import UNSET
from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.data import declared, stage_inputs
from platform_assets.data.rows import Rows
from platform_assets.engine.outputs import by_key
from platform_assets.monitoring import counted_answers, drift_index, faults, sketch, undeclared_values
from platform_assets.monitoring.fault_records import FaultRecords
from platform_assets.store.artifacts import ArtifactProblem
from platform_assets.store.content import type_of
from platform_assets.store.records import faults as noted_faults
from platform_assets.store.records import notes
from platform_assets.store.records.faults import REQUEST_INPUT
from platform_assets.store.records.sketches import Answered, KeySketch, SourceSketch
from platform_assets.training import reference
from platform_assets.training.histograms import histograms
from platform_assets.training.reference import MIX, Counts, Model, Reference

if TYPE_CHECKING:
    from platform_assets.monitoring.judged_product import JudgedProduct
    from platform_assets.store.product_store import ProductStore
    from platform_assets.store.tables import PartitionRecord

STAGE = "drift"
FEATURES = "features"
PREDICTIONS = "predictions"
_HELD_BACK = 2
"""Look back this many window widths, so that held keys can be skipped."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The judgement of one key.

    Attributes:
        checks: every check, failing ones first.
        index: drift index of the features; None without a model, for a faulty key, or with too few keys.
        mix: drift index of the served answers; None in the same cases.
        model: the model whose training rows the index compares with.
    """

    checks: tuple[faults.Check, ...]
    index: drift_index.Index | None
    mix: drift_index.Index | None
    model: Model | None

    @property
    def failing(self) -> tuple[faults.Check, ...]:
        """The failing checks, primary first."""
        return faults.failing(self.checks)

    @property
    def verdict(self) -> str:
        """The verdict. A fault outranks drift: broken data says nothing about the world."""
        if self.failing:
            return "alert_fault"
        return "drift" if any(index is not None and index.is_drift for index in (self.index, self.mix)) else "fine"

    def notes(self, sketch_digest: str, *, was_faulty: bool) -> noted_faults.Judgement:
        """Return the notes of the key's record."""
        failing = self.failing
        return noted_faults.Judgement(
            verdict=self.verdict,
            is_faulty=bool(failing),
            was_faulty=was_faulty or bool(failing),
            faults=len(failing),
            primary=failing[0].to_record() if failing else None,
            index=msgspec.convert(self.index, noted_faults.Indexed | None, from_attributes=True),
            mix=msgspec.convert(self.mix, noted_faults.Indexed | None, from_attributes=True),
            reference=self.model.digest if self.model else None,
            sketch=sketch_digest,
            bins=self.model.bins if self.model else None,
        )


class Judge:
    """Judges the keys of one chunk in order, each against the keys before it."""

    def __init__(self, spec: JudgedProduct, product: ProductStore, keys: tuple[str, ...]) -> None:
        """Read the records around `keys`, which are contiguous and in order."""
        self._spec, self._history = spec, product.history
        self._tables, self._artifacts = product.tables, product.artifacts
        # What the keys are compared with, and newer ones judged before.
        reach = _HELD_BACK * max(spec.monitors.record_keys, spec.monitors.drift_window)
        last = spec.grain.index(keys[-1]) + reach
        end = last if spec.grain.size is None else min(last, spec.grain.size - 1)
        around = spec.grain.span(spec.grain.with_lookback(keys[:1], reach)[0], spec.grain.key_at(end))
        self._judged: dict[str, PartitionRecord] = self._tables.records(STAGE, around)
        self.faults = FaultRecords(spec, product, around)
        self._sketches: dict[str, KeySketch] = {}
        self._models: dict[str, Model | None] = {}
        self._validated = {
            source.name: self._tables.records(_stage(source.name), keys)
            if source.is_label
            else stage_inputs.require(self._tables, _stage(source.name), keys)
            for source in spec.sources
            if not source.is_slow
        }
        self._unread: dict[str, dict[str, PartitionRecord]] = {}
        for name, records in self._validated.items():
            empty = [key for key, record in records.items() if not notes.Validated.of(record).rows_in]
            raw = self._tables.records(naming.stage("raw", name), empty) if empty else {}
            self._unread[name] = {key: record for key, record in raw.items() if notes.Raw.of(record).unreadable}
        self._features = stage_inputs.require(self._tables, FEATURES, keys)
        self._answered = self._tables.records(PREDICTIONS, around)
        self._newest = max((*self._judged, *keys), key=spec.grain.index)

    def inputs(self, key: str) -> dict[str, str]:
        """Return the digests a key's judgement depends on: its own data, and any request to judge it again."""
        request = self.faults.newest_request(key)
        return {
            **{_stage(source): digest for source, digest in self._digests(key).items()},
            FEATURES: self._features[key].content_digest,
            **{
                naming.stage("raw", name): f"{records[key].inputs.get('file')}"
                for name, records in self._unread.items()
                if key in records
            },
            **({REQUEST_INPUT: str(request)} if request else {}),
        }

    def judge(self, keys: tuple[str, ...]) -> dict[str, tuple[Judgement, noted_faults.Judgement]]:
        """Judge keys, record their faults, and return each judgement with its notes."""
        rows = dict[str, dict[str, pl.DataFrame]]()  # labels only where they have landed
        for name, records in self._validated.items():
            digests = {key: records[key].content_digest for key in keys if key in records}
            if digests:
                rows[name] = by_key(self._tables.read_exact(_stage(name), digests), tuple(digests), _stage(name))
        features = self._features_of(keys)
        results = {}
        for key in keys:
            model = self._model_of(key)
            key_sketch = self._sketch(key, {name: of_key[key] for name, of_key in rows.items() if key in of_key})
            if model:
                counts = histograms(features[key], model.learned)
                key_sketch = replace(key_sketch, bins=model.bins, histograms=counts, answers=self._answers(key, model))
            checks = self._check(key, key_sketch, features[key].height)
            failing = faults.failing(checks)
            self._sketches[key] = key_sketch
            digests = {**self._digests(key), declared.THE_FEATURES: self._features[key].content_digest}
            self.faults.judge(key, failing, digests, newest=self._newest)
            index, mix = (
                (self._index(key, model), self._mix_index(key, model)) if model and not failing else (None, None)
            )
            judgement = Judgement(checks=checks, index=index, mix=mix, model=model)
            sketch_digest = self._artifacts.put_json(key_sketch.document(), compressed=True)
            results[key] = judgement, judgement.notes(sketch_digest, was_faulty=key in self.faults.holds)
            self.faults.settle(key, self._before(key, self._spec.monitors.record_keys), newest=self._newest)
        return results

    def heal(self) -> None:
        """Request again the keys that were nulled and not judged since: the run that was to judge them may be gone."""
        for key, hold in self.faults.holds.items():
            record = self._judged.get(key)
            if hold.nulled_source and record and record.inputs.get(REQUEST_INPUT) != str(hold.number):
                self.faults.request_advance(key, newest=self._newest)

    def _digests(self, key: str) -> dict[str, str]:
        return {name: records[key].content_digest for name, records in self._validated.items() if key in records}

    def _sketch(self, key: str, rows: Mapping[str, pl.DataFrame]) -> KeySketch:
        sources: dict[str, SourceSketch] = {}
        for name, frame in rows.items():
            noted = notes.Validated.of(self._validated[name][key])
            source = self._spec.source(name)
            sources[name] = sketch.of_source(
                frame,
                unique=source.unique,
                quarantined=noted.rows_quarantined,
                repeated=noted.rows_repeated,
                content=source.content,
                statistics=None if source.statistics is None else source.statistics(frame),
            )
            if not noted.rows_in:
                record = self._tables.records(naming.stage("raw", name), [key]).get(key)
                raw = notes.Raw() if record is None else notes.Raw.of(record)
                sources[name] = replace(sources[name], is_missing=raw.is_missing, missing_why=raw.why or UNSET)
                if raw.unreadable:
                    sources[name] = replace(sources[name], is_missing=UNSET, unreadable=raw.unreadable)
        return KeySketch(sources=sources, rules=sketch.of_rules(self._spec.monitors.rules, rows))

    def _check(self, key: str, key_sketch: KeySketch, rows: int) -> tuple[faults.Check, ...]:
        """Check a key's sources, and its features only if no source is broken: they would just inherit the damage."""
        monitors, grain = self._spec.monitors, self._spec.grain
        past: list[faults.Past] = []  # the last accepted keys before this one
        for earlier in reversed(self._before(key, _HELD_BACK * monitors.record_keys)):
            accepted = None if self.faults.is_excluded(earlier) else self._sketch_of(earlier)
            if accepted is not None:
                hold = self.faults.holds.get(earlier)
                nulled = hold.nulled_source if hold else None
                sound = {name: item for name, item in accepted.sources.items() if name != nulled}
                past.append(faults.Past(phase=grain.index(earlier) % monitors.season, sources=sound))
            if len(past) == monitors.record_keys:
                break
        before = [self._sketch_of(earlier) for earlier in self._before(key, monitors.record_keys)]
        checks = faults.check(
            key_sketch.sources,
            key_sketch.rules,
            phase=grain.index(key) % monitors.season,
            record=past[::-1],
            before=[{} if earlier is None else earlier.sources for earlier in before],
            monitors=monitors,
        )
        put = cast("declared.PutAside", self._features[key].notes)
        awaits = notes.Features.of(self._features[key]).awaits
        awaits = {name: others for name, keys in awaits.items() if (others := [item for item in keys if item != key])}
        aside = undeclared_values.check(rows, put, monitors.max_quarantined_share)
        if aside is not None and not faults.failing(checks):
            checks = (aside, *checks)
        failing = faults.failing(checks)
        return (*failing, *faults.awaited(awaits), *(check for check in checks if not check.is_failing))

    def _index(self, key: str, model: Model) -> drift_index.Index | None:
        """Rank the features of the newest usable keys up to this one; see `_ranked`.

        A key's histograms on the model's bins come from the bundle or from its sketch, or are computed now.
        """

        def counts(candidate: str) -> Counts | None:
            if candidate == key:
                return self._sketches[key].histograms
            if candidate in model.reference.keys:
                return model.reference.histograms_of(candidate)
            stored = self._sketch_of(candidate)
            if stored is not None and stored.bins == model.bins:
                return stored.histograms
            record = self._tables.records(FEATURES, [candidate]).get(candidate)
            return None if record is None else histograms(self._feature_rows(record), model.learned)

        return self._ranked(key, model.reference, counts)

    def _mix_index(self, key: str, model: Model) -> drift_index.Index | None:
        """Rank the served answers of the newest usable keys up to this one; see `_ranked`."""

        def counts(candidate: str) -> Counts | None:
            stored = self._sketch_of(candidate)
            answered = stored.answers if stored else None
            if answered is None or answered.model != model.digest or answered.of != self._answered_rows(candidate):
                answered = self._answers(candidate, model)
            return None if answered is None else {MIX: answered.counts}

        mix = model.reference.mix
        return None if mix is None or counts(key) is None else self._ranked(key, mix, counts, is_floored=True)

    def _ranked(
        self, key: str, training: Reference, counts_of: Callable[[str], Counts | None], *, is_floored: bool = False
    ) -> drift_index.Index | None:
        """Rank the newest usable keys up to this one; None with too few keys now or in training."""
        monitors = self._spec.monitors
        width = monitors.drift_window
        usable = [
            candidate for candidate in self._before(key, _HELD_BACK * width) if not self.faults.is_excluded(candidate)
        ]
        window: dict[str, Counts] = {}
        for candidate in (key, *reversed(usable)):
            if len(window) < width and (counts := counts_of(candidate)) is not None:
                window = {candidate: counts, **window}
        training = training.without(candidate for candidate in training.keys if self.faults.is_excluded(candidate))
        rows = sum(sum(next(iter(counts.values()), ())) for counts in window.values())
        if len(window) < width or not rows or len(training.without(window).keys) <= width:
            return None
        return drift_index.index(
            window, training, limit=monitors.drift_limit, margin=monitors.margin, is_floored=is_floored
        )

    def _features_of(self, keys: tuple[str, ...]) -> dict[str, Rows]:
        """Return the features of keys: of all that can be held by one read."""
        large = {key: self._features[key] for key in keys if stage_inputs.is_large(self._features[key])}
        digests = {key: self._features[key].content_digest for key in keys if key not in large}
        held = by_key(self._tables.read_exact(FEATURES, digests), keys, FEATURES) if digests else {}
        return {**held, **{key: self._feature_rows(record) for key, record in large.items()}}

    def _feature_rows(self, record: PartitionRecord) -> Rows:
        return stage_inputs.rows(self._tables, record, {name: type_of(kind) for name, kind in record.columns.items()})

    def _answered_rows(self, key: str) -> int:
        """Count the answers given before the key was closed; later ones do not lead to a new count."""
        record = self._answered.get(key)
        return 0 if record is None else record.rows - notes.Predictions.of(record).late

    def _answers(self, key: str, model: Model) -> Answered | None:
        """Count a model's answers on a key in its own bins; None if it gave none.

        None also for a skewed key: with other features than ours, the answers say more about callers than about drift.
        """
        task, training = self._spec.task, model.reference
        record = self._answered.get(key)
        if record is None or not record.rows or training.task is None or not task.is_like(training.task):
            return None
        columns = [*task.answer_types(), "digest"]
        if set(columns) - set(record.columns):
            return None
        built = self._features.get(key) or self._tables.records(FEATURES, [key]).get(key)
        fields, limit = self._spec.fields, self._spec.monitors.min_equal_share
        _, _, rows, compared = counted_answers.choose(self._tables, record, built, fields, task, limit=limit)
        rows = rows.filter(pl.col("digest") == model.digest)
        if rows.is_empty() or compared.is_skewed:
            return None
        counts = task.mix(task.answers_of(rows), training.answer_edges)
        return Answered(model=model.digest, of=self._answered_rows(key), counts=counts)

    def _model_of(self, key: str) -> Model | None:
        """Return the model of the key's earlier judgement if the features are unchanged, otherwise the live one."""
        record = self._judged.get(key)
        if record is not None and record.inputs.get(FEATURES) == self._features[key].content_digest:
            digest = notes.Drift.of(record).reference
        else:
            live = self._history.live()
            digest = None if live is None else live[1].channels.live.digest
        if digest is not None and digest not in self._models:
            self._models[digest] = reference.read(self._artifacts, digest)  # None for one sealed without a reference
        return None if digest is None else self._models[digest]

    def _sketch_of(self, key: str) -> KeySketch | None:
        """Return a judged key's sketch; None for a key that is not judged."""
        if key not in self._sketches and key in self._judged:
            try:
                stored = self._artifacts.get(notes.Drift.of(self._judged[key]).sketch, compressed=True)
                self._sketches[key] = msgspec.json.decode(stored, type=KeySketch)
            except (ArtifactProblem, msgspec.ValidationError) as problem:
                raise ArtifactProblem(
                    f"the sketch of {self._spec.name} {key} cannot be read: {problem} Materialise "
                    f"{naming.stage(STAGE)} for {key}."
                ) from problem
        return self._sketches.get(key)

    def _before(self, key: str, count: int) -> tuple[str, ...]:
        return self._spec.grain.with_lookback((key,), count)[:-1]


def _stage(source: str) -> str:
    return naming.stage("validated", source)
