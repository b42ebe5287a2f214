"""Fill in what a product's file leaves out: one line per default, with the reason that `driftline explain` prints."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from platform_assets.base.keys import Grain
from platform_assets.base.wording import in_words
from platform_assets.product.channel_sites import SitedChannel
from platform_assets.product.channels import Channel
from platform_assets.product.derived import Kind, LabelColumn, LenientCells, RowsAsDelivered, SomeColumns, TypedColumns
from platform_assets.product.fields import Field
from platform_assets.product.left_out import LATER
from platform_assets.product.monitoring import of_grain
from platform_assets.product.sources import Source

Product = Any
"""A `spec.Product` that is being made; the module `spec` reads this one."""
Accepted = TypeVar("Accepted")
Kept = TypeVar("Kept")
LABELS = "labels"
"""Name of the source that brings the labels of a column."""
public: Callable[[str], Any] | None = None
"""Return what `driftline` has by this name: a learner and a reader of rows, which rooms above this one define.

The door sets it when it hands out `Product`, as a code location hands views to stages.
"""
_OF_LABELS: dict[str, Kind] = {"binary": "bool", "multi_class": "category", "regression": "float"}


class Given(Generic[Accepted, Kept]):
    """For type checkers: a member of `Product` that accepts more than it keeps."""

    def __get__(self, product: Any, _class: Any = None) -> Kept:
        """Return what the member keeps."""
        raise NotImplementedError

    def __set__(self, product: Any, value: Accepted) -> None:
        """Take what the member accepts."""


@dataclass(frozen=True, kw_only=True)
class Default:
    """The value of a member that a product's file leaves out.

    Attributes:
        value: from the product, whose members above it have theirs already.
        reason: why this one, in a clause.
    """

    value: Callable[[Product], Any]
    reason: str


def _by_kind(reason: str, *, daily: int, hourly: int, batch: int) -> Default:
    of_kind = {"daily": daily, "hourly": hourly, "batch": batch}
    return Default(value=lambda product: of_kind[product.grain.kind], reason=reason)


DEFAULTS: Mapping[str, Default] = {
    "title": Default(value=lambda product: in_words(product.name), reason="the name, in words"),
    "description": Default(value=lambda product: f"{product.title}.", reason="the title"),
    "label_delay": _by_kind(
        "a day, or with its batch; raise it to when labels are really known", daily=1, hourly=24, batch=0
    ),
    "holdout": _by_kind("each day of a week; of batches enough for an interval", daily=7, hourly=168, batch=4),
    "min_keys": _by_kind("four weeks; of batches three times the holdout", daily=28, hourly=672, batch=12),
    "model": Default(
        value=lambda product: _boosted_trees(product),
        reason="the best single model on tables, with driftline[lightgbm] alone; it stops where the last keys, which "
        "it does not learn from, see no more gain",
    ),
    "is_live": Default(
        value=lambda product: _is_live(product),
        reason="nothing is replayed and keys go on, so they follow the clock",
    ),
    "features": Default(
        value=lambda product: _rows_as_delivered(product), reason="the source's rows, asked about at their own moment"
    ),
}
"""Those that depend on other members, in the order in which they are filled in."""
REASONS: Mapping[str, str] = {
    "short_name": "the first words of the name are short enough",
    "owner": "nobody is named, to whom alerts would go",
    "lookback": "features read their own key alone",
    "entity": "each row is asked about",
    "task": "the answer is a probability of yes",
    "training": "one thread of a small machine; learners keep to it",
    "search": "driftline tune has nothing to vary",
    "window": "a model learns from every key before its cutoff",
    "gates": "a challenger must not be worse than the live model",
    "service": "what a caller notices: 100 ms, 256 rows at once",
    "pods": "two small ones on Kubernetes, so that one may go",
    "slices": "quality is not broken down",
    "monitors": "a key is compared with eight weeks before it (hours: three)",
    "retraining": "decided each week, at the latest after four, within no budget",
    "history": "there is no recording to replay",
    "moved_from": "it was always defined here",
}
"""Why the others are what they are."""
REASONS_OF_SOURCES: Mapping[str, str] = {
    "description": "the name, in words",
    "schema": "types and nulls of the product's fields; no rules",
    "entity": "a row is known by its place in its key's delivery: append rows, never reorder them",
    "known_at": "the column by which the channel finds the rows of a key",
    "partition_by": "the same column",
    "channel": "files below landing/",
    "read": "cells as they come; yes, 1 and True are true, moments without a zone are in UTC",
}
"""Why a source's members are what they are; the rest is in docs/reference.md."""


