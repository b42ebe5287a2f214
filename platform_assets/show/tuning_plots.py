"""Draw the charts of a search: the loss by trial, and by the value of each setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from platform_assets.records.tunings import FAILED, FINISHED, Trial, Tuning
from platform_assets.show import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SETTINGS = 6
"""Panels of a chart that are still read."""
COLUMNS = 3
SPREAD = 3.0
"""The axis of losses ends this many times the distance of the median from the best above it: one bad trial would
flatten the others."""


def history(trials: Sequence[Trial]) -> plots.Draw:
    """Draw the loss of each finished trial, the best so far, and which were ended early.

    Raises:
        ValueError: no trial has finished.
    """
    points = _finished(trials)

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        numbers, losses = zip(*points, strict=True)
        so_far = [min(losses[: place + 1]) for place in range(len(losses))]
        axes.scatter(numbers, losses, s=22, color=plots.colour(0), label="trial", zorder=3)
        axes.step(numbers, so_far, where="post", color=plots.colour(1), label="best so far")
        _draw_ended(axes, trials)
        axes.set(xlabel="trial", ylabel="log loss (nats) on the keys before the holdout")
        axes.set_ylim(*_limits(losses))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
        plots.legend(figure)

    return draw


def slices(tuning: Tuning, trials: Sequence[Trial]) -> plots.Draw:
    """Draw the loss of each finished trial by the value of each setting, the best trial marked.

    Raises:
        ValueError: no trial has finished.
    """
    points = _finished(trials)
    number = min(points, key=lambda point: point[1])[0]

    def draw(figure: Figure) -> None:
        space = tuning.space[:MOST_SETTINGS]
        rows = -(-len(space) // COLUMNS)
        grid = figure.subplots(rows, min(COLUMNS, len(space)), squeeze=False, sharey=True)
        for axes, setting in zip(grid.flat, space, strict=False):
            _draw_slice(axes, setting, points, trials, number)
            axes.set_ylim(*_limits([loss for _, loss in points]))
        for axes in list(grid.flat)[len(space) :]:
            axes.set_visible(False)
        grid[0, 0].set_ylabel("log loss (nats)")
        plots.legend(figure)

    return draw


def _draw_slice(
    axes: Axes, setting: dict[str, Any], points: Sequence[tuple[int, float]], trials: Sequence[Trial], number: int
) -> None:
    name, choices = setting["name"], setting.get("values")
    at = [trials[place - 1].values[name] for place, _ in points]
    places = at if choices is None else [choices.index(value) if value in choices else -1 for value in at]
    losses = [loss for _, loss in points]
    axes.scatter(places, losses, s=16, color=plots.colour(0), alpha=0.7, label="trial")
    winner = [place for place, _ in points].index(number)
    axes.scatter(
        places[winner : winner + 1], losses[winner : winner + 1], s=44, marker="D", color=plots.colour(1), label="best"
    )
    axes.set_xlabel(name.removeprefix("learner.").removeprefix("settings."), fontsize=8)
    axes.tick_params(labelsize=7)
    if choices is not None:
        axes.set_xticks(range(len(choices)), [str(value) for value in choices])
    elif setting["is_log"]:
        axes.set_xscale("log")
    axes.grid(axis="y")


def _draw_ended(axes: Axes, trials: Sequence[Trial]) -> None:
    """Mark trials that did not finish, at the bottom edge: their losses do not compare."""
    for position, (state, text) in enumerate((("pruned", "ended early"), (FAILED, "failed")), start=2):
        numbers = [number for number, trial in enumerate(trials, start=1) if trial.state == state]
        if numbers:
            heights = [0.02] * len(numbers)
            axes.scatter(
                numbers,
                heights,
                s=14,
                marker=plots.marker(position),
                color=plots.colour(position),
                label=text,
                transform=axes.get_xaxis_transform(),
            )


def _limits(losses: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(losses)
    best, median = ordered[0], ordered[len(ordered) // 2]
    room = max(median - best, abs(best) * 1e-3, 1e-6)
    return best - 0.25 * room, min(best + SPREAD * room, ordered[-1]) + 0.1 * room


def _finished(trials: Sequence[Trial]) -> list[tuple[int, float]]:
    points = [
        (number, float(trial.loss))
        for number, trial in enumerate(trials, start=1)
        if trial.state == FINISHED and trial.loss is not None
    ]
    if not points:
        raise ValueError("no trial has finished; a chart needs at least one.")
    return points
