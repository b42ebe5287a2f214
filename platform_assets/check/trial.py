"""Call a product's functions on a few keys of its recording, or of landed files: one method per check.

A method returns a summary for the check's line, or raises what is wrong.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

import polars as pl

from platform_assets.base import naming
from platform_assets.base.wording import counted, span
from platform_assets.check import files, fitted, known_at, leaks, monitored, reach, rows, same
from platform_assets.check.deliveries import Deliveries
from platform_assets.check.messages import (
    Note,
    Problem,
    SampleTables,
    Skipped,
    call,
    call_for_frame,
    file_of,
    fix_in,
    wrong_type,
)
from platform_assets.data import declared
from platform_assets.product.spec import MultiClass, Product, Source, Tables, Window
from platform_assets.store import landing
from platform_assets.training import matrix, suspects
from platform_assets.training.learners.network import Network, learner_of

Features: TypeAlias = Callable[[Tables, Window], pl.DataFrame]
LABELLED = ["key", "entity", "label", "known_at"]
SAMPLE = 2
"""How many keys features are built for: the last ones with labels."""
AT_ONCE = 16
"""How many keys are built together when all are built, so that a year of rows is not in memory at once."""


class Trial:
    """The functions of one product, called on a few keys of its recording, or of landed files."""

    def __init__(self, spec: Product, available: Deliveries) -> None:
        self.spec, self.available, self.file = spec, available, file_of(spec.name)
        self.labelled_keys = available.labelled
        newest = available.labelled[-1] if available.labelled else available.keys[-1]
        self.available_keys = available.keys[: available.keys.index(newest) + 1]
        self.window = Window(grain=spec.grain, keys=self.available_keys[-SAMPLE:])
        self.tables: dict[str, pl.DataFrame] = {}
        self.longer: dict[str, pl.DataFrame] | None = None
        self.built, self.labelled = pl.DataFrame(), pl.DataFrame()
        self.all_built = list[pl.DataFrame]()

    def keys(self) -> str:
        """Count the keys that a first training may learn from."""
        spec, count = self.spec, len(self.labelled_keys)
        usable = count if spec.window is None else min(count, spec.window - spec.label_delay)
        if usable < spec.min_keys and not self.available.is_recorded:
            raise Skipped(f"labels of {counted(usable, 'key')} have landed; min_keys is {spec.min_keys}")
        if usable < spec.min_keys:
            raise Problem(
                f"the first cutoff of {spec.name} has {usable} labelled keys before it; min_keys is {spec.min_keys}. "
                f"Set history.demo_last later, or change window or min_keys in {self.file}."
            )
        where = "before the first cutoff" if self.available.is_recorded else "have landed"
        needed = f"{spec.min_keys} needed; the last {spec.holdout} are the holdout"
        return f"{counted(usable, 'labelled key')} {where} ({needed})"

    def source(self, source: Source) -> str:
        """Read and validate a source's files: all labels, or the sample's keys and those that they look back on."""
        if source in self.available.absent:
            files.schema_of(self.spec, source)
            folder = landing.channels(self.spec, "")[source.name].cite().lstrip("/")
            raise Skipped(f"no file of these keys is in {folder}; only its schema was checked")
        keys = self.spec.grain.with_lookback(self.window.keys, self.spec.lookback)
        keys = (naming.UNPARTITIONED,) if source.is_slow else self.labelled_keys if source.is_label else keys
        good, summary = files.read(self.spec, self.available, source, keys)
        self.tables[source.name] = good
        return summary + monitored.check_statistics(self.spec, source, good)

    def features(self) -> str:
        """Build the sample's rows and compare them with the declared fields."""
        spec, keys = self.spec, self.window.keys
        if spec.grain.index(keys[-1]) < spec.lookback and self._features(self.window, self.tables).is_empty():
            raise Skipped(f"features() returns no rows for {keys[-1]}, which has fewer keys before it than lookback")
        self.built = self._checked(self.window, self.tables)
        return f"{counted(self.built.height, 'row')} of {' and '.join(self.window.keys)}, as the fields declare"

    def every_key(self) -> str:
        """Build all available keys, a few at a time, and compare their rows with the declared fields."""
        keys, rows = self._newest_keys(), 0
        if self.spec.grain.index(keys[0]):  # the keys before the first one exist, but their files are not available
            keys = keys[max(0, min(self.spec.lookback, len(keys) - SAMPLE)) :]
        for start in range(0, len(keys), AT_ONCE):
            window = Window(grain=self.spec.grain, keys=keys[start : start + AT_ONCE])
            built = self._checked(window, self._all_tables())
            rows += built.height
            self.all_built.append(built.drop(item.name for item in self.spec.fields if item.dtype == "image"))
        empty = [
            item.name
            for item in self.spec.fields
            if item.dtype != "image" and all(built[item.name].null_count() == built.height for built in self.all_built)
        ]
        if empty and not self._is_short():  # the first keys have nothing to look back to
            raise Problem(
                f"features() of {self.spec.name}: {empty[0]} is null in all {counted(rows, 'row')} of "
                f"{counted(len(keys), 'key')}, so nothing can be learned from it. Fix it, or remove the field. "
                f"{self._fix}"
            )
        return f"{counted(rows, 'row')} of {counted(len(keys), 'key')}, {span(keys)}, as the fields declare"

    def leaks(self) -> str:
        """Look for a field that alone determines the label: it was not known before it."""
        spec = self.spec
        labels = self.labelled.drop_nulls("label").select("key", "entity", "label")
        parts = [built.join(labels, on=["key", "entity"], how="inner") for built in self.all_built]
        if not any(part.height for part in parts):
            raise Skipped("cannot be tried: no built row has a label")
        rows = pl.concat(parts)
        fields = tuple(item for item in spec.fields if item.dtype != "image")
        inputs = matrix.inputs_of(rows, fields)
        values = spec.task.labels_of(rows["label"])
        if names := suspects.giving_away(inputs, values, fields, spec.task):
            raise Problem(
                f"the field {names[0]} of {spec.name} alone determines the label of all "
                f"{counted(rows.height, 'row')}; expected only what is known before the label. {self._fix}"
            )
        if names := leaks.explaining_fields(inputs, values, fields, is_number=spec.task.kind == "regression"):
            return Note(
                f"the field {names[0]} alone explains more than {leaks.ENOUGH:.0%} of the label in "
                f"{counted(rows.height, 'row')}: make sure that its value was known before the label"
            )
        return f"no field alone determines the label of {counted(rows.height, 'row')}"

    def alone(self) -> str:
        """Build keys alone from `lookback` keys: a longer history or other rows of the window may not change them."""
        key, lookback = self.window.keys[-1], self.spec.lookback
        summary = reach.check_reach(self.spec, self._alone, self._newest_keys())
        message = (
            f"{key} built alone differs from {key} built with other keys in the window; raise lookback (it is "
            f"{lookback}), or read none of the window's other rows"
        )
        again = self._checked(Window(grain=self.spec.grain, keys=(key,)), self.tables)
        same.check_same(self.built, again, message, self._fix, pl.col("key") == key)
        if summary is None:
            raise Skipped(
                f"{key} alone is the same as in a window; whether features() reads farther back than "
                f"{counted(lookback, 'key')} cannot be tried, because no available key has more before it"
            )
        return summary

    def point_in_time(self) -> str:
        """Blank everything known only after `asked_at` of some rows, and build again: their rows may not change."""
        anew = call(self.spec, "the file", _anew, self.spec.features)
        # The sample, and as many keys at the beginning and in the middle of those that were built.
        keys = sorted({key for built in self.all_built for key in built["key"].unique()}, key=self.spec.grain.index)
        starts = {self.spec.lookback, len(keys) // 2}
        spans = [keys[start : start + SAMPLE] for start in sorted(starts) if start + 2 * SAMPLE <= len(keys)]
        runs = [self.spec.grain.span(some[0], some[-1]) for some in spans]
        windows = [self.window, *(Window(grain=self.spec.grain, keys=run) for run in runs if len(run) == SAMPLE)]
        blanked = sum(self._blank(window, anew) for window in windows)
        first = pl.concat(built["asked_at"] for built in self.all_built or [self.built]).min()
        assert isinstance(first, datetime)  # checked before
        for source in self.spec.feature_sources:
            if message := known_at.undeclared(source, self._all_tables()[source.name], first):
                raise Problem(f"{message}. {self._fix}")
        notes = list(filter(None, map(known_at.alone, self.spec.feature_sources)))
        if changed := self._changed_by_order():
            notes.append(
                f"{changed} when the rows of each file come in reverse order: sort them by what was known then"
            )
        if notes:
            return Note("; ".join(notes))
        if not blanked:
            return "everything was known before `asked_at` of these rows, so there was nothing to blank"
        return f"nothing changes when values known later are blanked ({blanked:,} cells)"

    def label(self) -> str:
        """Label all keys that have labels."""
        spec, task = self.spec, self.spec.task
        self.labelled = call_for_frame(spec, "label()", spec.label, self.tables[spec.label_source.name])
        if set(self.labelled.columns) != set(LABELLED):
            raise Problem(f"label() of {spec.name} returns {self.labelled.columns}; expected {LABELLED}. {self._fix}")
        self.labelled = self.labelled.select(LABELLED)
        rows.check_entities(self.labelled, f"label() of {spec.name}", self._fix)
        labels = self.labelled.drop_nulls("label")
        if labels.schema["known_at"] != rows.MOMENT or labels["known_at"].null_count():
            raise Problem(
                f"label() of {spec.name}: 'known_at' is {rows.described(labels['known_at'])}; expected moments in UTC, "
                f"microseconds ({rows.MOMENT!r}), one for each label. {self._fix}"
            )
        values, is_short = labels["label"].unique(), self._is_short()
        if len(values) < 2 and not is_short:
            rows_text = counted(labels.height, "row")
            taken = f"the value {values[0]} in all {rows_text}" if len(values) else "no value at all"
            raise Problem(
                f"the label of {spec.name} takes {taken} of {counted(len(self.labelled_keys), 'key')}; "
                "expected at least two values, or nothing can be learned. Fix label(), or record more keys, in "
                f"{self.file}."
            )
        if labels.schema["label"] != task.label_type():
            raise Problem(
                f"label() of {spec.name}: 'label' is {labels.schema['label']}; a {task.kind} task takes "
                f"{task.label_type()}. Cast it, or change task. {self._fix}"
            )
        note = ""
        try:
            task.check_labels(task.labels_of(labels["label"]))
        except ValueError as problem:
            first = spec.grain.index(self.labelled_keys[0])
            if self.available.is_recorded or first == 0 or len(values) < 2:
                raise
            note = f"; the keys before {self.labelled_keys[0]} were not looked at, and {problem}"
        if (count := labels["key"].n_unique()) < spec.min_keys and not is_short:
            raise Problem(f"keys of {spec.name} with a label: {count}; min_keys is {spec.min_keys}. {self._fix}")
        keys = self.labelled_keys[-spec.holdout :]
        holdout = labels.filter(pl.col("key").is_in(keys))["label"]
        if task.kind == "binary" and holdout.n_unique() == 1 and not is_short:
            raise Problem(
                f"the label of {spec.name} is {holdout[0]} in all {holdout.len():,} rows of {keys[0]} to {keys[-1]}, "
                "the holdout of a first training, so AUC is not defined there; expected both 0 and 1. Raise holdout, "
                f"or look at label(), in {self.file}."
            )
        summary = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in task.summary(self.labelled["label"]).items()
        )
        facts = f"{labels.height:,} of {counted(self.labelled.height, 'row')} have one: {summary}"
        if late := self._later_than_declared(labels):
            note += f"; {late}"
        return Note(facts + note) if note else facts

    def _later_than_declared(self, labels: pl.DataFrame) -> str:
        """Return which labels are known later than `label_delay` says, and the delay of all; empty without any."""
        grain, delay = self.spec.grain.endless, self.spec.label_delay
        known = labels.group_by("key").agg(pl.col("known_at").max(), pl.col("known_at").alias("each"))
        late, most = 0, delay
        for key, last, each in known.iter_rows():
            due = grain.instant_after(grain.shift(key, delay))
            if due is None:  # batches have no moments
                return ""
            late += sum(moment > due for moment in each)
            while (end := grain.instant_after(grain.shift(key, most))) is not None and last > end:
                most += 1
        if not late:
            return ""
        return f"{late:,} of them known later than label_delay={delay} says; label_delay={most} covers all"

    def entities(self) -> str:
        """Compare the labels with the rows that they belong to, on the newest built keys with labels."""
        built = pl.concat(part.select("key", "entity", "asked_at") for part in self.all_built or [self.built])
        labels = self.labelled.drop_nulls("label").filter(pl.col("key").is_in(built["key"].unique().implode()))
        if labels.is_empty():
            raise Skipped("cannot be tried: no built row's key has a label yet")
        keys = sorted(labels["key"].unique(), key=self.spec.grain.index)[-SAMPLE:]
        labels = labels.filter(pl.col("key").is_in(keys))
        both, names = labels.join(built, on=["key", "entity"]), " and ".join(keys)
        if both.is_empty():
            raise Problem(
                f"none of the {labels.height:,} labelled entities of {names} is among those of features(), such as "
                f"{built.filter(pl.col('key').is_in(keys))['entity'][0]!r}. Let features() and label() use the same "
                f"entities and keys in {self.file}."
            )
        later = both.filter(pl.col("known_at") > pl.col("asked_at")).height
        if (both["known_at"] < both["asked_at"]).all():
            raise Problem(
                f"all {counted(both.height, 'label')} of {names} are known before `asked_at` of their rows, "
                "so there is nothing to predict; expected a later `known_at`. Fix known_at in label(), "
                f"or asked_at in features(), in {self.file}."
            )
        share = both.height / labels.height
        return f"{share:.1%} of the labelled ones have features; {later:,} labels become known after `asked_at`"

    def model(self) -> str:
        """Build the network from the sample's rows and check its answers; fit any other model on them."""
        from platform_assets.training import learn

        spec, task = self.spec, self.spec.task
        if self.labelled["label"].drop_nulls().n_unique() < 2:
            raise Skipped("cannot be tried: all landed labels are equal, so nothing can be learned")
        target = task.target_of(task.labels_of(self.labelled["label"].drop_nulls()))
        inputs = matrix.inputs_of(self.built, spec.fields)
        learned = learn.learn(inputs, spec.fields, target=target)
        if not isinstance(learner := learner_of(spec), Network):
            return fitted.check_learner(self._of_known_classes(), self._with_all_classes(), self.labelled)
        import torch

        network: object = call(spec, "model()", learner.model, learned, spec.training)
        if not isinstance(network, torch.nn.Module):
            raise wrong_type(spec, "model()", network, "a torch.nn.Module, such as driftline.TabularNet")
        call(spec, "the network", network.eval)
        tensors = [torch.from_numpy(inputs.numeric), torch.from_numpy(learn.codes(learned, inputs.categorical))]
        tensors += [] if inputs.image is None else [torch.from_numpy(inputs.image.copy())]
        with torch.no_grad():
            answer: object = call(spec, "the network", network, *tensors)
        if not isinstance(answer, torch.Tensor):
            raise wrong_type(spec, "the network", answer, f"one Tensor, {counted(task.outputs, 'number')} per row")
        shape = tuple(answer.shape)
        if shape != (len(inputs), task.outputs):
            raise Problem(
                f"the network of {spec.name} answers {counted(len(inputs), 'row')} with shape {shape}; expected "
                f"{(len(inputs), task.outputs)}: {counted(task.outputs, 'number')} per row for a {task.kind} task. "
                f"Fix model() in {self.file}, for instance TabularNet(..., outputs={task.outputs})."
            )
        count = sum(weights.numel() for weights in network.parameters())
        facts = fitted.check_learner(spec, self._with_all_classes(), self.labelled)
        return f"{count:,} weights, {counted(task.outputs, 'output')} per row; {facts}"

    def _of_known_classes(self) -> Product:
        """Return the product without the classes that only keys have which were not looked at; see `label`."""
        task = self.spec.task
        if not isinstance(task, MultiClass):
            return self.spec
        known = set(self.labelled["label"].drop_nulls())
        classes = tuple(name for name in task.classes if name in known)
        return self.spec if classes == task.classes else replace(self.spec, task=replace(task, classes=classes))

    def _with_all_classes(self) -> pl.DataFrame:
        """Return the sample's rows, and before them those of the newest key with each class that they lack."""
        labels, grain = self.labelled.drop_nulls("label"), self.spec.grain
        if self.spec.task.kind == "regression":
            return self.built
        here = labels.join(self.built.select("key", "entity"), on=["key", "entity"])["label"]
        others = labels.filter(
            pl.col("key").is_in(self._newest_keys()), ~pl.col("label").is_in(here.unique().implode())
        )
        newest = others.sort(pl.col("key").map_elements(grain.index, pl.Int64)).unique("label", keep="last")
        keys = sorted(set(newest["key"]) - set(self.window.keys), key=grain.index)
        older = [self._checked(Window(grain=grain, keys=(key,)), self._all_tables()) for key in keys]
        return pl.concat([*older, self.built])

    @property
    def _fix(self) -> str:
        return fix_in(self.spec)

    def _is_short(self) -> bool:
        """Return whether fewer labels have landed than a training needs. A recording must have enough."""
        return not self.available.is_recorded and len(self.labelled_keys) < self.spec.min_keys

    def _newest_keys(self) -> tuple[str, ...]:
        """Return the newest available keys, enough for a much longer history than `lookback`."""
        return self.available_keys[-max(reach.MOST_KEYS, 2 * (self.spec.lookback + 1)) :]

    def _all_tables(self) -> dict[str, pl.DataFrame]:
        """Return the tables with the good rows of the newest keys, read once, instead of the sample's."""
        if self.longer is None:
            sampled = set(self.spec.grain.with_lookback(self.window.keys, self.spec.lookback))
            older = [key for key in self._newest_keys() if key not in sampled]
            self.longer = {
                source.name: pl.concat([files.good(self.spec, self.available, source, older), self.tables[source.name]])
                if older and not source.is_slow
                else self.tables[source.name]
                for source in self.spec.feature_sources
            }
        return self.longer

    def _alone(self, key: str, count: int) -> pl.DataFrame:
        """Build one key from `count` keys before it."""
        return self._features(Window(grain=self.spec.grain, keys=(key,)), self._all_tables(), count)

    def _features(
        self,
        window: Window,
        tables: Mapping[str, pl.DataFrame],
        lookback: int | None = None,
        function: Features | None = None,
    ) -> pl.DataFrame:
        spec, keys = self.spec, window.keys
        visible = self._visible(window, tables, spec.lookback if lookback is None else lookback)
        sample = SampleTables(spec.name, spec.label_source.name, visible)
        name = f"features() for {keys[0]}" if len(keys) == 1 else "features()"
        try:
            built = call_for_frame(spec, name, function or spec.features, sample, window)
            columns = [*rows.ABOUT, *(item.name for item in spec.fields)]
            return built.select(columns) if set(built.columns) == set(columns) else built
        except Problem:
            if len(keys) > SAMPLE:  # which one?
                for key in keys:
                    self._features(Window(grain=spec.grain, keys=(key,)), tables, lookback)
            raise

    def _visible(self, window: Window, tables: Mapping[str, pl.DataFrame], lookback: int) -> dict[str, pl.DataFrame]:
        keys = self.spec.grain.with_lookback(window.keys, lookback)
        return {
            source.name: tables[source.name]
            if source.is_slow
            else tables[source.name].filter(pl.col("key").is_in(keys))
            for source in self.spec.feature_sources
        }

    def _checked(self, window: Window, tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        built, name = self._features(window, tables), f"features() of {self.spec.name}"
        incomplete = declared.incomplete(self.spec, self._visible(window, tables, self.spec.lookback), window.keys)
        rows.check_rows(built, self.spec.fields, name, self._fix, incomplete=incomplete)
        rows.check_keys(built, window.grain, window.keys, name, self._fix)
        return built

    def _blank(self, window: Window, anew: Features) -> int:
        """Build a window as it was known at three of its moments; return how many cells were blanked.

        Args:
            window: whose rows may not change.
            anew: `features` without what earlier calls have kept.
        """
        spec, tables = self.spec, self._visible(window, self._all_tables(), self.spec.lookback)
        built = self.built if window == self.window else self._features(window, tables)
        asked_at, blanked = built["asked_at"].unique().sort(), 0
        for moment in sorted({asked_at[0], asked_at[len(asked_at) // 2], asked_at[-1]}):
            as_known = {
                source.name: known_at.as_known(source, tables[source.name], moment) for source in spec.feature_sources
            }
            blanked += sum(_facts(tables[name]) - _facts(as_known[name]) for name in tables)
            message = (
                f"features() of {spec.name} reads values that were not yet known at {moment.isoformat()}, the "
                "`asked_at` of its rows"
            )
            again = self._features(window, as_known, function=anew)
            same.check_same(built, again, message, self._fix, pl.col("asked_at") <= moment)
        return blanked

    def _changed_by_order(self) -> str:
        """Describe what the order of the rows in a file changes in the sample; empty if nothing."""
        reverse = {
            name: pl.concat(rows.reverse() for rows in table.partition_by("key", maintain_order=True))
            for name, table in self.tables.items()
            if name != self.spec.label_source.name and table.height
        }
        try:
            again = self._features(self.window, {**self.tables, **reverse}).sort("key", "entity")
        except Problem:
            return "features() fails"
        built = self.built.sort("key", "entity")
        if again.schema != built.schema or again.height != built.height:
            return "the number of rows or a type changes"
        for name in built.columns:
            if reach.changed(built[name], again[name]).any():
                return f"{name!r} changes"
        return ""


def _facts(table: pl.DataFrame) -> int:
    return table.height * table.width - int(table.null_count().sum_horizontal()[0])


def _anew(function: Features) -> Features:
    """Return the function of a new copy of its module, without state of earlier calls; itself if it is not found there.

    The copy is not registered, so nothing else sees it. Costs what the module costs to import; what it imports is not
    executed again.
    """
    name, module = getattr(function, "__name__", ""), sys.modules.get(getattr(function, "__module__", ""))
    spec = None if module is None else module.__spec__
    if getattr(module, name, None) is not function or spec is None or spec.loader is None:
        return function
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    result: Features = getattr(copy, name)
    return result
