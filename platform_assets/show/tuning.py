"""Build the metadata of a search: the best trial, what it would change, charts, and all trials."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from platform_assets.records.tunings import FAILED, FINISHED, PRUNED, Trial, Tuning
from platform_assets.show import proposal, tuning_plots, values
from platform_assets.specs.base import ProductSpec
from platform_assets.wording import counted

MOST_ROWS = 50


def best(trials: Sequence[Trial]) -> tuple[int, Trial] | None:
    """Return the finished trial with the lowest loss, and its number; the first of equals."""
    finished = [(number, trial) for number, trial in enumerate(trials, start=1) if trial.state == FINISHED]
    return min(finished, key=lambda item: item[1].loss or 0.0, default=None)


def edges(spec: ProductSpec, trial: Trial) -> list[str]:
    """Return one sentence for each value of a trial that lies at an edge of what is searched."""
    sentences = (setting.edge(trial.values[setting.name]) for setting in spec.search if setting.name in trial.values)
    return [sentence for sentence in sentences if sentence is not None]


def summary(trials: Sequence[Trial]) -> str:
    """Return what came of a search in one sentence."""
    counts = {state: sum(trial.state == state for trial in trials) for state in (FINISHED, PRUNED, FAILED)}
    outcomes = f"{counted(len(trials), 'trial')}, {counts[PRUNED]} ended early, {counts[FAILED]} failed"
    winner = best(trials)
    if winner is None:
        return f"{outcomes}; none finished"
    number, trial = winner
    first = trials[0]
    if number == 1:
        return f"{outcomes}; none is better than the product's file (loss {trial.loss:.5f})"
    gain = (
        "" if first.loss is None or trial.loss is None else f", {first.loss - trial.loss:.5f} below the product's file"
    )
    return f"{outcomes}; the best is trial {number} with loss {trial.loss:.5f}{gain}"


def metadata(spec: ProductSpec, tuning: Tuning, trials: Sequence[Trial]) -> values.Metadata:
    """Return the metadata of a search with at least one trial."""
    winner = best(trials)
    shown: values.Metadata = {
        values.RESULT: summary(trials),
        "trials": len(trials),
        "cutoff": tuning.cutoff,
        "judged_on": f"{tuning.judged_keys[0]} to {tuning.judged_keys[-1]}",
        "table": values.table([_row(number, trial) for number, trial in _ordered(trials)[:MOST_ROWS]]),
        "cpu_s": sum(trial.cpu_s for trial in trials),
    }
    if winner is None:
        return shown
    _, trial = winner
    change = proposal.of(spec, trial.values)
    return {
        values.RESULT: summary(trials),
        "loss": trial.loss,
        "proposal": dg.MetadataValue.md(f"```diff\n{change.text()}\n```"),
        **({"edges": values.bullets(sentences)} if (sentences := edges(spec, trial)) else {}),
        "history": values.image(tuning_plots.history(trials), "Loss by trial"),
        "slices": values.image(tuning_plots.slices(tuning, trials), "Loss by setting"),
        **shown,
    }


def _ordered(trials: Sequence[Trial]) -> list[tuple[int, Trial]]:
    numbered = list(enumerate(trials, start=1))
    return sorted(numbered, key=lambda item: (item[1].loss is None, item[1].loss or 0.0, item[0]))


def _row(number: int, trial: Trial) -> values.Row:
    settings: values.Row = {
        name: value if isinstance(value, int | float | str) or value is None else str(value)
        for name, value in trial.values.items()
    }
    return {"trial": number, "state": trial.state, "loss": trial.loss, **settings, "cpu_s": trial.cpu_s}
