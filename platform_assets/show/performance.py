"""Show a key's performance in the UI: numbers that Dagster plots over keys, tables and pictures.

Belongs here: from notes to metadata, at most twenty numbers an asset. Does not belong here: computing or reading any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import polars as pl

from platform_assets.compute import answers, performance_policy
from platform_assets.compute.tasks import Task
from platform_assets.history.performance import measured
from platform_assets.records.performance import Measured
from platform_assets.show import monitoring_plots, plots, task_plots, values
from platform_assets.specs.base import ProductSpec
from platform_assets.storage.tables import PartitionRecord

if TYPE_CHECKING:
    from platform_assets.compute.slices import SliceRow
    from platform_assets.compute.tasks.measures import Decided

TESTED = ("name", "keys", "effect", "low", "high", "p_value", "p_adjusted", "margin")


def told(spec: ProductSpec, record: PartitionRecord) -> values.Metadata:
    """Return a key's metadata; a number that it does not have is left out, never zero."""
    found, headline = measured(record), spec.task.headline.name
    window, skew = found.window or None, found.skew or None
    quality, decided = window.quality if window else {}, cast("dict[str, float | None]", found.decided or {})
    model = window.model if window else None
    numbers = {
        "rows_labelled": found.labelled,
        **(found.quality or {}),
        **{each.name: decided.get(each.name) for each in spec.task.decisions},
        "expected_log_loss": found.expected_log_loss,
        "excess_log_loss": found.excess_log_loss,
        f"window_{headline}": in_window.value if (in_window := quality.get(headline)) else None,
        "window_excess_log_loss": model.excess if model else None,
        "served_equal_share": skew.share if skew else None,
    }
    shown: values.Metadata = {name: value for name, value in numbers.items() if value is not None}
    shown["digest"] = found.digest or "none"
    if len(found.models) > 1:
        shown["models"] = values.table(found.models)
    if window:
        rows = [{"metric": name, **numbers.document()} for name, numbers in quality.items() if numbers is not None]
        shown["window"] = values.table(rows, columns=("metric", "value", "low", "high"))
        shown["window_span"] = f"{window.keys} keys, {window.first} to {window.last}, {window.rows:,} rows"
        if model and model.tests:
            shown["promises"] = values.table([each.document() for each in model.tests.values()], columns=TESTED)
            shown["promises_kept"] = performance_policy.describe(model.tests, spec.retraining)
    if skew and skew.fields:
        shown["served_differently"] = values.table([each.document() for each in skew.fields])
    if skew and skew.is_skewed:
        shown["measured_on_our_features_by"] = ", ".join(skew.own_answers or ()) or "nothing"
    if skew and skew.not_compared:
        shown["served_not_compared"] = skew.not_compared
    return shown


def pictures(spec: ProductSpec, trail: Mapping[str, Measured], by_key: Mapping[str, pl.DataFrame]) -> values.Metadata:
    """Return the charts of the newest key: quality over the last keys, calibration and slices of its window.

    Args:
        spec: the product.
        trail: numbers by key, oldest first.
        by_key: joined rows of the window; nothing is drawn without labels.
    """
    from platform_assets.compute import performance as computed

    labelled = {key: rows for key, each in by_key.items() if (rows := answers.main_rows(each)).height}
    if not labelled:
        return {}
    rows, _ = answers.stacked(labelled)
    task = spec.task
    chart = monitoring_plots.quality_by_key(trail, task)
    calibration = plots.calibration_plot({"answered": computed.calibration(rows, task)}, task)
    shown = {
        "quality_by_key": values.image(chart, "Quality by key, window with intervals"),
        "calibration": values.image(calibration, "Calibration of the window"),
        **decided(task, {"answered": computed.decided(rows, task)}),
    }
    tables = {"answered": computed.by_slice(rows, spec.slices, task)}
    return shown | sliced(task, tables["answered"], tables, f"{task.headline.title} by slice of the window")


def sliced(
    task: Task,
    own: Sequence[SliceRow],
    by_model: Mapping[str, Sequence[SliceRow]],
    words: str,
    *,
    overall: float | None = None,
) -> values.Metadata:
    """Return the slice table and its chart, as far as there are slices and they have the headline.

    Args:
        task: of the product.
        own: the rows that the table shows.
        by_model: the rows that the chart shows, by name of the model.
        words: what the chart shows.
        overall: the headline on all rows.
    """
    shown: values.Metadata = {"slices": values.table(own)} if own else {}
    if any(row[task.headline.name] is not None for row in own):
        shown["slice_chart"] = values.image(plots.slice_chart(by_model, task.headline, overall=overall), words)
    return shown


def decided(task: Task, found: Mapping[str, Decided]) -> values.Metadata:
    """Return what is done with the answers of some models: numbers and classes as tables, the kind's own charts.

    Args:
        task: of the product.
        found: `Task.decided` by model.
    """
    rows = [
        {"model": name, **{key: value for key, value in each.items() if not isinstance(value, list)}}
        for name, each in found.items()
    ]
    shown: values.Metadata = {"decided": values.table(rows)}
    first = next(iter(found.values()))
    if "by_class" in first:
        shown["by_class"] = values.table(first["by_class"])
    for name, png in task_plots.pictures(task, found).items():
        shown[name.lower().replace(" ", "_")] = values.image(png, name)
    return shown
