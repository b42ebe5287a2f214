"""Measure answers against outcomes: a key's joined rows, its own numbers, and those of its trailing window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import polars as pl
from msgspec.structs import replace

from platform_assets.data import answer_rows
from platform_assets.data.rows import about
from platform_assets.data.stage_inputs import read
from platform_assets.engine.outputs import StageOutput
from platform_assets.monitoring import answers, counted_answers
from platform_assets.monitoring.measured_product import MeasuredProduct
from platform_assets.monitoring.own_answers import OwnAnswers
from platform_assets.monitoring.performance_inputs import PERFORMANCE, KeyRecords
from platform_assets.store.history.reader import Faults
from platform_assets.store.records.notes import measured

if TYPE_CHECKING:
    from platform_assets.evaluation.measures.base import Measures
    from platform_assets.product.spec import Product
    from platform_assets.store.artifacts import ArtifactStore
    from platform_assets.store.records.performance import Promised
    from platform_assets.store.tables import PartitionRecord, TableStore


@dataclass(frozen=True, kw_only=True)
class Measuring(MeasuredProduct):
    """Measures a product's keys."""

    CARRIERS: ClassVar[tuple[object, ...]] = (Faults, KeyRecords)

    @staticmethod
    def for_product(spec: Product, measures: Measures) -> Measuring:
        """Return the maker for a product, with the measures of its task."""
        return Measuring(
            grain=spec.grain,
            lookback=spec.lookback,
            label=spec.label_source.name,
            fields=spec.bare_fields,
            task=spec.task,
            measures=measures,
            slices=spec.slices,
            window=spec.retraining.performance_window,
            min_equal_share=spec.monitors.min_equal_share,
            confidence=spec.gates.confidence,
        )

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The columns of joined rows."""
        types = answer_rows.schema(self.fields, self.task)
        return {**answers.columns(self.task), **{name: types[name] for name in self.slices}}

    def own_answers(self, artifacts: ArtifactStore) -> OwnAnswers:
        """Return the scorer of our own features."""
        return OwnAnswers(self, artifacts)

    def make(
        self, tables: TableStore, key_records: KeyRecords, stale: tuple[str, ...], scorer: OwnAnswers
    ) -> tuple[StageOutput, dict[str, pl.DataFrame]]:
        """Return the joined rows and numbers of stale keys, and the rows of the newest key's window by key."""
        from platform_assets.monitoring import measured as computed

        joined, compared = dict[str, pl.DataFrame](), {}
        labels = {"entity": pl.String(), "label": self.task.label_type()}
        for key in stale:
            answered, built = key_records.records["predictions"][key], key_records.records["features"].get(key)
            served, ours, rows, compared[key] = counted_answers.choose(
                tables,
                answered,
                built,
                self.fields,
                self.task,
                limit=self.min_equal_share,
                slices=self.slices,
                not_compared=key_records.not_compared(key),
            )
            if ours is not None and compared[key].is_skewed:
                at_our_moments = answers.select(served, ours, self.fields, is_compared=False)
                digests = answers.digests(at_our_moments) or answers.digests(about(served))
                scored, left_out = scorer.score(ours.select(ours.columns), digests)
                usable = [digest for digest in digests if digest not in left_out]
                compared[key] = replace(compared[key], own_answers=usable, not_scored=list(left_out.values()))
                rows = scored if scored.height else rows
            record = key_records.records["outcomes"].get(key)
            outcomes = None if record is None else read(tables, "outcomes", {key: record}, labels)[key]
            joined[key] = answers.join(rows, outcomes, ours, self.slices, self.task)
        window_keys = {key: self._window_keys(key_records, key, joined) for key in stale}
        earlier = {name for keys in window_keys.values() for name in keys} - set(joined)
        window_records = {key: key_records.records[PERFORMANCE][key] for key in sorted(earlier)}
        by_window_key = self.stored(tables, window_records) | joined
        notes, by_key = {}, dict[str, pl.DataFrame]()
        for key in stale:
            by_key = {name: by_window_key[name] for name in window_keys[key]}
            numbers = computed.measure(joined[key], self.measures)
            window = computed.window(by_key, numbers.digest, self.measures, confidence=self.confidence)
            notes[key] = replace(numbers, window=window, skew=compared[key]).document()
        return StageOutput(frames=joined, notes=notes), by_key

    def of_model(self, tables: TableStore, key: str, digest: str) -> Promised | None:
        """Test one bundle against its own answers over the window that ends at a key.

        For decisions about a bundle other than the one that gave most of the key's answers. See
        `monitoring.measured.assess_bundle`; None if none of its answers in the window has a label.
        """
        from platform_assets.monitoring import measured as computed

        record = tables.records(PERFORMANCE, [key]).get(key)
        window = measured(record).window if record else None
        keys = window.key_names if window else []
        rows = dict(sorted(self.stored(tables, tables.records(PERFORMANCE, keys)).items()))
        return computed.assess_bundle(rows, digest, self.measures, confidence=self.confidence)

    def stored(self, tables: TableStore, records: Mapping[str, PartitionRecord]) -> dict[str, pl.DataFrame]:
        """Load joined rows by key, without answers of another kind (the product's task may have changed)."""
        frames = read(tables, PERFORMANCE, records, self.columns)
        return {key: rows.drop_nulls(list(self.task.answer_types())) for key, rows in frames.items()}

    def _window_keys(self, key_records: KeyRecords, key: str, joined: Mapping[str, pl.DataFrame]) -> list[str]:
        """Return the last labelled, unheld keys up to this one, oldest first."""

        def has_labels(name: str) -> bool:
            if name in key_records.out:
                return False
            if name in joined:
                return answers.main_rows(joined[name]).height > 0
            record = key_records.records[PERFORMANCE].get(name)
            return record is not None and measured(record).quality is not None

        candidates = [name for name in (*self.keys_before(key), key) if has_labels(name)]
        return candidates[-self.window :]
