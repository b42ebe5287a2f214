"""Draw what trainings cost: by month and accepted model, on spot nodes against on demand, and how long they waited.

Belongs here: charts of money and waiting, as PNG bytes. Does not belong here: the sums (`compute.costs`,
`compute.accepted`), or the look of charts (`show.plots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from platform_assets.compute import accepted
from platform_assets.records.attempts import FINISHED
from platform_assets.show.plots import COLOURS, INK, MUTED, png, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 12
"""How many of the newest months and models are drawn."""
MOST_WAITS = 60
SEGMENTS = {
    accepted.USEFUL: ("in an accepted model", COLOURS[2]),
    accepted.REJECTED: ("not accepted (yet)", COLOURS[0]),
    accepted.LOST: ("lost, done again", COLOURS[1]),
    accepted.FAILED: ("came to nothing", COLOURS[3]),
}
"""What money bought: words and colour, in the order in which they are stacked."""
LONGEST_TICK = 10


def money(months: pl.DataFrame, models: pl.DataFrame, *, budget_usd: float | None = None) -> bytes:
    """Draw what was spent by month and by accepted model, stacked by what it bought.

    Args:
        months: `month` and `accepted.sums`, in order.
        models: from `accepted.models`.
        budget_usd: of a month, drawn as a line where the scale allows it.
    """
    if months.is_empty() or models.is_empty():
        raise ValueError(f"got {len(months)} months and {len(models)} models; a chart of money needs some of each.")
    names = [_name(release, cutoff) for release, cutoff in models.tail(MOST_BARS).select("release", "cutoff").rows()]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        most = _stack(left, months["month"].to_list()[-MOST_BARS:], months.tail(MOST_BARS))
        if budget_usd is not None and 0 < budget_usd <= 4 * most:
            left.set_ylim(0, max(budget_usd, most) * 1.12)
            left.axhline(budget_usd, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            left.annotate(
                f"budget {budget_usd:g}", (0.0, budget_usd), xycoords=("axes fraction", "data"), xytext=(3, 3),
                textcoords="offset points", fontsize=7,
            )  # fmt: skip
        left.set(xlabel="month", ylabel="US dollars at list price")
        _stack(right, names, models.tail(MOST_BARS))
        right.set(xlabel="accepted model (release, cutoff)")
        title(figure, "What trainings cost")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=1.2, columnspacing=1.4)

    return png(draw)


def spot(paid: pl.DataFrame) -> bytes:
    """Draw by profile what was paid, and what the same seconds would have cost on demand.

    Args:
        paid: `profile` and `costs.sums`.
    """
    if paid.is_empty():
        raise ValueError("there is no profile; a chart of spot prices needs at least one.")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (own, other) in enumerate(paid.select("usd", "on_demand_usd").iter_rows()):
            axes.barh(place - 0.19, own, height=0.34, color=COLOURS[2], label="paid" if place == 0 else None)
            axes.barh(place + 0.19, other, height=0.34, color=MUTED, label="on demand" if place == 0 else None)
            saved = f"{1 - own / other:.0%} saved" if other > own else ""
            for height, value, more in ((place - 0.19, own, saved), (place + 0.19, other, "")):
                text = f"{_usd(value)}  {more}"
                axes.annotate(text, (value, height), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(paid)), paid["profile"].to_list())
        axes.set_ylim(len(paid) - 0.4, -0.6)
        axes.margins(x=0.2)
        axes.set_xlabel("US dollars")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        title(figure, "Paid, and the same seconds on demand")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=2)

    return png(draw)


def waiting(waits: pl.DataFrame) -> bytes:
    """Draw how long the newest attempts waited for their node.

    Args:
        waits: attempts that say so, by `history.attempts.SCHEMA`, oldest first.
    """
    if waits.is_empty():
        raise ValueError("no attempt says how long it waited; a chart of waiting needs at least one.")
    newest = waits.tail(MOST_WAITS).select("profile", "waited_s", pl.col("reason") == FINISHED)
    shown = newest.rows()

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for tone, profile in enumerate(sorted({profile for profile, _, _ in shown})):
            places = [place for place, each in enumerate(shown) if each[0] == profile]
            colour = COLOURS[tone % len(COLOURS)]
            axes.bar(places, [shown[place][1] for place in places], color=colour, width=0.7, label=profile)
        ended = [(place, wait) for place, (_, wait, is_finished) in enumerate(shown) if not is_finished]
        if ended:
            places, heights = [place for place, _ in ended], [wait for _, wait in ended]
            axes.scatter(places, heights, marker="x", color=INK, s=22, zorder=3, label="did not finish")
        axes.set(xlabel="attempts, the newest to the right", ylabel="seconds from request to start")
        axes.set_xticks([])
        axes.set_xlim(-0.8, max(len(shown), 6) - 0.2)
        axes.grid(axis="y")
        title(figure, "Waiting for a node")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=4)

    return png(draw)


def _stack(axes: Axes, names: Sequence[str], bars: pl.DataFrame) -> float:
    """Draw bars over their names; return the height of the highest."""
    floors = [0.0] * len(bars)
    for part, (words, tone) in SEGMENTS.items():
        heights = bars[part].to_list()
        axes.bar(range(len(bars)), heights, bottom=floors, color=tone, width=0.66, label=words)
        floors = [floor + height for floor, height in zip(floors, heights, strict=True)]
    for place, height in enumerate(floors):
        axes.annotate(_usd(height), (place, height), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7)
    is_tight = len(names) > 4
    axes.set_xticks(range(len(names)), names, fontsize=7, rotation=60 if is_tight else 0)
    axes.set_xlim(-0.7, max(len(names), 3) - 0.3)
    # A bar of nothing on top pins the upper edge to its foot, so margins have no effect.
    axes.set_ylim(0, (max(floors) or 1.0) * 1.12)
    axes.grid(axis="y")
    return max(floors)


def _name(release: int | None, cutoff: str | None) -> str:
    return "open" if release is None else f"{release}: {str(cutoff)[-LONGEST_TICK:]}"


def _usd(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"
