"""Draw a product's quality, drift, faults, decisions and releases over its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.intervals import inside
from platform_assets.operations.views.plots import COLOURS, INK, MUTED, RULE, Draw, legend, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from platform_assets.evaluation.measures.measure import Measure
    from platform_assets.product.tasks import Task
    from platform_assets.store.records.performance import Measured

MAX_TICKS = 9
DASHED = (0, (4, 3))

ACTIONS = {"wait": ("o", MUTED, 3), "retrain": ("^", COLOURS[2], 7), "alert_fault": ("X", COLOURS[1], 7)}
"""Marker, colour and size by a decision's action; others are drawn as diamonds."""


def quality_by_key(trail: Mapping[str, Measured], task: Task, *, releases: Mapping[str, str] | None = None) -> Draw:
    """Draw the headline and log loss of each key, and of the trailing window with its interval.

    A dashed line next to log loss is the model's own expectation on the same rows.

    Args:
        trail: numbers by key, oldest first. A key without labels takes room on the axis and has no point.
        task: names the measures.
        releases: label by key at which another model went live; drawn as a line.
    """
    keys = list(trail)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, measure in zip(panels, measures_of(task).of_answers[:2], strict=True):
            metric = measure.name
            _draw_window(axes, trail, measure)
            points = [
                (position, value)
                for position, notes in enumerate(trail.values())
                if (value := (notes.quality or {}).get(metric)) is not None
            ]
            at, values = [place for place, _ in points], [value for _, value in points]
            axes.scatter(at, values, s=14, color=INK, label="one key", zorder=3)
            if metric == "log_loss":
                expected = [notes.expected_log_loss for notes in trail.values()]
                axes.plot(expected, color=COLOURS[1], linewidth=1.2, linestyle=DASHED, label="its own expectation")
            for key, text in (releases or {}).items():
                if key not in keys:
                    continue
                axes.axvline(keys.index(key), color=COLOURS[2], linewidth=1)
                if metric != "log_loss":
                    above = {"xycoords": ("data", "axes fraction"), "color": COLOURS[2], "fontsize": 7}
                    note(axes, text, (keys.index(key), 1), (3, -8), **above)
            axes.set_ylabel(measure.axis)
            axes.grid(axis="y")
            axes.margins(y=0.12)
        _draw_keys(panels[-1], keys)
        legend(figure, panels[1])

    return draw


def drift_timeline(
    drift: Mapping[str, float | None],
    *,
    answers: Mapping[str, float | None] | None = None,
    limit: float | None = None,
    decisions: Mapping[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
    releases: Mapping[str, str] | None = None,
) -> Draw:
    """Draw drift, faults, decisions and releases on one line of keys.

    Args:
        drift: percentile (0 to 1) of the index among training windows by key, oldest first; None without an index.
        answers: the same for the mix of answers, for some of the keys.
        limit: percentile from which on it counts as drift; drawn as a line.
        decisions: action by key; see `ACTIONS`.
        faults: label by faulty key, such as `weather: frozen`.
        releases: label by key at which a model went live.
    """
    decisions, faults, releases = decisions or {}, faults or {}, releases or {}
    keys = list(drift)
    position_of = {key: position for position, key in enumerate(keys)}

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for name, index, tone in (("features", drift, 0), ("answers", answers or {}, 3)):
            values = [float("nan") if (value := index.get(key)) is None else value for key in keys]
            if index:
                above.plot(values, color=COLOURS[tone], marker="o", markersize=3, label=name)
        if limit is not None:
            above.axhline(limit, color=COLOURS[1], linewidth=1, linestyle=DASHED, label=f"limit {limit:g}")
        for panel in (above, below):
            for key in faults:
                panel.axvspan(position_of[key] - 0.5, position_of[key] + 0.5, color=COLOURS[1], alpha=0.15, linewidth=0)
        above.set(ylabel="percentile in training", ylim=(-0.03, 1.06))
        above.grid(axis="y")
        _draw_lanes(below, position_of, decisions, faults, releases)
        _draw_keys(below, keys)
        legend(figure)

    return draw


def _draw_window(axes: Axes, trail: Mapping[str, Measured], measure: Measure) -> None:
    points: list[tuple[int, float, float, float]] = []
    for position, notes in enumerate(trail.values()):
        # An interval from few keys reaches beyond the range of the measure, and would set the scale.
        interval = inside(notes.window.quality.get(measure.name), measure) if notes.window else None
        if interval is not None and interval.low is not None and interval.high is not None:
            points.append((position, interval.value, interval.low, interval.high))
    if points:
        positions, values, lows, highs = zip(*points, strict=True)
        axes.fill_between(positions, lows, highs, color=COLOURS[0], alpha=0.15, linewidth=0, label="interval")
        axes.plot(positions, values, color=COLOURS[0], label="last keys")


def _draw_lanes(
    axes: Axes,
    position_of: Mapping[str, int],
    decisions: Mapping[str, str],
    faults: Mapping[str, str],
    releases: Mapping[str, str],
) -> None:
    lanes = ("release", "decision", "fault")
    for key, action in decisions.items():
        marker, colour, size = ACTIONS.get(action, ("D", INK, 6))
        axes.plot(position_of[key], 1, marker=marker, color=colour, markersize=size, linestyle="none")
        if action == "retrain":
            note(axes, action, (position_of[key], 1), (0, 7), ha="center", fontsize=7)
    for height, lane, colour in ((0, releases, COLOURS[2]), (2, faults, COLOURS[1])):
        previous = None
        for key, text in lane.items():
            axes.plot(position_of[key], height, marker="D" if height == 0 else "X", color=colour, linestyle="none")
            if text != previous:
                note(axes, text, (position_of[key], height), (6, 4), fontsize=7, color=colour)
            previous = text
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=RULE, linewidth=0.6)


def _draw_keys(axes: Axes, keys: Sequence[str]) -> None:
    step = max(1, -(-len(keys) // MAX_TICKS))
    positions = list(range(0, len(keys), step))
    axes.set_xticks(positions, [keys[position] for position in positions], fontsize=8)
    axes.set_xlim(-0.7, len(keys) - 0.3)
