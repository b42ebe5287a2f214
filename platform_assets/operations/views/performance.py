"""Build the metadata of a key's performance: numbers that Dagster plots over keys (at most 20), tables, charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import polars as pl

from platform_assets.base.wording import counted, span
from platform_assets.engine.metadata import Metadata, table
from platform_assets.engine.outside import Shown
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.monitoring import answers, performance_policy
from platform_assets.monitoring.performance import Newest
from platform_assets.operations.views import monitoring_plots, plots
from platform_assets.operations.views.charts import image
from platform_assets.product.spec import Product
from platform_assets.store.records.notes import measured
from platform_assets.store.records.performance import Measured
from platform_assets.store.tables import PartitionRecord

if TYPE_CHECKING:
    from platform_assets.evaluation.measures.measure import Decided
    from platform_assets.evaluation.slices import SliceRow

TESTED = ("name", "keys", "effect", "low", "high", "p_value", "p_adjusted", "margin")


def view(shown: Shown) -> tuple[str, Metadata | None]:
    """Show a key's numbers; of the newest one that was measured the charts too."""
    if shown.record is None:
        return "no answers yet", None
    newest: Newest | None = shown.facts
    about = metadata(shown.spec, shown.record)
    if newest is not None:
        about |= pictures(shown.spec, newest.before, newest.by_key)
    return result(shown.spec, shown.record), about


def metadata(spec: Product, record: PartitionRecord) -> Metadata:
    """Return a key's metadata; an unknown number is left out, never zero."""
    key, headline = measured(record), measures_of(spec.task).headline.name
    window, skew = key.window or None, key.skew or None
    quality, decisions = window.quality if window else {}, cast("dict[str, float | None]", key.decided or {})
    model = window.model if window else None
    numbers = {
        "rows_labelled": key.labelled,
        **(key.quality or {}),
        **{measure.name: decisions.get(measure.name) for measure in measures_of(spec.task).of_decisions},
        "expected_log_loss": key.expected_log_loss,
        "excess_log_loss": key.excess_log_loss,
        f"window_{headline}": in_window.value if (in_window := quality.get(headline)) else None,
        "window_excess_log_loss": model.excess if model else None,
        "served_equal_share": skew.share if skew else None,
    }
    about: Metadata = {name: value for name, value in numbers.items() if value is not None}
    about["digest"] = key.digest or "none"
    if len(key.models) > 1:
        about["models"] = table(key.models)
    if window:
        rows = [{"metric": name, **numbers.document()} for name, numbers in quality.items() if numbers is not None]
        about["window"] = table(rows, columns=("metric", "value", "low", "high"))
        keys = f"{counted(window.keys, 'key')}, {span((window.first, window.last))}"
        about["window_span"] = f"{keys}, {counted(window.rows, 'row')}"
        if model and model.tests:
            about["promises"] = table([test.document() for test in model.tests.values()], columns=TESTED)
            about["promises_kept"] = performance_policy.describe(model.tests, spec.retraining)
    if skew and skew.fields:
        about["served_differently"] = table([field.document() for field in skew.fields])
    if skew and skew.is_skewed:
        about["measured_on_our_features_by"] = ", ".join(skew.own_answers or ()) or "nothing"
    if skew and skew.not_compared:
        about["served_not_compared"] = skew.not_compared
    return about


def result(spec: Product, record: PartitionRecord) -> str:
    """Return how well a key was answered, in one sentence: the headline of its window, or that labels are missing."""
    key, headline = measured(record), measures_of(spec.task).headline
    window = key.window or None
    if not key.rows:
        return "no answers to measure"
    value = window.quality.get(headline.name) if window else None
    if window is None or value is None:
        return f"{key.labelled:,} of {key.rows:,} answers have labels; {headline.title} is not known yet"
    interval = "" if value.low is None or value.high is None else f" ({value.low:.3f} to {value.high:.3f})"
    excess = f"; log loss {window.model.excess:+.4f} against the model's own expectation" if window.model else ""
    waiting = "" if key.labelled else "; no label of this key has landed yet"
    over = f"{counted(window.keys, 'key')}, {counted(window.rows, 'answer')}"
    return f"{headline.title} {value.value:.3f}{interval} over {over}{excess}{waiting}"


def pictures(spec: Product, trail: Mapping[str, Measured], by_key: Mapping[str, pl.DataFrame]) -> Metadata:
    """Return the charts of the newest key: quality over the last keys, calibration and slices of its window.

    Args:
        trail: numbers by key, oldest first.
        by_key: joined rows of the window; without labels there is no chart.
    """
    from platform_assets.monitoring import measured as computed

    labelled = {key: rows for key, joined in by_key.items() if (rows := answers.main_rows(joined)).height}
    if not labelled:
        return {}
    rows, _ = answers.stacked(labelled)
    task, measures = spec.task, measures_of(spec.task)
    chart = monitoring_plots.quality_by_key(trail, task)
    calibration = plots.calibration_plot({"answered": computed.calibration(rows, measures)}, task)
    charts = {
        "quality_by_key": image(chart, "Quality by key, window with intervals"),
        "calibration": image(calibration, "Calibration of the window"),
        **decided({"answered": computed.decided(rows, measures)}),
    }
    return charts | sliced({"answered": computed.by_slice(rows, spec.slices, measures)})


def sliced(by_model: Mapping[str, Sequence[SliceRow]]) -> Metadata:
    """Return the measures of each group of each slice as a table; nothing without slices."""
    rows = [{"model": name, **row} for name, slices in by_model.items() for row in slices]
    return {"slices": table(rows)} if rows else {}


def decided(by_model: Mapping[str, Decided]) -> Metadata:
    """Return the decisions made from answers as tables.

    Args:
        by_model: `Measures.decided` by model.
    """
    rows = [
        {"model": name, **{key: value for key, value in numbers.items() if not isinstance(value, list)}}
        for name, numbers in by_model.items()
    ]
    metadata: Metadata = {"decided": table(rows)}
    first = next(iter(by_model.values()))
    if "by_class" in first:
        metadata["by_class"] = table(first["by_class"])
    return metadata
