"""Draw how far each key was from its model's training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from platform_assets.operations.views import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from platform_assets.store.records.judgements import Judgement


def drift_chart(judged: Mapping[str, Judgement]) -> plots.Draw:
    """Draw the drift indexes of features and answers by key, each over its limit, and the keys that have a fault.

    Args:
        judged: judgements by key, oldest first.

    Raises:
        ValueError: without a key.
    """
    if not judged:
        raise ValueError("there is no judged key; a chart of drift needs at least one.")
    keys, judgements = list(judged), list(judged.values())
    faulty = [position for position, judgement in enumerate(judgements) if judgement.is_faulty]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        features, answers = [item.index for item in judgements], [item.mix for item in judgements]
        for indexes, label, tone in ((features, "features", 0), (answers, "answers", 2)):
            ratios = {at: index.mean_psi / index.limit for at, index in enumerate(indexes) if index and index.limit}
            axes.plot(
                list(ratios),
                list(ratios.values()),
                color=plots.colour(tone),
                marker=plots.marker(tone),
                markersize=3,
                label=label,
            )
        axes.axhline(1.0, color=plots.MUTED, linewidth=1, linestyle="--", label="limit")
        for number, position in enumerate(faulty):
            axes.axvline(position, color=plots.colour(1), linewidth=1.4, label="fault" if not number else None)
        step = max(1, len(keys) // 8)
        axes.set_xticks(range(0, len(keys), step), keys[::step], fontsize=7)
        axes.set(ylabel="mean PSI over its limit", xlim=(-0.5, len(keys) - 0.5))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        plots.legend(figure)

    return draw
