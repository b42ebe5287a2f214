"""Draw what a backtest found: quality against what it cost.

Belongs here: the chart of outcomes. Does not belong here: the outcomes (`compute.backtest`), or the look of charts
(`compute.plots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from platform_assets.compute import plots
from platform_assets.compute.backtest_outcomes import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
"""CPU seconds and log loss, a plan each."""


def quality_against_cost(outcomes: Sequence[Outcome], evenly: Points, drawn: Points) -> bytes:
    """Draw log loss by CPU seconds of retraining: policies over even calendars of every count and random dates.

    Args:
        outcomes: of the policies.
        evenly: even calendars, from no retraining to one at every decision.
        drawn: plans with random dates.
    """
    if not outcomes or not evenly:
        raise ValueError(f"got {len(outcomes)} outcomes and {len(evenly)} calendars; a chart needs some of each.")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if drawn:
            costs, losses = zip(*drawn, strict=True)
            axes.scatter(costs, losses, s=9, color=plots.MUTED, alpha=0.35, linewidths=0, label="random dates")
        axes.plot(*zip(*evenly, strict=True), color=plots.MUTED, linewidth=1.2, label="even calendars")
        for place, each in enumerate(outcomes):
            colour, marker = plots.colour(place), plots.marker(place // len(plots.COLOURS))
            axes.plot([each.cpu_s], [each.log_loss], color=colour, marker=marker, markersize=7, zorder=3)
            up = 9 if place % 2 else -13
            axes.annotate(
                f"{each.policy} ({each.retrainings})",
                (each.cpu_s, each.log_loss),
                xytext=(4, up),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
        plots.title(figure, "What each policy buys (retrainings)")
        axes.set(xlabel="CPU seconds of retraining", ylabel="log loss (nats), lower is better")
        axes.margins(x=0.1, y=0.12)
        axes.grid()
        plots.legend(figure)

    return plots.png(draw)
