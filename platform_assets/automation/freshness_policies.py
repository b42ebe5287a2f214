"""Give the assets of live products Dagster's freshness policies.

Dagster's daemon evaluates policies by the wall clock. A recording lives at a replayed moment, so its assets get none;
`freshness` covers them by the product's own clock.
"""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from platform_assets.base import naming
from platform_assets.product.spec import Product


def apply(assets: Sequence[dg.AssetsDefinition], spec: Product) -> list[dg.AssetsDefinition]:
    """Return a product's assets with their policies; unchanged unless it is live and its keys have a period."""
    by_group = policies(spec)

    def with_policy(asset: dg.AssetSpec) -> dg.AssetSpec:
        policy = by_group.get(asset.group_name or "")
        return dg.apply_freshness_policy(asset, policy) if policy is not None else asset

    return list(dg.map_asset_specs(with_policy, assets)) if by_group else list(assets)


def policies(spec: Product) -> dict[str, dg.FreshnessPolicy]:
    """Return the policy per group of a product's assets; none for a recording or batches.

    Data is materialised once per period, at the latest when the last deadline has passed; a model once within
    `max_age` plus one decision interval. A group fails one period after that.
    """
    over = spec.grain.instant_after(spec.grain.first)
    if not spec.is_live or over is None:
        return {}
    period = over - spec.grain.instant(spec.grain.first)
    latest = period + max((source.patience for source in spec.feature_sources), default=timedelta())
    life = (spec.retraining.max_age + spec.retraining.decide_every) * period
    data = dg.FreshnessPolicy.time_window(warn_window=latest, fail_window=latest + period)
    model = dg.FreshnessPolicy.time_window(warn_window=life, fail_window=life + period)
    return {spec.group(naming.DATA): data, spec.group(naming.TRAINING): model, spec.group(naming.SERVING): model}