def fill(product: Product) -> None:
    """Fill in what a product's file left out, where the rest has the right types; `kinds.check` refuses the others."""
    _fill(product, "title", "description")
    if isinstance(product.fields, Mapping):
        try:
            _set(product, "fields", tuple(Field(name=name, dtype=dtype) for name, dtype in product.fields.items()))
        except ValueError as problem:
            raise ValueError(f"{product.name}: fields has a mistake: {problem}") from None
    if isinstance(channel := product.sources, Channel):
        stem = Path(str(getattr(channel, "path", ""))).stem.lower()
        name = stem if re.fullmatch("[a-z][a-z0-9_]*", stem) else "rows"
        _set(product, "sources", (Source(name=name, channel=channel),))
    if not (isinstance(product.grain, Grain) and _are(product.sources, Source) and _are(product.fields, Field)):
        return
    _fill(product, "label_delay", "holdout", "min_keys", "model", "is_live")
    given: object = product.label
    if isinstance(given, str):
        _take_label(product, given)
    _set(product, "sources", tuple(_typed(product, source, given) for source in product.sources))
    _fill(product, "features")


def reason(product: Product, name: str) -> str | None:
    """Return why a member has the value that it would have if the file left it out; None if it has another."""
    value, member = getattr(product, name), product.__dataclass_fields__[name]
    if name in DEFAULTS:
        return DEFAULTS[name].reason if value == DEFAULTS[name].value(product) else None
    default: Any = member.default if member.default_factory is MISSING else member.default_factory()
    if name in ("monitors", "retraining"):
        default = of_grain(default, product.grain.kind)
    return REASONS[name] if value == default else None


def column_names(source: Source) -> list[str]:
    """Return the columns that a source declares, without pandera where its schema is derived."""
    schema: Any = source.schema
    return [name for name, *_ in schema.columns] if isinstance(schema, TypedColumns) else list(schema().columns)


def _fill(product: Product, *names: str) -> None:
    for name in names:
        if getattr(product, name) is LATER:
            _set(product, name, DEFAULTS[name].value(product))


def _are(given: object, kind: type) -> bool:
    return isinstance(given, tuple) and all(isinstance(item, kind) for item in given)


def _set(product: Product, name: str, value: Any) -> None:
    object.__setattr__(product, name, value)


def _is_live(product: Product) -> bool:
    """Tell whether keys follow the clock: without a recording, and without an end, or in batches of channels."""
    is_dealt = product.grain.kind == "batch" and all(source.channel is not None for source in product.sources)
    return product.history is None and (product.grain.last is None or is_dealt)


def _boosted_trees(product: Product) -> Any:
    """Return trees for few rows: with LightGBM's own numbers they learn a thousand rows by heart."""
    counts = (product.min_keys, product.holdout)
    judging = (counts[0] - counts[1]) // 3 if all(type(count) is int for count in counts) else 0
    few: dict[str, Any] = {"validation_keys": judging, "patience": 30} if judging > 0 else {}
    return _public("LightGbm")(settings={"num_leaves": 15, "learning_rate": 0.05}, **few)


def _public(name: str) -> Any:
    if public is None:
        raise ValueError(f"a default needs {name}, which driftline defines; import Product from driftline.")
    return public(name)


def _take_label(product: Product, column: str) -> None:
    """Read the labels from a column, of the one source that brings labels or else of the one source."""
    labels = [source for source in product.sources if source.is_label]
    if not labels and len(product.sources) != 1:
        names = ", ".join(source.name for source in product.sources)
        raise ValueError(
            f"{product.name}: label is the column {column!r} and the sources are {names}; expected is_label=True in "
            "the one that has it."
        )
    if not labels and product.history is not None:
        raise ValueError(
            f"{product.name}: label is the column {column!r} of source {product.sources[0].name!r}, and a history is "
            "replayed source by source; give the labels a source of their own, with is_label=True."
        )
    source = labels[0] if labels else product.sources[0]
    if not labels:
        _set(product, "sources", (source, _source_of_labels(product, source, column)))
    label = LabelColumn(
        column=column,
        entity=source.entity,
        kind=product.task.kind,
        grain=product.grain.endless,
        delay=product.label_delay,
        known_at=str(source.known_at),
    )
    _set(product, "label", label)


