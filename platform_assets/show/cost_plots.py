"""Draw what trainings cost: by month and accepted model, on spot nodes against on demand, and how long they waited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import accepted
from platform_assets.records.attempts import FINISHED
from platform_assets.show.plots import COLOURS, INK, MUTED, Draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BARS = 12
"""How many of the newest months and models are drawn."""
MAX_WAITS = 60
SEGMENTS = {
    accepted.USEFUL: ("in an accepted model", COLOURS[2]),
    accepted.REJECTED: ("not accepted (yet)", COLOURS[0]),
    accepted.LOST: ("lost, done again", COLOURS[1]),
    accepted.FAILED: ("came to nothing", COLOURS[3]),
}
"""Label and colour by what the money bought, in the order of stacking."""
MAX_TICK_LETTERS = 10


def money(months: pl.DataFrame, models: pl.DataFrame, *, budget_usd: float | None = None) -> Draw:
    """Draw the spending by month and by accepted model, stacked by what it bought.

    Args:
        months: columns `month` and `accepted.sums`, oldest first.
        models: from `accepted.models`.
        budget_usd: per month; drawn as a line where the scale allows it.
    """
    if months.is_empty() or models.is_empty():
        raise ValueError(f"got {len(months)} months and {len(models)} models; a chart of money needs some of each.")
    names = [_name(release, cutoff) for release, cutoff in models.tail(MAX_BARS).select("release", "cutoff").rows()]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        highest = _stack(left, months["month"].to_list()[-MAX_BARS:], months.tail(MAX_BARS))
        if budget_usd is not None and 0 < budget_usd <= 4 * highest:
            left.set_ylim(0, max(budget_usd, highest) * 1.12)
            left.axhline(budget_usd, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            left.annotate(
                f"budget {budget_usd:g}", (0.0, budget_usd), xycoords=("axes fraction", "data"), xytext=(3, 3),
                textcoords="offset points", fontsize=7,
            )  # fmt: skip
        left.set(xlabel="month", ylabel="US dollars at list price")
        _stack(right, names, models.tail(MAX_BARS))
        right.set(xlabel="accepted model (release, cutoff)")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=1.2, columnspacing=1.4)

    return draw


def spot(paid: pl.DataFrame) -> Draw:
    """Draw the price paid per profile next to the price of the same seconds on demand.

    Args:
        paid: columns `profile` and `costs.sums`.
    """
    if paid.is_empty():
        raise ValueError("there is no profile; a chart of spot prices needs at least one.")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, (usd, on_demand_usd) in enumerate(paid.select("usd", "on_demand_usd").iter_rows()):
            axes.barh(row - 0.19, usd, height=0.34, color=COLOURS[2], label="paid" if row == 0 else None)
            axes.barh(row + 0.19, on_demand_usd, height=0.34, color=MUTED, label="on demand" if row == 0 else None)
            saving = f"{1 - usd / on_demand_usd:.0%} saved" if on_demand_usd > usd else ""
            for height, value, remark in ((row - 0.19, usd, saving), (row + 0.19, on_demand_usd, "")):
                text = f"{_usd(value)}  {remark}"
                axes.annotate(text, (value, height), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(paid)), paid["profile"].to_list())
        axes.set_ylim(len(paid) - 0.4, -0.6)
        axes.margins(x=0.2)
        axes.set_xlabel("US dollars")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=2)

    return draw


def waiting(waits: pl.DataFrame) -> Draw:
    """Draw how long the newest attempts waited for their node.

    Args:
        waits: attempts with a known wait, by `history.attempts.SCHEMA`, oldest first.
    """
    if waits.is_empty():
        raise ValueError("no attempt says how long it waited; a chart of waiting needs at least one.")
    newest = waits.tail(MAX_WAITS).select("profile", "waited_s", pl.col("reason") == FINISHED)
    bars = newest.rows()

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for tone, profile in enumerate(sorted({profile for profile, _, _ in bars})):
            positions = [position for position, bar in enumerate(bars) if bar[0] == profile]
            colour = COLOURS[tone % len(COLOURS)]
            axes.bar(positions, [bars[position][1] for position in positions], color=colour, width=0.7, label=profile)
        unfinished = [(position, wait) for position, (_, wait, is_finished) in enumerate(bars) if not is_finished]
        if unfinished:
            ends, heights = zip(*unfinished, strict=True)
            axes.scatter(ends, heights, marker="x", color=INK, s=22, zorder=3, label="did not finish")
        axes.set(xlabel="attempts, the newest to the right", ylabel="seconds from request to start")
        axes.set_xticks([])
        axes.set_xlim(-0.8, max(len(bars), 6) - 0.2)
        axes.grid(axis="y")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=4)

    return draw


def _stack(axes: Axes, names: Sequence[str], bars: pl.DataFrame) -> float:
    """Draw stacked bars and return the height of the highest."""
    floors = [0.0] * len(bars)
    for part, (words, tone) in SEGMENTS.items():
        heights = bars[part].to_list()
        axes.bar(range(len(bars)), heights, bottom=floors, color=tone, width=0.66, label=words)
        floors = [floor + height for floor, height in zip(floors, heights, strict=True)]
    for position, height in enumerate(floors):
        axes.annotate(
            _usd(height), (position, height), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7
        )
    is_tight = len(names) > 4
    axes.set_xticks(range(len(names)), names, fontsize=7, rotation=60 if is_tight else 0)
    axes.set_xlim(-0.7, max(len(names), 3) - 0.3)
    # A bar of height 0 on top pins the upper edge to its foot, so margins have no effect.
    axes.set_ylim(0, (max(floors) or 1.0) * 1.12)
    axes.grid(axis="y")
    return max(floors)


def _name(release: int | None, cutoff: str | None) -> str:
    return "open" if release is None else f"{release}: {str(cutoff)[-MAX_TICK_LETTERS:]}"


def _usd(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"
