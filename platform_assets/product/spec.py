"""Define a product: `Product` and its parts, frozen data and plain functions.

The vocabulary of a product file and its checks. Nothing from Dagster and no heavy imports: schemas and models are
functions, so that pandera and torch load only when they are called.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from platform_assets.base import kinds, naming
from platform_assets.base.keys import Grain, KeyProblem
from platform_assets.base.wording import counted
from platform_assets.product import defaults
from platform_assets.product.data_files import data_file
from platform_assets.product.derived import LabelColumn, RowsAsDelivered
from platform_assets.product.fields import MOST_FIELDS, Field
from platform_assets.product.learner import Learner
from platform_assets.product.left_out import LATER
from platform_assets.product.modelling import Gates, Service, Training
from platform_assets.product.monitoring import CrossRule, Monitors, Retraining, check_possible, check_rules, of_grain
from platform_assets.product.pods import Pods
from platform_assets.product.recording import Deliver, FaultKind, History, RecordingMissing
from platform_assets.product.sources import Arrives, Column, Source
from platform_assets.product.tasks import Binary, MultiClass, Regression, Task
from platform_assets.product.tuning import Choice, Range, Setting
from platform_assets.product.windows import FeatureTables, Tables, Window

if TYPE_CHECKING:
    import polars as pl

    from platform_assets.product.channels import Channel
    from platform_assets.product.defaults import Given

    Label = Callable[[pl.DataFrame], pl.DataFrame]

__all__ = [
    "Binary",
    "Choice",
    "Column",
    "CrossRule",
    "Deliver",
    "FaultKind",
    "FeatureTables",
    "Field",
    "Gates",
    "History",
    "Learner",
    "Monitors",
    "MultiClass",
    "Pods",
    "Product",
    "Range",
    "RecordingMissing",
    "Regression",
    "Retraining",
    "Service",
    "Source",
    "Tables",
    "Task",
    "Training",
    "Window",
    "data_file",
]

_CLASSES: dict[str, type] = {
    part.__name__: part
    for part in (Field, Gates, Grain, History, Monitors, Pods, Retraining, Service, Setting, Source, Task, Training)
}
# Dagster refuses any other owner.
_OWNER = re.compile(r"team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True, kw_only=True)
class Product:
    """One model and the data behind it.

    Attributes:
        name: equal to the name of the file, without `.py`.
        short_name: at most 8 letters, for Dagster's groups (`flights_training`); None for the first words of the name.
        title: one line for the UI, the report and `driftline status`. By default the name, in words.
        description: what is predicted, about what and when, in a sentence or two. By default the title.
        owner: who is responsible, shown on every asset: an e-mail address or `team:name`.
        grain: the one ordered sequence of partition keys.
        sources: what the upstream systems deliver, in order of display; exactly one of them brings the labels. A
            channel alone is one source, named after its file.
        lookback (keys): how many keys before a key `features` reads.
        features: `(validated tables, window) -> rows` with `key`, `entity`, `service_time`, `asked_at` and one column
            per field; rows in a fixed order. It reads nothing that became known after `asked_at`. By default the rows
            of the one source that brings no labels, asked about at their `known_at`.
        fields: the model's inputs, in order: the request contract. Without ranges, descriptions and nulls a mapping
            such as `{"price": "float"}` says as much.
        label: `(validated label rows) -> rows` with `key`, `entity`, `label` (of the task's type, null when there is
            none) and `known_at`. Or the name of a column of the source with `is_label`, or else of the one source, in
            whose rows `features` does not see it.
        entity: what one prediction is about (`flight`); its id is in the column `entity`.
        label_delay (keys): how many keys after its own a key's labels are known. By default 1 day, 24 hours, or 0
            batches.
        task: the kind of answer: `Binary`, `MultiClass` or `Regression`.
        model: `(learned preprocessing, training) -> torch module`, see `training.nets`; or a learner. By default
            LightGBM's trees, which stop where the last third of the fewest training keys sees no more gain.
        training: profile, seed and hyperparameters of a training.
        search: what `driftline tune` varies, one `Range` or `Choice` per setting; nothing else reads it.
        window (keys): how many keys before a cutoff a model sees; None for all.
        holdout (keys): how many of the last labelled keys are never trained on; at least 2, because an interval needs
            two. By default 7 days, 168 hours or 4 batches.
        min_keys (keys): the fewest labelled keys, holdout included, with which a training is allowed. By default 28
            days, 672 hours or 12 batches.
        gates: what a challenger must show before it may be released.
        service: how the product answers requests.
        pods: what the service gets on Kubernetes.
        slices: names of fields by which quality is broken down.
        monitors: what counts as a fault, and what as drift.
        retraining: when the model is trained again.
        history: a recording that `driftline demo` and `driftline check` play; None for none.
        is_live: whether keys follow the wall clock; False for a recording, whose clock is replayed. By default True
            where there is no history, and the grain has no end or its batches come by channels.
        moved_from: the package in which the product was defined when the store took its first rows in; None for the one
            it is in now.
    """

    name: str
    short_name: str | None = None
    title: str = LATER
    description: str = LATER
    owner: str = naming.OWNER_DEFAULT
    grain: Grain
    if TYPE_CHECKING:
        sources: Given[Channel | tuple[Source, ...], tuple[Source, ...]] = Given()
    else:
        sources: tuple[Source, ...]
    lookback: int = 0
    features: Callable[[Tables, Window], pl.DataFrame] = LATER
    if TYPE_CHECKING:
        fields: Given[Mapping[str, str] | tuple[Field, ...], tuple[Field, ...]] = Given()
        label: Given[Label | str, Label] = Given()
    else:
        fields: tuple[Field, ...]
        label: Callable[[pl.DataFrame], pl.DataFrame]
    entity: str = "row"
    label_delay: int = LATER
    task: Task = field(default_factory=Binary)
    model: Callable[[Any, Training], Any] | Learner = LATER
    training: Training = field(default_factory=Training)
    search: tuple[Setting, ...] = ()
    window: int | None = None
    holdout: int = LATER
    min_keys: int = LATER
    gates: Gates = field(default_factory=Gates)
    service: Service = field(default_factory=Service)
    pods: Pods = field(default_factory=Pods)
    slices: tuple[str, ...] = ()
    monitors: Monitors = field(default_factory=Monitors)
    retraining: Retraining = field(default_factory=Retraining)
    history: History | None = None
    is_live: bool = LATER
    moved_from: str | None = None

    def __post_init__(self) -> None:
        naming.check_name(self.name, "Product.name")
        defaults.fill(self)
        kinds.check(self, f"{self.name}: ", **_CLASSES)
        short, most = self.short_name, naming.MOST_IN_GROUP
        if short is not None and len(naming.check_name(short, f"{self.name}: short_name")) > most:
            raise ValueError(
                f"{self.name}: short_name is {short!r}; expected at most {most} characters, so that Dagster shows the "
                "names of its groups."
            )
        if not callable(self.model) and not isinstance(self.model, Learner):
            raise ValueError(
                f"{self.name}: model is {self.model!r:.80}; expected a function, or a learner such as "
                "driftline.LightGbm."
            )
        for name in ("monitors", "retraining"):  # only here is the grain known to be one
            object.__setattr__(self, name, of_grain(getattr(self, name), self.grain.kind))
        self._check_distinct("sources", [source.name for source in self.sources])
        self._check_distinct("fields", [item.name for item in self.fields])
        if self.search:
            self._check_distinct("search", [item.name for item in self.search])
        if (labels := [source.is_label for source in self.sources].count(True)) != 1:
            raise ValueError(f"{self.name}: sources with is_label=True: {labels}; expected exactly one.")
        if unknown := set(self.slices) - {item.name for item in self.fields}:
            raise ValueError(f"{self.name}: slices name {sorted(unknown)}, which are not in fields.")
        for name, least in (("lookback", 0), ("label_delay", 0), ("holdout", 2), ("min_keys", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{self.name}: {name} is {getattr(self, name)}; expected at least {least}.")
        if self.min_keys <= self.holdout:
            raise ValueError(
                f"{self.name}: min_keys is {self.min_keys} and holdout is {self.holdout}; "
                "nothing would be left to train on. Raise min_keys."
            )
        check_rules(self.monitors.rules, {source.name for source in self.sources}, self.name)
        check_possible(self.monitors, self.retraining, self.name)
        self._check_window()
        if self.retraining.anchor is not None:
            self.grain.index(self.retraining.anchor)
        if self.grain.instant_after(self.grain.first) is None and any(source.partition_by for source in self.sources):
            source_name = next(source.name for source in self.sources if source.partition_by)
            raise ValueError(
                f"{self.name}: source {source_name!r} has partition_by and the grain is numbered batches, whose rows "
                "belong to the file they are delivered in; leave partition_by out."
            )
        # Without an end Dagster offers all periods up to now, thousands of them long after a recording.
        if not self.is_live and self.grain.last is None:
            raise ValueError(
                f"{self.name} is a recording (is_live=False) and its grain has no end; state the last key."
            )
        for source in self.sources:
            for column in source.partial_columns:
                of_column = f"{self.name}: source {source.name!r}, column {column.name!r}"
                for name, key in (("since", column.since), ("until", column.until)):
                    if key is not None and not self.grain.contains(key):
                        raise KeyProblem(f"{of_column}: {name} is {key!r}; expected one of {self.grain.describe()}.")
                if column.since and column.until and self.grain.index(column.since) > self.grain.index(column.until):
                    raise ValueError(f"{of_column}: since={column.since!r} is after until={column.until!r}; swap them.")
        self._check_fields()
        self._check_owner_and_landing()
        self._check_history()

    def _check_window(self) -> None:
        if self.window is None:
            return
        labelled, drift_window = self.window - self.label_delay, self.monitors.drift_window
        if labelled < self.min_keys:
            raise ValueError(
                f"{self.name}: window is {self.window} and min_keys is {self.min_keys}, of which a window has at most "
                f"{labelled} that are labelled (label_delay={self.label_delay}), so no training would ever be allowed; "
                f"expected a window of at least {self.min_keys + self.label_delay}, or fewer min_keys."
            )
        if labelled - self.holdout <= drift_window:
            raise ValueError(
                f"{self.name}: window is {self.window} and Monitors.drift_window is {drift_window}; a model is "
                f"trained on {labelled - self.holdout} of its keys (label_delay={self.label_delay}, holdout="
                f"{self.holdout}), and drift is ranked among more training keys than drift_window. Expected a window "
                f"of at least {drift_window + self.holdout + self.label_delay + 1}, or a smaller drift_window."
            )

    def _check_fields(self) -> None:
        if len(self.fields) > MOST_FIELDS:
            raise ValueError(
                f"{self.name} has {len(self.fields):,} fields; expected at most {MOST_FIELDS:,}. Keep those that "
                "carry information, or give one field of dtype 'image' in the product's file."
            )
        images = [item.name for item in self.fields if item.dtype == "image"]
        if len(images) > 1:
            raise ValueError(f"{self.name}: the fields {', '.join(images)} are images; expected at most one.")
        if sliced := set(self.slices) & set(images):
            raise ValueError(f"{self.name}: slices name the image {sliced.pop()!r}; slice by numbers or categories.")

    def _check_owner_and_landing(self) -> None:
        if not _OWNER.fullmatch(self.owner):
            raise ValueError(f"{self.name}: owner is {self.owner!r}; expected an e-mail address or 'team:name'.")
        shares = isinstance(self.label, LabelColumn)  # then labels are read from the rows' own files
        folders = [
            self.landing_of(source) for source in self.sources if not (shares and source.name == defaults.LABELS)
        ]
        if shared := next((folder for folder in folders if folders.count(folder) > 1), None):
            names = [source.name for source in self.sources if self.landing_of(source) == shared]
            raise ValueError(
                f"{self.name}: the sources {' and '.join(names)} land in one folder, landing/{shared}; give each "
                "its own `landing`."
            )

    def _check_history(self) -> None:
        if self.history is None:
            return
        keys = {"demo_first": self.history.demo_first, "demo_last": self.history.demo_last}
        if self.history.demo_until is not None:
            keys["demo_until"] = self.history.demo_until
        for name, key in keys.items():
            if not self.grain.contains(key):
                raise KeyProblem(f"{self.name}: history.{name} is {key!r}; expected one of {self.grain.describe()}.")
        landed = self.grain.index(self.history.demo_last) - self.grain.index(self.history.demo_first) + 1
        labelled = max(0, landed - self.label_delay)
        if labelled < self.min_keys:
            raise ValueError(
                f"{self.name}: history lands {counted(landed, 'key')} before the first training, "
                f"{self.history.demo_first} to "
                f"{self.history.demo_last}, of which {labelled} have labels by then; min_keys is {self.min_keys}. Set "
                "history.demo_last later, or lower min_keys, in the product's file."
            )

    def _check_distinct(self, member: str, names: list[str]) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"{self.name}: {member} are {names}; expected at least one and no name twice.")

    def landing_of(self, source: Source) -> str:
        """Return the folder below `landing/` that receives a source's files."""
        return source.landing or f"{self.name}/{source.name}"

    def arrives(self, source: Source) -> Arrives:
        """Return how to tell that a landed file of a source is complete: the source's setting, or the default."""
        # A file that is being written may end at a line: 299 of 1,000 rows were once taken in, and their key closed.
        return source.arrives or (
            "settled" if self.is_live and source.channel is None and source.asset is None else "rename"
        )

    def group(self, system: str) -> str:
        """Return the Dagster group of one of the product's systems."""
        return naming.group(self.short_name or naming.shortened(self.name), system)

    @property
    def module(self) -> str:
        """The name of the module that defines the product's functions: its file."""
        function: Any = self.features
        if isinstance(function, RowsAsDelivered):
            return function.module
        while isinstance(function, functools.partial):
            function = function.func
        return str(getattr(function, "__module__", type(function).__module__))

    @property
    def bare_fields(self) -> tuple[Field, ...]:
        """The fields without their descriptions, which affect no row and no weight."""
        return tuple(item.bare for item in self.fields)

    @property
    def image(self) -> Field | None:
        """The image field, or None."""
        return next((item for item in self.fields if item.dtype == "image"), None)

    @property
    def max_drop(self) -> float:
        """The drop of the headline beyond which weaker evidence refuses a challenger."""
        return self.task.margin if self.gates.max_drop is None else self.gates.max_drop

    @property
    def label_patience(self) -> int:
        """How many keys after its labels were due a training keeps waiting for them."""
        patience = self.retraining.label_patience
        return self.grain.patience if patience is None else patience

    @property
    def label_source(self) -> Source:
        """The one source that delivers labels."""
        return next(source for source in self.sources if source.is_label)

    @property
    def feature_sources(self) -> tuple[Source, ...]:
        """The sources that `features` reads: all except the labels."""
        return tuple(source for source in self.sources if not source.is_label)

    @property
    def sources_of_a_batch(self) -> tuple[Source, ...]:
        """The sources of a complete batch: those of features, and labels that arrive with them."""
        return self.feature_sources if self.label_delay else (*self.feature_sources, self.label_source)

    def source(self, name: str) -> Source:
        """Return a source by name; raise `ValueError` listing the existing ones."""
        for source in self.sources:
            if source.name == name:
                return source
        raise ValueError(f"{self.name} has no source {name!r}; it has {', '.join(s.name for s in self.sources)}.")

    def declared_by_twins(self, source: Source) -> frozenset[str]:
        """Return the columns that other sources of the same deliveries declare, such as the label of a row."""

        def deliveries(one: Source) -> object:
            return one.channel or one.asset or self.landing_of(one)

        twins = [one for one in self.sources if one is not source and deliveries(one) == deliveries(source)]
        return frozenset(name for one in twins for name in defaults.column_names(one))

    def due_at(self, source: Source, key: str) -> datetime | None:
        """Return the moment after which a key closes without this source; None if it is always awaited (batches)."""
        over = self.grain.instant_after(key)
        return None if over is None else over + source.patience

    def taken_from(self, source: Source, key: str) -> datetime | None:
        """Return the moment from which a key's delivery may be taken in: the end of its period; None for any moment."""
        # A database that is read at 09:10 has rows of a day that still runs, and they look complete.
        return None if source.is_early or source.is_slow else self.grain.instant_after(key)

    def closes_from(self, key: str) -> datetime | None:
        """Return the moment from which a key may close; None for any: a batch, or where all sources are early."""
        keyed = [source for source in self.feature_sources if not source.is_slow]
        are_early = bool(keyed) and all(source.is_early for source in keyed)
        return None if are_early else self.grain.instant_after(key)

    def labelled_keys(self, cutoff: str, excluded: Collection[str] = ()) -> tuple[str, ...]:
        """Return the keys a model with this cutoff may learn from or be judged on.

        Args:
            cutoff: nothing known at or after its instant is used.
            excluded: held or dropped keys.

        Raises:
            ValueError: fewer than `min_keys`.
        """
        window = self.grain.window(cutoff, width=self.window, label_delay=self.label_delay)
        keys = tuple(key for key in window if key not in excluded)
        if len(keys) < self.min_keys:
            held_text = f" ({len(window) - len(keys)} more are held or dropped)" if len(keys) < len(window) else ""
            raise ValueError(
                f"{self.name}: cutoff {cutoff} has {counted(len(keys), 'labelled key')} before it{held_text}; "
                f"min_keys is {self.min_keys}. Choose a later cutoff or lower min_keys in the product's file."
            )
        return keys

    def split(self, cutoff: str, excluded: Collection[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return a cutoff's training keys and holdout keys: the holdout is the last `holdout` usable labelled keys."""
        keys = self.labelled_keys(cutoff, excluded)
        return keys[: -self.holdout], keys[-self.holdout :]
