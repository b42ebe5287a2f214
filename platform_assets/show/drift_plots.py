"""Draw how far each key was from its model's training rows.

Belongs here: the chart of drift. Does not belong here: the index (`compute.drift`), or the look of charts
(`show.plots`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from platform_assets.show import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drift_chart(notes: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Draw the drift indexes of features and answers by key, each over its limit, and the keys that have a fault.

    Args:
        notes: of the records of stage `drift`, by key in order: `index`, `mix` (or None) and `is_faulty`.

    Raises:
        ValueError: no key.
    """
    if not notes:
        raise ValueError("there is no judged key; a chart of drift needs at least one.")
    keys = list(notes)
    faulty = [place for place, key in enumerate(keys) if notes[key]["is_faulty"]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, label, tone in (("index", "features", 0), ("mix", "answers", 2)):
            ranked = [place for place, key in enumerate(keys) if (notes[key].get(name) or {}).get("limit")]
            values = [notes[keys[place]][name]["mean_psi"] / notes[keys[place]][name]["limit"] for place in ranked]
            axes.plot(ranked, values, color=plots.colour(tone), marker=plots.marker(tone), markersize=3, label=label)
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
