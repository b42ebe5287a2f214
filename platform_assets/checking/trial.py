"""Call a product's functions on a few keys of its own recording, and tell what they return.

Belongs here: one method a check, each returning facts or raising a sentence. Does not belong here: which checks there
are and in which order (`platform_assets.checking`), or what a row must be (`rows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from platform_assets import naming
from platform_assets.checking import rows
from platform_assets.checking.told import Problem, SampleTables, counted, file_of, own
from platform_assets.compute import landed, validate
from platform_assets.compute.features import KNOWN_AT, known_by
from platform_assets.specs.base import History, ProductSpec, Source, Window

if TYPE_CHECKING:
    import pandera.polars as pa

LABELLED = ["key", "entity", "label", "known_at"]
SAMPLE = 2
"""How many keys features are built for: the last ones whose labels the recording's first cutoff sees."""
_WHENEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Trial:
    """The functions of one product, called on a few keys of its recording."""

    def __init__(self, spec: ProductSpec, history: History) -> None:
        self.spec, self.history, self.file = spec, history, file_of(spec.name)
        self.cutoff = spec.grain.index(history.demo_last) + 1
        first, last = spec.grain.index(history.demo_first), self.cutoff - 1 - spec.label_delay
        self.labelled_keys = tuple(spec.grain.key_at(place) for place in range(first, last + 1))
        self.window = Window(grain=spec.grain, keys=self.labelled_keys[-SAMPLE:])
        self.tables: dict[str, pl.DataFrame] = {}
        self.built, self.labelled = pl.DataFrame(), pl.DataFrame()

    def keys(self) -> str:
        """Count the keys that the first cutoff of the recording may learn from."""
        spec, count = self.spec, len(self.labelled_keys)
        kept = count if spec.window is None else min(count, spec.window - spec.label_delay)
        if kept < spec.min_keys:
            raise Problem(
                f"the first cutoff of {spec.name} has {kept} labelled keys before it; min_keys is {spec.min_keys}. Set "
                f"history.demo_last later, or mend window or min_keys in {self.file}."
            )
        return f"{kept} labelled before the first cutoff ({spec.min_keys} needed), the last {spec.holdout} held out"

    def source(self, source: Source) -> str:
        """Read and validate a source's files: all of the labels, and what the sample of keys looks back on."""
        spec, schema = self.spec, schema_of(self.spec, source)
        keys = spec.grain.with_lookback(self.window.keys, spec.lookback)
        keys = (naming.UNPARTITIONED,) if source.is_slow else self.labelled_keys if source.is_label else keys
        files = {key: own(spec, "deliver", self.history.deliver, source.name, key) for key in keys}
        raws = {
            key: landed.rows(data, columns=list(schema.columns), arrived_at_utc=_WHENEVER, read=source.read)
            for key, data in files.items()
            if data is not None
        }
        if not raws:
            raise Problem(f"deliver() of {spec.name} delivers no file of {source.name}, {keys[0]} to {keys[-1]}.")
        splits = validate.split_keys(
            raws,
            schema,
            schema_version=source.schema_version,
            unique=source.unique,
            key_of=validate.key_column(source.partition_by, spec.grain.key_of) if source.partition_by else None,  # type: ignore[attr-defined]  # a spec with partition_by has a timed grain
        )
        good = pl.concat(split.good.with_columns(pl.lit(key).alias("key")) for key, split in splits.items())
        bad = pl.concat(split.quarantined for split in splits.values())
        reason = "" if bad.is_empty() else f"; most often: {bad['reason'].value_counts(sort=True)['reason'][0]}"
        if bad.height > spec.monitors.max_quarantined_share * (good.height + bad.height) or good.is_empty():
            raise Problem(
                f"{bad.height:,} of {good.height + bad.height:,} rows of {source.name} are refused{reason}. Mend the "
                f"source's schema or deliver() in {self.file}."
            )
        self.tables[source.name] = good
        return f"{counted(len(raws), 'file')}, {counted(good.height, 'row')} good, {bad.height:,} quarantined{reason}"

    def features(self) -> str:
        """Build the sample's rows and hold them against the declared fields."""
        self.built = self._checked(self.window)
        return f"{counted(self.built.height, 'row')} of {' and '.join(self.window.keys)}, as the fields declare"

    def alone(self) -> str:
        """Build the last key alone: what differs reads more than `lookback` keys back, or other rows of the window."""
        key = self.window.keys[-1]
        one = Window(grain=self.spec.grain, keys=(key,))
        self._compare(
            self.built.filter(pl.col("key") == key),
            self._checked(one),
            f"built alone {key} is not what it is beside other keys; raise lookback (it is {self.spec.lookback}), or "
            "read nothing of the window's other rows",
        )
        return f"{key} alone is the same, from {counted(self.spec.lookback, 'key')} before it"

    def point_in_time(self) -> str:
        """Blank what became known after some rows' moments and build again: nothing may change."""
        asked = self.built["asked_at"].unique().sort()
        names = [source.name for source in self.spec.feature_sources]
        blanked = 0
        for moment in sorted({asked[0], asked[len(asked) // 2], asked[-1]}):
            stood = {name: self._stood(name, moment) for name in names}
            blanked += sum(_facts(self.tables[name]) - _facts(stood[name]) for name in names)
            until = pl.col("asked_at") <= moment
            self._compare(
                self.built.filter(until),
                self._features(self.window, stood).filter(until),
                f"features() of {self.spec.name} reads what was not known at {moment.isoformat()}, when its rows are "
                "asked",
            )
        if not blanked:
            return "nothing became known after these rows were asked, so there was nothing to blank"
        return f"nothing changes when what was known later is blanked ({blanked:,} cells)"

    def label(self) -> str:
        """Label all keys of the recording that the first cutoff sees."""
        spec, task = self.spec, self.spec.task
        self.labelled = own(spec, "label", spec.label, self.tables[spec.label_source.name])
        if self.labelled.columns != LABELLED:
            raise Problem(f"label() of {spec.name} returns {self.labelled.columns}; expected {LABELLED}. {self._mend}")
        rows.check_entities(self.labelled, f"label() of {spec.name}", self._mend)
        kept = self.labelled.drop_nulls("label")
        values = kept["label"].unique()
        if len(values) < 2:
            found = f"the value {values[0]} in all {kept.height:,} rows" if len(values) else "no value at all"
            raise Problem(
                f"the label of {spec.name} takes {found} of {len(self.labelled_keys)} keys; expected at least two "
                f"values, or nothing can be learned. Mend label(), or record more keys, in {self.file}."
            )
        task.check_labels(task.labels_of(kept["label"]))
        if (count := kept["key"].n_unique()) < spec.min_keys:
            raise Problem(f"{count} keys of {spec.name} have a label; min_keys is {spec.min_keys}. {self._mend}")
        told = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in task.summary(self.labelled["label"]).items()
        )
        return f"{kept.height:,} of {counted(self.labelled.height, 'row')} have one: {told}"

    def entities(self) -> str:
        """Hold the labels against the rows that they are about."""
        mine = self.labelled.filter(pl.col("key").is_in(self.window.keys)).drop_nulls("label")
        both = mine.join(self.built, on=["key", "entity"])
        if both.is_empty():
            raise Problem(
                f"none of the {mine.height:,} labelled entities of {' and '.join(self.window.keys)} is among those of "
                f"features(), such as {self.built['entity'][0]!r}. Let features() and label() name entities and keys "
                f"alike in {self.file}."
            )
        later = both.filter(pl.col("known_at") > pl.col("asked_at")).height
        return (
            f"{both.height / mine.height:.1%} of the labelled ones have features; {later:,} labels came after the ask"
        )

    def model(self) -> str:
        """Build the network on the sample's rows and look at what it answers."""
        import torch

        from platform_assets.compute import learn, matrix

        spec, task = self.spec, self.spec.task
        target = task.target_of(task.labels_of(self.labelled["label"].drop_nulls()))
        inputs = matrix.inputs_of(self.built, spec.fields)
        learned = learn.learn(inputs, spec.fields, target=target)
        network = own(spec, "model", spec.model, learned, spec.training).eval()
        given = [torch.from_numpy(inputs.numeric), torch.from_numpy(learn.codes(learned, inputs.categorical))]
        given += [] if inputs.image is None else [torch.from_numpy(inputs.image.copy())]
        with torch.no_grad():
            shape = tuple(own(spec, "model", network, *given).shape)
        if shape != (len(inputs), task.outputs):
            raise Problem(
                f"the network of {spec.name} answers {len(inputs)} rows with shape {shape}; expected "
                f"{(len(inputs), task.outputs)}: {task.outputs} numbers a row for a {task.kind} task. Mend model() in "
                f"{self.file}, for instance TabularNet(..., outputs={task.outputs})."
            )
        return (
            f"{sum(each.numel() for each in network.parameters()):,} weights, {counted(task.outputs, 'output')} a row"
        )

    @property
    def _mend(self) -> str:
        return f"Mend it in {self.file}."

    def _features(self, window: Window, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        reach = self.spec.grain.with_lookback(window.keys, self.spec.lookback)
        seen = {
            source.name: tables[source.name]
            if source.is_slow
            else tables[source.name].filter(pl.col("key").is_in(reach))
            for source in self.spec.feature_sources
        }
        return own(self.spec, "features", self.spec.features, SampleTables(self.spec, seen), window)

    def _checked(self, window: Window) -> pl.DataFrame:
        built = self._features(window, self.tables)
        rows.check_rows(built, self.spec.fields, f"features() of {self.spec.name}", self._mend)
        rows.check_keys(built, window.grain, window.keys, f"features() of {self.spec.name}", self._mend)
        return built

    def _stood(self, name: str, moment: datetime) -> pl.DataFrame:
        source, table = self.spec.source(name), known_by(self.tables[name], moment)
        if source.known_at is not None and not source.known_at.endswith(KNOWN_AT):
            table = table.filter(pl.col(source.known_at) <= moment)
        return table

    def _compare(self, one: pl.DataFrame, other: pl.DataFrame, words: str) -> None:
        who = list(rows.ABOUT)
        if not one.select(who).equals(other.select(who)):
            raise Problem(f"{words}: other entities, or in another order. {self._mend}")
        for name in one.columns:
            if (differs := one[name].ne_missing(other[name])).any():
                row = differs.arg_max() or 0
                raise Problem(
                    f"{words}: {name!r} changes in {differs.sum():,} of {one.height:,} rows, "
                    f"for {one['entity'][row]!r} from {one[name][row]!r} to {other[name][row]!r}. {self._mend}"
                )


def schema_of(spec: ProductSpec, source: Source) -> pa.DataFrameSchema:
    """Return a source's schema; raise `ValueError` for one that fails, or lacks a column that the source names."""
    own(spec, source.schema.__name__, source.schema)
    return source.columns()


def _facts(table: pl.DataFrame) -> int:
    return table.height * table.width - int(table.null_count().sum_horizontal()[0])
