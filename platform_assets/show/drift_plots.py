"""Draw how far each key was from its model's training rows.

Belongs here: the chart of drift. Does not belong here: the index (`compute.drift`), or the look of charts
(`show.plots`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from platform_assets.show import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from platform_assets.records.judgements import Judgement


def drift_chart(judged: Mapping[str, Judgement]) -> bytes:
    """Draw the drift indexes of features and answers by key, each over its limit, and the keys that have a fault.

    Args:
        judged: by key in order.

    Raises:
        ValueError: no key.
    """
    if not judged:
        raise ValueError("there is no judged key; a chart of drift needs at least one.")
    keys = list(judged)
    faulty = [place for place, found in enumerate(judged.values()) if found.is_faulty]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        features, answers = [found.index for found in judged.values()], [found.mix for found in judged.values()]
        for indexes, label, tone in ((features, "features", 0), (answers, "answers", 2)):
            ranked = [(place, each.mean_psi / each.limit) for place, each in enumerate(indexes) if each and each.limit]
            places, values = [place for place, _ in ranked], [value for _, value in ranked]
            axes.plot(places, values, color=plots.colour(tone), marker=plots.marker(tone), markersize=3, label=label)
        axes.axhline(1.0, color=plots.MUTED, linewidth=1, linestyle="--", label="limit")
        for number, place in enumerate(faulty):
            axes.axvline(place, color=plots.colour(1), linewidth=1.4, label="fault" if not number else None)
        plots.title(figure, "Drift of the newest keys from the training rows, over the limit of each")
        step = max(1, len(keys) // 8)
        axes.set_xticks(range(0, len(keys), step), keys[::step], fontsize=7)
        axes.set(ylabel="mean PSI over its limit", xlim=(-0.5, len(keys) - 0.5))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        plots.legend(figure)

    return plots.png(draw)
