"""Show how keys were judged: one sentence, drift numbers, failing checks."""

from __future__ import annotations

import polars as pl

from platform_assets.engine.metadata import Metadata, table
from platform_assets.engine.outside import Shown
from platform_assets.monitoring import fault_sentences
from platform_assets.monitoring.drift import Seen
from platform_assets.monitoring.drift_maker import COLUMNS, PSI

MAX_ROWS = 20


def view(shown: Shown) -> tuple[str, Metadata]:
    """Show how a key was judged; of the newest one the fields farthest off too."""
    seen: Seen = shown.facts
    judged, index, mix = seen.judged, seen.judged.index or None, seen.judged.mix or None
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
    about: Metadata = {name: value for name, value in entries.items() if value is not None}
    if seen.rows is not None:
        top = seen.rows.filter(pl.col("is_failing") | (pl.col("check") == PSI)).head(MAX_ROWS)
        about["checks"] = table(top.drop("key").to_dicts(), columns=list(COLUMNS))
    if judged.is_faulty and judged.primary:
        return f"{fault_sentences.state(seen.hold)}: {fault_sentences.clause(judged.primary)}", about
    indexes = (("features", index), ("answers", mix))
    ranks = [f"{name} at percentile {one.percentile:.2f}" for name, one in indexes if one]
    against = f"{' and '.join(ranks)} of the training windows" if ranks else "no model to measure drift against yet"
    return f"{'drifting' if judged.verdict == 'drift' else 'fine'}: no fault; {against}", about
