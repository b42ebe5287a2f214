"""Draw the charts of `Measures.decided`, which differ by the kind of task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from platform_assets.operations.views.plots import COLOURS, INK, MUTED, Draw, colour, legend, marker
from platform_assets.product.tasks import MultiClass, Regression, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from platform_assets.evaluation.measures.measure import Decided, Tenth

MAX_CLASSES = 24
"""With more classes the numbers in the cells are too small to read."""


def pictures(task: Task, decided: Mapping[str, Decided]) -> dict[str, Draw]:
    """Return charts by title; none for a kind of task without charts of its own.

    Args:
        decided: `Measures.decided` by model.
    """
    if not decided:
        return {}
    if isinstance(task, MultiClass):
        return {"Confusion": confusion(next(iter(decided.values()))["confusion"], task.classes)}
    if isinstance(task, Regression):
        bins = {name: numbers["bins"] for name, numbers in decided.items()}
        return {"Expected and observed": expected_and_observed(bins, task.unit)}
    return {}


def confusion(rows: Sequence[Sequence[int]], classes: Sequence[str]) -> Draw:
    """Draw the confusion of classes: one row per true class, as shares of it.

    Args:
        rows: [K][K], by true class and then by chosen class.
        classes: names, in the order of the rows.
    """
    import numpy as np

    counts = np.asarray(rows, dtype=np.float64)
    if counts.shape != (len(classes), len(classes)) or not counts.sum():
        raise ValueError(
            f"counts have shape {counts.shape} for {len(classes)} classes; expected one of each, and rows."
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    names = [name.replace("_", " ") for name in classes]

    def draw(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        axes.imshow(
            shares, cmap=LinearSegmentedColormap.from_list("blues", [f"{COLOURS[0]}00", COLOURS[0]]), vmin=0, vmax=1
        )
        axes.set_aspect("auto")
        if len(classes) <= MAX_CLASSES:
            for across in range(len(classes)):
                for down in range(len(classes)):
                    share = shares[down, across]
                    if share >= 0.005:
                        ink = "#FFFFFF" if share > 0.5 else INK
                        axes.text(across, down, f"{share:.0%}", ha="center", va="center", fontsize=7, color=ink)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(xlabel="chosen class, as share of the true class", ylabel="true class")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return draw


def expected_and_observed(bins: Mapping[str, Sequence[Tenth]], unit: str) -> Draw:
    """Draw mean label against mean answer for tenths of the rows, one line per model.

    Args:
        bins: by model.
        unit: of labels and answers.
    """
    if not bins or not all(bins.values()):
        raise ValueError("there are no bins; a chart needs at least one per model.")
    ends = [end for rows in bins.values() for row in rows for end in (row["value"], row["label"])]
    of_unit = f" ({unit})" if unit else ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(
            [min(ends), max(ends)],
            [min(ends), max(ends)],
            color=MUTED,
            linewidth=1,
            linestyle=(0, (4, 3)),
            label="perfect",
        )
        for position, (name, rows) in enumerate(bins.items()):
            values, labels = [row["value"] for row in rows], [row["label"] for row in rows]
            axes.plot(values, labels, color=colour(position), marker=marker(position), label=name)
        axes.set(xlabel=f"mean answer{of_unit}, by tenths of the rows", ylabel=f"mean label{of_unit}")
        axes.grid()
        legend(figure)

    return draw
