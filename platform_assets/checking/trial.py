"""Call a product's functions on a few keys of its recording or of what has landed, and tell what they return.

Belongs here: one method a check, each returning facts or raising a sentence. Does not belong here: which checks there
are and in which order (`platform_assets.checking`), or what rows, files, requests and monitors must be (the modules
beside this one).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from platform_assets import naming
from platform_assets.checking import files, monitored, reach, requests, rows, same
from platform_assets.checking.deliveries import Deliveries
from platform_assets.checking.told import (
    Problem,
    SampleTables,
    Skipped,
    another,
    counted,
    file_of,
    mend_of,
    own,
    own_frame,
)
from platform_assets.compute import declared
from platform_assets.compute.features import KNOWN_AT, known_by
from platform_assets.specs.base import ProductSpec, Source, Window

LABELLED = ["key", "entity", "label", "known_at"]
SAMPLE = 2
"""How many keys features are built for: the last ones whose labels are there."""
AT_ONCE = 16
"""How many keys are built together where all are: a year of rows need not be held at once."""


class Trial:
    """The functions of one product, called on a few keys of its recording, or of what has landed."""

    def __init__(self, spec: ProductSpec, given: Deliveries) -> None:
        self.spec, self.given, self.file = spec, given, file_of(spec.name)
        self.labelled_keys = given.labelled
        newest = given.labelled[-1] if given.labelled else given.keys[-1]
        self.at_hand = given.keys[: given.keys.index(newest) + 1]
        self.window = Window(grain=spec.grain, keys=self.at_hand[-SAMPLE:])
        self.tables: dict[str, pl.DataFrame] = {}
        self.longer: dict[str, pl.DataFrame] | None = None
        self.built, self.labelled = pl.DataFrame(), pl.DataFrame()

    def keys(self) -> str:
        """Count the keys that a first training may learn from."""
        spec, count = self.spec, len(self.labelled_keys)
        kept = count if spec.window is None else min(count, spec.window - spec.label_delay)
        if kept < spec.min_keys and not self.given.is_recorded:
            raise Skipped(f"{kept} labelled keys have landed; a training needs {spec.min_keys} (min_keys)")
        if kept < spec.min_keys:
            raise Problem(
                f"the first cutoff of {spec.name} has {kept} labelled keys before it; min_keys is {spec.min_keys}. Set "
                f"history.demo_last later, or mend window or min_keys in {self.file}."
            )
        where = "before the first cutoff" if self.given.is_recorded else "have landed"
        return f"{kept} labelled {where} ({spec.min_keys} needed), the last {spec.holdout} held out"

    def source(self, source: Source) -> str:
        """Read and validate a source's files: all of the labels, and what the sample of keys looks back on."""
        if source in self.given.absent:
            files.schema_of(self.spec, source)
            place = self.spec.channel(source, "").cite().lstrip("/")
            raise Skipped(f"no file of these keys is in {place}; only its schema was checked")
        keys = self.spec.grain.with_lookback(self.window.keys, self.spec.lookback)
        keys = (naming.UNPARTITIONED,) if source.is_slow else self.labelled_keys if source.is_label else keys
        good, told = files.read(self.spec, self.given, source, keys)
        self.tables[source.name] = good
        return told + monitored.check_statistics(self.spec, source, good)

    def rules(self) -> str:
        """Apply the rules between sources to the sample's keys."""
        return monitored.check_rules(self.spec, self.tables, self.window.keys)

    def slices(self) -> str:
        """Group the sample's rows by each slice."""
        return monitored.check_slices(self.spec, self.built)

    def requests(self) -> str:
        """Ask the service about the sample's rows."""
        return requests.check_requests(self.spec, self.built)

    def features(self) -> str:
        """Build the sample's rows and hold them against the declared fields."""
        self.built = self._checked(self.window, self.tables)
        return f"{counted(self.built.height, 'row')} of {' and '.join(self.window.keys)}, as the fields declare"

    def every_key(self) -> str:
        """Build all keys at hand, a few at a time, and hold their rows against the declared fields."""
        keys, rows = self._keys_at_hand(), 0
        if self.spec.grain.index(keys[0]):  # before the first of them are more, which are not at hand
            keys = keys[max(0, min(self.spec.lookback, len(keys) - SAMPLE)) :]
        for place in range(0, len(keys), AT_ONCE):
            window = Window(grain=self.spec.grain, keys=keys[place : place + AT_ONCE])
            rows += self._checked(window, self._all_tables()).height
        return f"{counted(rows, 'row')} of {counted(len(keys), 'key')}, {keys[0]} to {keys[-1]}, as the fields declare"

    def alone(self) -> str:
        """Build keys alone from `lookback` keys: neither a longer history nor a window's other rows change them."""
        key, lookback = self.window.keys[-1], self.spec.lookback
        said = reach.check_reach(self.spec, self._alone, self._keys_at_hand())
        words = (
            f"built alone {key} is not what it is with other keys in the window; raise lookback (it is {lookback}), or "
            "read nothing of the window's other rows"
        )
        again = self._checked(Window(grain=self.spec.grain, keys=(key,)), self.tables)
        same.check_columns(self.built, again, words, self._mend)
        same.check_cells(self.built.filter(pl.col("key") == key), again, words, self._mend)
        if said is None:
            raise Skipped(
                f"{key} alone is the same as in a window; whether features() reads farther back than "
                f"{counted(lookback, 'key')} cannot be tried, because no key here has more before it"
            )
        return said

    def point_in_time(self) -> str:
        """Blank what became known after some rows' moments and build again: nothing may change."""
        asked = self.built["asked_at"].unique().sort()
        names = [source.name for source in self.spec.feature_sources]
        blanked = 0
        for moment in sorted({asked[0], asked[len(asked) // 2], asked[-1]}):
            stood = {name: self._stood(name, moment) for name in names}
            blanked += sum(_facts(self.tables[name]) - _facts(stood[name]) for name in names)
            until = pl.col("asked_at") <= moment
            words = (
                f"features() of {self.spec.name} reads what was not known at {moment.isoformat()}, when its rows are "
                "asked"
            )
            again = self._features(self.window, stood)
            same.check_columns(self.built, again, words, self._mend)
            same.check_cells(self.built.filter(until), again.filter(until), words, self._mend)
        if not blanked:
            return "nothing became known after these rows were asked, so there was nothing to blank"
        return f"nothing changes when what was known later is blanked ({blanked:,} cells)"

    def label(self) -> str:
        """Label all keys whose labels are there."""
        spec, task = self.spec, self.spec.task
        self.labelled = own_frame(spec, "label()", spec.label, self.tables[spec.label_source.name])
        if self.labelled.columns != LABELLED:
            raise Problem(f"label() of {spec.name} returns {self.labelled.columns}; expected {LABELLED}. {self._mend}")
        rows.check_entities(self.labelled, f"label() of {spec.name}", self._mend)
        kept = self.labelled.drop_nulls("label")
        if kept.schema["known_at"] != rows.MOMENT or kept["known_at"].null_count():
            raise Problem(
                f"label() of {spec.name}: 'known_at' is {rows.described(kept['known_at'])}; expected moments in UTC, "
                f"microseconds ({rows.MOMENT!r}), one beside each label. {self._mend}"
            )
        values, is_short = kept["label"].unique(), self._is_short()
        if len(values) < 2 and not is_short:
            found = f"the value {values[0]} in all {kept.height:,} rows" if len(values) else "no value at all"
            raise Problem(
                f"the label of {spec.name} takes {found} of {len(self.labelled_keys)} keys; expected at least two "
                f"values, or nothing can be learned. Mend label(), or record more keys, in {self.file}."
            )
        if kept.schema["label"] != task.label_type():
            raise Problem(
                f"label() of {spec.name}: 'label' is {kept.schema['label']}; a {task.kind} task takes "
                f"{task.label_type()}. Cast it, or mend task. {self._mend}"
            )
        task.check_labels(task.labels_of(kept["label"]))
        if (count := kept["key"].n_unique()) < spec.min_keys and not is_short:
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
        if (both["known_at"] < both["asked_at"]).all():
            raise Problem(
                f"all {counted(both.height, 'label')} of {' and '.join(self.window.keys)} are known before their rows "
                "are asked, so there is nothing to predict; expected a later `known_at`. Fix known_at in label(), or "
                f"asked_at in features(), in {self.file}."
            )
        return (
            f"{both.height / mine.height:.1%} of the labelled ones have features; {later:,} labels came after the ask"
        )

    def model(self) -> str:
        """Build the network on the sample's rows and look at what it answers."""
        import torch

        from platform_assets.compute import learn, matrix

        spec, task = self.spec, self.spec.task
        if self.labelled["label"].drop_nulls().n_unique() < 2:
            raise Skipped("cannot be tried: the labels that have landed say one thing, of which nothing can be learned")
        target = task.target_of(task.labels_of(self.labelled["label"].drop_nulls()))
        inputs = matrix.inputs_of(self.built, spec.fields)
        learned = learn.learn(inputs, spec.fields, target=target)
        network: object = own(spec, "model()", spec.model, learned, spec.training)
        if not isinstance(network, torch.nn.Module):
            raise another(spec, "model()", network, "a torch.nn.Module, such as compute.nets.TabularNet")
        own(spec, "the network", network.eval)
        given = [torch.from_numpy(inputs.numeric), torch.from_numpy(learn.codes(learned, inputs.categorical))]
        given += [] if inputs.image is None else [torch.from_numpy(inputs.image.copy())]
        with torch.no_grad():
            answer: object = own(spec, "the network", network, *given)
        if not isinstance(answer, torch.Tensor):
            raise another(spec, "the network", answer, f"one Tensor, {task.outputs} numbers a row")
        shape = tuple(answer.shape)
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
        return mend_of(self.spec)

    def _is_short(self) -> bool:
        """Tell whether fewer labels have landed than a training needs; a recording must have enough."""
        return not self.given.is_recorded and len(self.labelled_keys) < self.spec.min_keys

    def _keys_at_hand(self) -> tuple[str, ...]:
        """Return the newest keys, as many as a much longer history takes."""
        return self.at_hand[-max(reach.MOST_KEYS, 2 * (self.spec.lookback + 1)) :]

    def _all_tables(self) -> dict[str, pl.DataFrame]:
        """Return the tables with the good rows of all keys at hand; read once, in place of the sample's."""
        if self.longer is None:
            sampled = set(self.spec.grain.with_lookback(self.window.keys, self.spec.lookback))
            older = [key for key in self._keys_at_hand() if key not in sampled]
            self.longer = {
                source.name: pl.concat([files.good(self.spec, self.given, source, older), self.tables[source.name]])
                if older and not source.is_slow
                else self.tables[source.name]
                for source in self.spec.feature_sources
            }
        return self.longer

    def _alone(self, key: str, count: int) -> pl.DataFrame:
        """Build one key from `count` keys before it."""
        return self._features(Window(grain=self.spec.grain, keys=(key,)), self._all_tables(), count)

    def _features(
        self, window: Window, tables: Mapping[str, pl.DataFrame], lookback: int | None = None
    ) -> pl.DataFrame:
        seen = self._seen(window, tables, self.spec.lookback if lookback is None else lookback)
        return own_frame(
            self.spec,
            "features()",
            self.spec.features,
            SampleTables(self.spec.name, self.spec.label_source.name, seen),
            window,
        )

    def _seen(self, window: Window, tables: Mapping[str, pl.DataFrame], lookback: int) -> dict[str, pl.DataFrame]:
        keys = self.spec.grain.with_lookback(window.keys, lookback)
        return {
            source.name: tables[source.name]
            if source.is_slow
            else tables[source.name].filter(pl.col("key").is_in(keys))
            for source in self.spec.feature_sources
        }

    def _checked(self, window: Window, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        built, whose = self._features(window, tables), f"features() of {self.spec.name}"
        incomplete = declared.incomplete(self.spec, self._seen(window, tables, self.spec.lookback), window.keys)
        rows.check_rows(built, self.spec.fields, whose, self._mend, incomplete=incomplete)
        rows.check_keys(built, window.grain, window.keys, whose, self._mend)
        return built

    def _stood(self, name: str, moment: datetime) -> pl.DataFrame:
        source, table = self.spec.source(name), known_by(self.tables[name], moment)
        if source.known_at is not None and not source.known_at.endswith(KNOWN_AT):
            table = table.filter(pl.col(source.known_at) <= moment)
        return table


def _facts(table: pl.DataFrame) -> int:
    return table.height * table.width - int(table.null_count().sum_horizontal()[0])
