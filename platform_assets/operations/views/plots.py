"""Draw the charts of a training and a verdict; size, style and palette of all charts are here.

Each function returns what draws its chart into an empty figure, for `operations.views.vector`. matplotlib (0.6 CPU s)
loads when a chart is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from platform_assets.evaluation.measures.of_task import measures_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from platform_assets.evaluation.measures.measure import Bin
    from platform_assets.evaluation.verdict import Compared
    from platform_assets.product.tasks import Task

Draw = Callable[["Figure"], None]
"""Draws a chart into an empty figure."""

INK, MUTED, RULE, GRID = "#1F2937", "#6B7280", "#D1D5DB", "#EEF0F3"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
"""Okabe and Ito's palette, told apart by colour-blind readers; markers differ too, for print."""

LOSSES = {"train_loss": "learned from", "judged_loss": "validation"}
"""Points of a training curve, and whose rows they are about."""
FILLS = {"train_loss": "none"}
"""Stars of losses on rows that were learned from are hollow."""

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names of classes and values of slices are data: two dollar signs are not a formula
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def loss_curve(history: Sequence[Mapping[str, float]]) -> Draw:
    """Draw each column of a training history that ends in `_loss`, by epoch or round.

    Args:
        history: one mapping per epoch with `epoch` and one or more losses, such as `train_loss` and `judged_loss`.
    """
    names = losses_of(history)
    is_blended = any(point.get("is_blend") for point in history)
    axis = "epoch or round" + (" (stars: the whole blend; hollow on rows learned from)" if is_blended else "")

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for position, name in enumerate(names):
            label = LOSSES.get(name) or name.removesuffix("_loss").replace("_", " ")
            fit = {"label": label, "marker": marker(position)}
            # A blend is another model than that of the points before it, so its loss is a star.
            fill = FILLS.get(name, "full")
            star = {"marker": "*", "markersize": 11, "linestyle": "none", "fillstyle": fill, "label": None}
            for is_blend, look in ((False, fit), (True, star)):
                rows = [row for row in history if row.get(name) is not None and bool(row.get("is_blend")) == is_blend]
                if rows:
                    epochs, losses = [row["epoch"] for row in rows], [row[name] for row in rows]
                    axes.plot(epochs, losses, color=colour(position), **look)
        axes.set(xlabel=axis, ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
        axes.margins(x=0.04, y=0.12)
        if len(names) > 1:
            legend(figure)

    return draw


def losses_of(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the columns of a training history that are losses, in order."""
    return list(dict.fromkeys(name for row in history for name in row if name.endswith("_loss")))


def calibration_plot(
    tables: Mapping[str, Sequence[Bin]], task: Task, errors: Mapping[str, float | None] | None = None
) -> Draw:
    """Draw observed against expected values, one line per model.

    Args:
        tables: from `Task.calibration_table`, by model.
        task: names the axes.
        errors: expected calibration error by model, for the legend.
    """
    ceiling = max(max(row["expected"], row["observed"]) for table in tables.values() for row in table)
    ceiling = min(1.0, math.ceil(ceiling * 10 + 0.3) / 10)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, ceiling], [0, ceiling], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        for position, (name, table) in enumerate(tables.items()):
            value = None if errors is None else errors[name]
            error = "" if value is None else f" (ECE {value:.3f})"
            expected, observed = [row["expected"] for row in table], [row["observed"] for row in table]
            axes.plot(expected, observed, color=colour(position), marker=marker(position), label=f"{name}{error}")
        axes.set(xlabel=measures_of(task).expected_title, ylabel=measures_of(task).observed_title)
        axes.set(xlim=(0, ceiling), ylim=(0, ceiling))
        axes.grid()
        legend(figure)

    return draw


def difference_chart(comparisons: Sequence[Compared], task: Task, max_drop: float) -> Draw:
    """Draw a verdict's paired differences with their intervals, each in the measure by which it is judged.

    The headline against the champion, the allowed drop shaded; log loss against all; calibration error against the
    champion. One panel where there is no champion.

    Args:
        comparisons: of a verdict.
        task: names the measures.
        max_drop: how much worse than the champion the headline may be.
    """
    champion = [item for item in comparisons if item["against"] == "champion"]
    baselines = [item for item in comparisons if item["against"] != "champion"]
    headline, loss, calibration = measures_of(task).compared
    panels = [
        (rows, measure)
        for rows, measure in ((champion, headline), ([*champion, *baselines], loss), (champion, calibration))
        if rows
    ]

    def draw(figure: Figure) -> None:
        ratios = [len(rows) + 0.6 for rows, _ in panels]
        grid = figure.subplots(len(panels), squeeze=False, height_ratios=ratios)
        for axes, (rows, measure) in zip(grid[:, 0], panels, strict=True):
            side = "right" if measure.is_more_better else "left"
            axes.set_xlabel(f"difference in {measure.axis}, {side} is better")
            if measure is headline:
                axes.axvspan(
                    -max_drop, 0, color=COLOURS[0], alpha=0.10, linewidth=0, label=f"allowed drop {max_drop:g}"
                )
            axes.axvline(0, color=MUTED, linewidth=1)
            for height, item in enumerate(rows):
                numbers, position = item[measure.name], 0 if item["passed"] else 1
                assert isinstance(numbers, Mapping)
                ends, difference = [numbers["low"], numbers["high"]], numbers["difference"]
                axes.plot(ends, [height, height], color=colour(position), solid_capstyle="round")
                axes.plot(difference, height, marker=marker(position), color=colour(position))
                text = f"{difference:+.4f}, {'passed' if item['passed'] else 'failed'}"
                note(axes, text, (difference, height), (0, 8), ha="center")
            axes.set_yticks(range(len(rows)), [str(item["against"]) for item in rows])
            axes.set_ylim(len(rows) - 0.5, -0.8)
            axes.margins(x=0.15)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x")
        if champion:
            legend(figure)

    return draw


def colour(position: int) -> str:
    """Return the colour of the model or mark at a position."""
    return COLOURS[position % len(COLOURS)]


def marker(position: int) -> str:
    """Return the marker of the model or mark at a position."""
    return MARKERS[position % len(MARKERS)]


def note(axes: Axes, text: str, at: tuple[Any, Any], away: tuple[int, int], **look: Any) -> None:
    """Write next to a point, so many points of a print away: the distance stays where the scale of the data changes."""
    axes.annotate(text, at, xytext=away, textcoords="offset points", **look)


def legend(figure: Figure, axes: Axes | None = None) -> None:
    """Add the legend of a panel, by default the first, above the charts and outside of them."""
    figure.legend(
        *(axes or figure.axes[0]).get_legend_handles_labels(),
        loc="outside upper left",
        ncols=4,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.3,
    )
