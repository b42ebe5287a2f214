"""Say what a product is: `ProductSpec` and its parts, frozen data and plain functions.

Belongs here: the vocabulary of a product file and its checks. Does not belong here: anything of Dagster,
or heavy imports (schemas and models are functions, so that pandera and torch load when called).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from platform_assets import naming
from platform_assets.keys import Grain
from platform_assets.specs.modelling import Gates, Service, Training
from platform_assets.specs.monitoring import CrossRule, Monitors, Retraining, check_rules
from platform_assets.specs.recording import Deliver, FaultKind, History

if TYPE_CHECKING:
    import pandera.polars as pa
    import polars as pl

__all__ = [
    "CrossRule",
    "Deliver",
    "FaultKind",
    "Field",
    "Gates",
    "History",
    "Monitors",
    "ProductSpec",
    "Retraining",
    "Service",
    "Source",
    "Tables",
    "Training",
    "Window",
]

Tables = Mapping[str, "pl.DataFrame"]
"""Validated rows by source name; each frame has the column `key` (slow sources: `all`)."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A contiguous run of keys that a pure function is asked about."""

    grain: Grain
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.keys or self.grain.span(self.keys[0], self.keys[-1]) != self.keys:
            raise ValueError(f"keys are {self.keys!r}; expected a contiguous, full run of {self.grain.describe()}.")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One upstream delivery: a file a key, or one file of a slow table.

    Attributes:
        name: as in asset keys: `weather` gives `raw_weather`.
        description: the catalog page: what, from whom, cadence, licence, known holes.
        schema: builds the pandera schema of typed rows, cross-column rules included.
        schema_version: raised by whoever changes `schema`; stands on every quarantined row.
        known_at: the column with the UTC moment from which a row was known; None for a slow source.
        partition_by: the UTC column whose moment in the grain's zone names the row's key;
            None when the file's own key does (batches, slow sources).
        unique: columns that no two rows of a key may share.
        deadline: how long after a key's end its file may take before the key is closed without it.
        is_label: labels, late by nature; their absence never holds a key open.
        is_slow: one unpartitioned table, versioned by digest, instead of a file a key.
        suffix: of the landed file.
        read: turns the file's bytes into rows of text or values; None reads CSV as text.
    """

    name: str
    description: str
    schema: Callable[[], pa.DataFrameSchema]
    schema_version: int = 1
    known_at: str | None = None
    partition_by: str | None = None
    unique: tuple[str, ...] = ()
    deadline: timedelta = timedelta(hours=24)
    is_label: bool = False
    is_slow: bool = False
    suffix: str = ".csv"
    read: Callable[[bytes], pl.DataFrame] | None = None

    def __post_init__(self) -> None:
        naming.check_name(self.name, "Source.name")
        if not self.is_slow and self.known_at is None:
            raise ValueError(f"source {self.name!r} has no known_at; every row of it must say when it was known.")
        if self.is_slow and (self.is_label or self.partition_by):
            raise ValueError(f"source {self.name!r} is slow; it can neither hold labels nor be partitioned.")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One input of the model as a caller sends it.

    Attributes:
        dtype: `float` and `int` travel as numbers, `bool` as true or false, `category` as text.
        is_nullable: whether null is a value.
        low, high: the declared range, ends included; outside of it a request is refused.
        unknown: what happens to a category that training never saw: `accept` maps it to "unknown".
    """

    name: str
    dtype: Literal["float", "int", "bool", "category"]
    description: str
    is_nullable: bool = False
    low: float | None = None
    high: float | None = None
    unknown: Literal["accept", "reject"] = "accept"

    def __post_init__(self) -> None:
        naming.check_name(self.name, "Field.name")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"field {self.name!r} has low={self.low} above high={self.high}.")
        if self.dtype in ("bool", "category") and (self.low is not None or self.high is not None):
            raise ValueError(f"field {self.name!r} is a {self.dtype} and takes no range.")


