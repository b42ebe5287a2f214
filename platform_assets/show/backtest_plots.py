"""Draw the outcomes of a backtest: quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from platform_assets.compute.backtest_outcomes import Outcome
from platform_assets.compute.backtest_policies import OWN
from platform_assets.show import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
"""CPU seconds and log loss of each plan."""


def quality_against_cost(outcomes: Sequence[Outcome], calendars: Points, random: Points) -> plots.Draw:
    """Draw log loss by CPU seconds of retraining: policies over even calendars of every count and random dates.

    Policies that chose the same dates share a point.

    Args:
        outcomes: one per policy.
        calendars: evenly spaced dates, from no retraining to one at every decision.
        random: plans with random dates.

    Raises:
        ValueError: without an outcome or a calendar.
    """
    if not outcomes or not calendars:
        raise ValueError(f"got {len(outcomes)} outcomes and {len(calendars)} calendars; a chart needs some of each.")

    points: dict[tuple[float, float], list[str]] = {}
    for outcome in outcomes:
        label = f"{outcome.policy} ({outcome.retrainings})"
        points.setdefault((outcome.cpu_s, outcome.log_loss), []).append(label)
    highlighted = {(outcome.cpu_s, outcome.log_loss) for outcome in outcomes if outcome.policy == OWN}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if random:
            costs, losses = zip(*random, strict=True)
            axes.scatter(costs, losses, s=9, color=plots.MUTED, alpha=0.35, linewidths=0, label="random dates")
        axes.plot(*zip(*calendars, strict=True), color=plots.MUTED, linewidth=1.2, label="even calendars")
        furthest = max(cost for cost, _ in (*calendars, *points))
        for index, (point, names) in enumerate(sorted(points.items())):
            tone = int(point in highlighted)
            axes.plot(*point, color=plots.colour(tone), marker=plots.marker(tone), markersize=8, zorder=4)
            is_better = point[1] < min((loss for cost, loss in calendars if cost <= point[0]), default=point[1])
            is_right = point[0] > 0.8 * furthest
            axes.annotate(
                "\n".join(names),
                point,
                xytext=(-6 if is_right else 6, -16 if is_better else 38 if index % 2 else 11),
                textcoords="offset points",
                ha="right" if is_right else "left",
                fontsize=8,
                bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 0.8},
                zorder=3,
            )
        axes.set(xlabel="CPU seconds of retraining", ylabel="log loss (nats), lower is better")
        axes.margins(x=0.1, y=0.12)
        axes.grid()
        plots.legend(figure)

    return draw
