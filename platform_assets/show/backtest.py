"""Build the metadata of a backtest: sentences, quality against cost, one row per policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from platform_assets.show import values

if TYPE_CHECKING:
    from platform_assets.compute.backtest import Past, Plan
    from platform_assets.compute.backtest_outcomes import Outcome


def metadata(
    past: Past, cutoffs: Sequence[str], outcomes: Sequence[Outcome], sentences: Sequence[str]
) -> values.Metadata:
    """Return the metadata of a backtest; the first sentence heads it."""
    from platform_assets.compute.backtest import even, random_plans
    from platform_assets.show import backtest_plots

    def points(plans: Sequence[Plan]) -> list[tuple[float, float]]:
        return [(past.cost_s(plan), past.log_loss(plan)) for plan in plans]

    counts = {outcome.retrainings for outcome in outcomes}
    random = [plan for count in counts for plan in random_plans(past, count)]
    calendars = [even(past, count) for count in range(past.fits)]
    chart = backtest_plots.quality_against_cost(outcomes, points(calendars), points(random))
    metadata: values.Metadata = {
        "what_it_shows": values.bullets(sentences),
        "quality_against_cost": values.image(chart, "Log loss by CPU seconds of retraining"),
        "policies": values.table([outcome.row() for outcome in outcomes]),
        "cutoffs": values.table(
            [
                {"policy": outcome.policy, "retrained_at": ", ".join(cutoffs[fit] for fit in outcome.plan[1:])}
                for outcome in outcomes
            ]
        ),
        "fits": past.fits,
        "first_key": past.keys[0],
        "last_key": past.keys[-1],
        "rows": int(past.rows.sum()),
        "cpu_s_of_fits": round(sum(past.cpu_s), 1),
    }
    return values.readable(sentences[0], metadata)
