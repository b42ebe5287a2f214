"""Show how keys were judged: one sentence, drift numbers and chart, failing checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from platform_assets.facts import held_faults
from platform_assets.makers.drift import COLUMNS, PSI
from platform_assets.records.faults import Accepted, Dropped, Fault, FaultRecord, Nulled, Repair, Repaired
from platform_assets.records.judgements import Judgement, Primary
from platform_assets.show import values
from platform_assets.show.drift_plots import drift_chart

if TYPE_CHECKING:
    from platform_assets.history.holds import Hold

MAX_ROWS = 20
SETTLED: Mapping[type[FaultRecord], str] = {
    Accepted: "accepted",
    Dropped: "dropped",
    Repair: "repair asked for",
    Repaired: "repaired",
}


def result(judged: Judgement, hold: Hold | None = None) -> str:
    """Return the judgement of a key in one sentence: held and why, drifting, or fine.

    Args:
        judged: how the key was judged.
        hold: its newest fault record.
    """
    primary = judged.primary or None
    if judged.is_faulty and primary is not None:
        return f"{state(hold)}: {fault(primary)}"
    indexes = (("features", judged.index or None), ("answers", judged.mix or None))
    ranks = [f"{name} at percentile {index.percentile:.2f}" for name, index in indexes if index]
    against = f"{' and '.join(ranks)} of the training windows" if ranks else "no model to measure drift against yet"
    return f"{'drifting' if judged.verdict == 'drift' else 'fine'}: no fault; {against}"


def fault(primary: Primary | Fault) -> str:
    """Return a fault as a clause: source, column, what was delivered and what was expected."""
    column = f".{primary.column}" if primary.column else ""
    return f"{primary.source}{column} fails {primary.check}: {primary.came}; expected {primary.expected}"


def standing(faults: held_faults.Faults) -> str:
    """Return which keys are held, or else given up, and why: the newest fault speaks for the others."""
    held = held_faults.held(faults)
    for keys, words in ((list(held), "held"), (list(faults), "given up and left out of training")):
        if keys:
            return f"{', '.join(keys)} {words}: {fault(faults[keys[-1]][0])}"
    return "No key is held."


def metadata(judged: Judgement) -> values.Metadata:
    """Return the metadata of a key: verdict, failing checks, drift indexes over their limits, what it rests on."""
    index, mix = judged.index or None, judged.mix or None
    entries: dict[str, str | float | None] = {
        "fault": fault(judged.primary) if judged.primary else None,
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


def newest(judged: Mapping[str, Judgement], rows: pl.DataFrame) -> values.Metadata:
    """Return what only the newest key of a run shows: the chart, failing checks and the fields farthest off.

    Args:
        judged: the keys up to it, in order.
        rows: of the newest key.
    """
    top = rows.filter(pl.col("is_failing") | (pl.col("check") == PSI)).head(MAX_ROWS)
    return {
        "drift": values.image(
            drift_chart(judged), "Drift of the newest keys from the training rows, over the limit of each"
        ),
        "checks": values.table(top.drop("key").to_dicts(), columns=list(COLUMNS)),
    }


def faulty(primary: Mapping[str, Primary]) -> dg.MarkdownMetadataValue:
    """Return the primary fault of each faulty key as a table."""
    return values.table([{"key": key, **item.document()} for key, item in list(primary.items())[:MAX_ROWS]])


def state(hold: Hold | None) -> str:
    """Return what became of a faulty key: held, left out, dropped, accepted or repaired."""
    record = None if hold is None else hold.record
    if record is None or isinstance(record, Fault):
        return "held"
    if isinstance(record, Nulled):
        return f"{record.source} left out"
    return next((words for kind, words in SETTLED.items() if isinstance(record, kind)), "held")
