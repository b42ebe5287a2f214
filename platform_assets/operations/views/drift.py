"""Show how keys were judged: one sentence, drift numbers and chart, failing checks."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from platform_assets.engine.metadata import Metadata, table
from platform_assets.engine.outside import Shown
from platform_assets.monitoring import fault_sentences
from platform_assets.monitoring.drift import Seen
from platform_assets.monitoring.drift_maker import COLUMNS, PSI
from platform_assets.operations.views.charts import image
from platform_assets.operations.views.drift_plots import drift_chart
from platform_assets.store.history.holds import Hold
from platform_assets.store.records.judgements import Judgement

MAX_ROWS = 20


def view(shown: Shown) -> tuple[str, Metadata]:
    """Show how a key was judged; of the newest one the chart and the fields farthest off too."""
    seen: Seen = shown.facts
    about = metadata(seen.judged)
    if seen.before is not None and seen.rows is not None:
        about |= newest(seen.before, seen.rows)
    return result(seen.judged, seen.hold), about


def result(judged: Judgement, hold: Hold | None = None) -> str:
    """Return the judgement of a key in one sentence: held and why, drifting, or fine.

    Args:
        judged: how the key was judged.
        hold: its newest fault record.
    """
    primary = judged.primary or None
    if judged.is_faulty and primary is not None:
        return f"{fault_sentences.state(hold)}: {fault_sentences.clause(primary)}"
    indexes = (("features", judged.index or None), ("answers", judged.mix or None))
    ranks = [f"{name} at percentile {index.percentile:.2f}" for name, index in indexes if index]
    against = f"{' and '.join(ranks)} of the training windows" if ranks else "no model to measure drift against yet"
    return f"{'drifting' if judged.verdict == 'drift' else 'fine'}: no fault; {against}"


def metadata(judged: Judgement) -> Metadata:
    """Return the metadata of a key: verdict, failing checks, drift indexes over their limits, what it rests on."""
    index, mix = judged.index or None, judged.mix or None
    entries: dict[str, str | float | None] = {
        "fault": fault_sentences.clause(judged.primary) if judged.primary else None,
        "verdict": judged.verdict or None,
        "failing_checks": judged.faults or 0,
        "drift_percentile": index and index.percentile,
        "drift_index": index and index.mean_psi,
        "drift_limit": index and (index.limit or None),
        "answers_percentile": mix and mix.percentile,
        "answers_index": mix and mix.mean_psi,
        "answers_limit": mix and (mix.limit or None),
        "cpu_s": judged.cpu_s or None,
        "sketch": judged.sketch or None,
        "bins": judged.bins or None,
        "reference": judged.reference or None,
    }
    return {name: value for name, value in entries.items() if value is not None}


def newest(judged: Mapping[str, Judgement], rows: pl.DataFrame) -> Metadata:
    """Return what only the newest key of a run shows: the chart, failing checks and the fields farthest off.

    Args:
        judged: the keys up to it, in order.
        rows: of the newest key.
    """
    top = rows.filter(pl.col("is_failing") | (pl.col("check") == PSI)).head(MAX_ROWS)
    return {
        "drift": image(drift_chart(judged), "Drift of the newest keys from the training rows, over the limit of each"),
        "checks": table(top.drop("key").to_dicts(), columns=list(COLUMNS)),
    }
