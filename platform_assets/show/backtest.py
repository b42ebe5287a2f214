"""Show what each policy would have bought: sentences, quality against cost, one row per policy.

Belongs here: from outcomes to metadata. Does not belong here: replaying (`compute.backtest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from platform_assets.show import values

if TYPE_CHECKING:
    from platform_assets.compute.backtest import Past, Plan
    from platform_assets.compute.backtest_outcomes import Outcome


def metadata(past: Past, cutoffs: Sequence[str], outcomes: Sequence[Outcome], told: Sequence[str]) -> values.Metadata:
    """Return the metadata of a backtest."""
    from platform_assets.compute.backtest import even, random_plans
    from platform_assets.show import backtest_plots

    def points(plans: Sequence[Plan]) -> list[tuple[float, float]]:
        return [(past.cost_s(plan), past.log_loss(plan)) for plan in plans]

    drawn = [plan for count in {each.retrainings for each in outcomes} for plan in random_plans(past, count)]
    evenly = [even(past, count) for count in range(past.fits)]
    chart = backtest_plots.quality_against_cost(outcomes, points(evenly), points(drawn))
    return {
        "what_it_shows": values.bullets(told),
        "quality_against_cost": values.image(chart, "Log loss by CPU seconds of retraining"),
        "policies": values.table([each.row() for each in outcomes]),
        "cutoffs": values.table(
            [
                {"policy": each.policy, "retrained_at": ", ".join(cutoffs[fit] for fit in each.plan[1:])}
                for each in outcomes
            ]
        ),
        "fits": past.fits,
        "first_key": past.keys[0],
        "last_key": past.keys[-1],
        "rows": int(past.rows.sum()),
        "cpu_s_of_fits": round(sum(past.cpu_s), 1),
    }
