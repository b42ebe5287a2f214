"""Measure what was answered against what came true: the joined rows of a key, its numbers and those of its window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from msgspec.structs import replace

from platform_assets.compute import answers, ingest
from platform_assets.history.performance import measured
from platform_assets.makers import counted
from platform_assets.makers.own_answers import OwnAnswers
from platform_assets.makers.parts import Made
from platform_assets.makers.performance_inputs import OWN, PERFORMANCE, Known, keys_before
from platform_assets.makers.reading import read

if TYPE_CHECKING:
    from platform_assets.compute.tasks import Task
    from platform_assets.keys import Grain
    from platform_assets.product.fields import Field
    from platform_assets.records.performance import Compared, Promised
    from platform_assets.specs.base import ProductSpec
    from platform_assets.storage.artifacts import ArtifactStore
    from platform_assets.storage.tables import PartitionRecord, TableStore

__all__ = ["OWN", "Known", "Measuring", "keys_before"]


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Measures keys; the members are those of `ProductSpec` and its parts.

    Attributes:
        label: the source that brings the labels.
        window: labelled keys that quality is measured over (`Retraining.performance_window`).
        min_equal_share: see `Monitors`.
        confidence: of intervals, see `Gates`.
    """

    grain: Grain
    lookback: int
    label: str
    fields: tuple[Field, ...]
    task: Task
    slices: tuple[str, ...]
    window: int
    min_equal_share: float
    confidence: float

    @staticmethod
    def of(spec: ProductSpec) -> Measuring:
        """Return what measures a product."""
        return Measuring(
            grain=spec.grain,
            lookback=spec.lookback,
            label=spec.label_source.name,
            fields=spec.bare_fields,
            task=spec.task,
            slices=spec.slices,
            window=spec.retraining.performance_window,
            min_equal_share=spec.monitors.min_equal_share,
            confidence=spec.gates.confidence,
        )

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The columns of joined rows."""
        types = ingest.schema(self.fields, self.task)
        return {**answers.columns(self.task), **{name: types[name] for name in self.slices}}

    def own_answers(self, artifacts: ArtifactStore) -> OwnAnswers:
        """Return what asks bundles about our own features."""
        return OwnAnswers(self, artifacts)

    def make(
        self, tables: TableStore, known: Known, stale: tuple[str, ...], own: OwnAnswers
    ) -> tuple[Made, dict[str, pl.DataFrame]]:
        """Return the joined rows of keys with their numbers, and those of the newest key's window by key."""
        from platform_assets.compute import performance as computed

        joined, compared = {}, {}
        for key in stale:
            kept, ours, compared[key] = self._counted(tables, known, key, own)
            joined[key] = answers.join(kept, self._outcomes(tables, known, key), ours, self.slices, self.task)
        window_keys = {key: self._window_keys(known, key, joined) for key in stale}
        stored = {each for keys in window_keys.values() for each in keys} - set(joined)
        records = {key: known.records[PERFORMANCE][key] for key in sorted(stored)}
        rows = self.stored(tables, records) | joined
        notes, by_key = {}, dict[str, pl.DataFrame]()
        for key in stale:
            by_key = {each: rows[each] for each in window_keys[key]}
            numbers = computed.measure(joined[key], self.task)
            window = computed.window(by_key, numbers.digest, self.task, confidence=self.confidence)
            notes[key] = replace(numbers, window=window, skew=compared[key]).document()
        return Made(frames=joined, notes=notes), by_key

    def of_model(self, tables: TableStore, key: str, digest: str) -> Promised | None:
        """Return how one bundle does against what its answers promise over the window that ends at a key.

        For whoever decides about a bundle that is not the one that gave most of the key's answers. See
        `compute.performance.against_itself`; None when none of its answers in the window has a label.
        """
        from platform_assets.compute import performance as computed

        rows = self.window_rows(tables, key)
        return computed.against_itself(rows, digest, self.task, confidence=self.confidence)

    def window_rows(self, tables: TableStore, key: str) -> dict[str, pl.DataFrame]:
        """Return the joined rows of the window that ends at a key, by key; for calibration and slices in a report."""
        record = tables.records(PERFORMANCE, [key]).get(key)
        window = measured(record).window if record else None
        keys = window.key_names if window else []
        return dict(sorted(self.stored(tables, tables.records(PERFORMANCE, keys)).items()))

    def stored(self, tables: TableStore, records: Mapping[str, PartitionRecord]) -> dict[str, pl.DataFrame]:
        """Return joined rows by key, without answers of another kind, which the product's task was once."""
        found = read(tables, PERFORMANCE, records, self.columns)
        return {key: rows.drop_nulls(list(self.task.said_types())) for key, rows in found.items()}

    def _outcomes(self, tables: TableStore, known: Known, key: str) -> pl.DataFrame | None:
        record = known.records["outcomes"].get(key)
        columns = {"entity": pl.String(), "label": self.task.label_type()}
        return None if record is None else read(tables, "outcomes", {key: record}, columns)[key]

    def _counted(
        self, tables: TableStore, known: Known, key: str, own: OwnAnswers
    ) -> tuple[pl.DataFrame, pl.DataFrame | None, Compared]:
        """Return the answers by which a key is measured, our features, and how the served ones compare with them."""
        answered, built = known.records["predictions"][key], known.records["features"].get(key)
        given, ours = counted.read(tables, answered, built, self.fields, self.task)
        why_not = known.not_compared(key)
        rows, told = counted.choose(given, ours, self.fields, limit=self.min_equal_share, why_not=why_not)
        if ours is None or not told.is_skewed:
            return rows, ours, told
        at_our_moments = answers.counted(given, ours, self.fields, is_compared=False)
        asked = answers.digests(at_our_moments) or answers.digests(given)
        scored, left_out = own.to(ours, asked)
        kept = [each for each in asked if each not in left_out]
        told = replace(told, own_answers=kept, not_scored=list(left_out.values()))
        return (scored if scored.height else rows), ours, told

    def _window_keys(self, known: Known, key: str, joined: Mapping[str, pl.DataFrame]) -> list[str]:
        """Return the last labelled keys up to this one that are not held, oldest first."""

        def has_labels(each: str) -> bool:
            if each in known.out:
                return False
            if each in joined:
                return answers.main_rows(joined[each]).height > 0
            record = known.records[PERFORMANCE].get(each)
            return record is not None and measured(record).quality is not None

        candidates = [each for each in (*keys_before(self, key), key) if has_labels(each)]
        return candidates[-self.window :]