def _source_of_labels(product: Product, source: Source, column: str) -> Source:
    """Return the source that reads the labels from another one's deliveries, with nothing else of them."""
    named = (source.entity, source.partition_by, source.known_at, column)
    columns = tuple(dict.fromkeys(name for name in named if name is not None))
    channel, first = source.channel, product.grain.first
    if isinstance(channel, SitedChannel) and (end := product.grain.instant_after(first)) is not None:
        # A key comes when its labels are known, for rows whose label is filled in later.
        channel = channel.lagging((end - product.grain.instant(first)) * product.label_delay)
    return replace(
        source,
        name=LABELS,
        description=f"The column {column} of {source.name}.",
        schema=source.schema if source.schema is LATER else SomeColumns(schema=source.schema, only=columns),
        landing=product.landing_of(source) if source.is_landed else None,
        channel=channel,
        unique=source.unique if {*source.unique} <= {*columns} else (),
        content=None,
        known_at_of=None,
        statistics=None,
        multiline=tuple(name for name in source.multiline if name in columns),
        partial_columns=tuple(item for item in source.partial_columns if item.name in columns),
        is_label=True,
    )


def _typed(product: Product, source: Source, label: object) -> Source:
    """Return a source with the schema that its file left out, and without the label where features read it."""
    is_of_column = isinstance(label, str) and LABELS in (item.name for item in product.sources if item.is_label)
    if source.schema is not LATER:
        is_read = is_of_column and not source.is_label and isinstance(label, str)
        schema = SomeColumns(schema=source.schema, without=(str(label),)) if is_read else source.schema
        return source if schema is source.schema else replace(source, schema=schema)
    if source.is_label and not isinstance(label, str):
        raise ValueError(
            f"{product.name}: source {source.name!r} has no schema, and label is a function, so its columns are not "
            "known; give it a schema, or label='COLUMN'."
        )
    inputs = () if source.is_label else product.fields if source.fields is None else source.fields
    if image := next((item for item in inputs if item.dtype == "image"), None):
        raise ValueError(
            f"{product.name}: source {source.name!r} has no schema, and the field {image.name!r} is an image; give it "
            "a schema, and read, in the product's file."
        )
    kinds: dict[str, tuple[Kind, bool]] = dict.fromkeys(filter(None, [source.entity]), ("category", False))
    kinds |= {item.name: (item.dtype, item.is_nullable) for item in inputs if item.dtype != "image"}
    if source.is_label or str(label) in (source.known_at_of or {}):  # or what earlier rows had, for features
        kinds[str(label)] = (_OF_LABELS[product.task.kind], True)
    kinds |= dict.fromkeys(filter(None, [source.known_at, source.partition_by]), ("moment", False))
    of_kind = {kind: tuple(name for name, (its, _) in kinds.items() if its == kind) for kind in ("bool", "moment")}
    columns = tuple((name, *kind) for name, kind in kinds.items())
    ranges = tuple((item.name, item.low, item.high) for item in inputs if (item.low, item.high) != (None, None))
    typed = replace(source, schema=TypedColumns(columns=columns, ranges=ranges))
    own = () if isinstance(source.channel, SitedChannel) else source.multiline  # such a channel cuts lines itself
    given = typed.read or functools.partial(_public("read_csv"), multiline=own)
    read = LenientCells(read=given, flags=of_kind["bool"], moments=of_kind["moment"])
    return replace(typed, read=read, multiline=() if own else source.multiline)


def _rows_as_delivered(product: Product) -> RowsAsDelivered:
    sources = [source for source in product.sources if not source.is_label]
    if len(sources) != 1 or sources[0].known_at is None:
        raise ValueError(
            f"{product.name}: features is left out, and its rows come from {len(sources)} sources; expected a "
            "function, or exactly one source besides that of the labels, whose rows state when they were known."
        )
    source, frame = sources[0], sys._getframe()
    # The module that makes the product is the nearest caller outside of this room.
    inside = re.compile(r"platform_assets\.product\.|dataclasses$")
    while frame.f_back is not None and inside.match(frame.f_globals["__name__"]):
        frame = frame.f_back
    given, module = product.features, str(frame.f_globals["__name__"])
    return RowsAsDelivered(
        module=given.module if isinstance(given, RowsAsDelivered) else module,
        source=source.name,
        time=str(source.known_at),
        entity=source.entity,
        fields=tuple(item.name for item in product.fields),
    )