@dataclass(frozen=True, kw_only=True)
class ProductSpec:
    """One model and the data behind it.

    Attributes:
        name: equal to the module's name.
        grain: the one ordered sequence of partition keys.
        sources: in order of display.
        lookback: how many keys before K `features` reads.
        features: `(validated tables, window) -> rows` with `key`, `entity`, `service_time`, `asked_at` and a
            column for each of `fields`; rows in a fixed order; reads nothing known at or after `asked_at`.
        fields: the model's inputs, in order: the request contract.
        entity: what one prediction is about, in words (`flight`); its id is the column `entity`.
        label: `(validated label rows) -> rows` with `key`, `entity`, `label` (Int8, null when there is none)
            and `known_at`.
        label_delay: how many keys later labels are known.
        model: `(learned preprocessing, training) -> torch module`; see `compute.nets`.
        window: how many keys before a cutoff are seen; None for all.
        holdout: how many of the last labelled keys are never trained on; at least 2, or no interval can be stated.
        min_keys: the fewest labelled keys (holdout included) with which training is allowed.
        slices: columns of `fields` by which quality is broken down.
        operating_threshold: probability from which a prediction counts as positive.
        monitors: what is a fault, and what is drift.
        retraining: when the model is trained again.
    """

    name: str
    title: str
    description: str
    owner: str = naming.OWNER_DEFAULT
    grain: Grain
    sources: tuple[Source, ...]
    lookback: int
    features: Callable[[Tables, Window], pl.DataFrame]
    fields: tuple[Field, ...]
    entity: str
    label: Callable[[pl.DataFrame], pl.DataFrame]
    label_delay: int
    model: Callable[[Any, Training], Any]
    training: Training = field(default_factory=Training)
    window: int | None = None
    holdout: int
    min_keys: int
    gates: Gates = field(default_factory=Gates)
    service: Service = field(default_factory=Service)
    slices: tuple[str, ...] = ()
    operating_threshold: float = 0.5
    monitors: Monitors = field(default_factory=Monitors)
    retraining: Retraining = field(default_factory=Retraining)
    history: History | None = None
    is_live: bool = False

    def __post_init__(self) -> None:
        naming.check_name(self.name, "ProductSpec.name")
        self._check_distinct("sources", [source.name for source in self.sources])
        self._check_distinct("fields", [item.name for item in self.fields])
        if [source.is_label for source in self.sources].count(True) != 1:
            raise ValueError(f"{self.name}: sources must hold exactly one with is_label=True.")
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
        if not 0 < self.operating_threshold < 1:
            raise ValueError(
                f"{self.name}: operating_threshold is {self.operating_threshold}; expected between 0 and 1."
            )
        check_rules(self.monitors.rules, {source.name for source in self.sources}, self.name)
        if self.retraining.anchor is not None:
            self.grain.index(self.retraining.anchor)
        if not self.is_live and self.grain.last is None:
            raise ValueError(
                f"{self.name} is a recording (is_live=False) and its grain has no end; state the last key."
            )

    def _check_distinct(self, what: str, names: list[str]) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"{self.name}: {what} are {names}; expected at least one and no name twice.")

    @property
    def label_source(self) -> Source:
        """The one source that brings labels."""
        return next(source for source in self.sources if source.is_label)

    @property
    def feature_sources(self) -> tuple[Source, ...]:
        """The sources that `features` reads: all but the labels."""
        return tuple(source for source in self.sources if not source.is_label)

    def source(self, name: str) -> Source:
        """Return a source by name; raise `ValueError` listing the known ones."""
        for source in self.sources:
            if source.name == name:
                return source
        raise ValueError(f"{self.name} has no source {name!r}; it has {', '.join(s.name for s in self.sources)}.")

    def due_at(self, source: Source, key: str) -> datetime | None:
        """Return the moment after which a key is closed without this source; None when it is waited for (batches)."""
        over = self.grain.instant_after(key)
        return None if over is None else over + source.deadline

    def labelled_keys(self, cutoff: str, out: Collection[str] = ()) -> tuple[str, ...]:
        """Return the keys a model with this cutoff may learn or be judged on; refuse too few.

        Args:
            cutoff: nothing known at or after its instant is seen.
            out: keys that are held or dropped.

        Raises:
            ValueError: fewer than `min_keys`.
        """
        window = self.grain.window(cutoff, width=self.window, label_delay=self.label_delay)
        keys = tuple(key for key in window if key not in out)
        if len(keys) < self.min_keys:
            held = f" ({len(window) - len(keys)} more are held or dropped)" if len(keys) < len(window) else ""
            raise ValueError(
                f"{self.name}: cutoff {cutoff} has {len(keys)} labelled keys before it{held}; min_keys is "
                f"{self.min_keys}. Choose a later cutoff or lower min_keys in the product's file."
            )
        return keys

    def split(self, cutoff: str, out: Collection[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return (training keys, holdout keys) of a cutoff: the holdout is the last `holdout` usable labelled ones."""
        keys = self.labelled_keys(cutoff, out)
        return keys[: -self.holdout], keys[-self.holdout :]
