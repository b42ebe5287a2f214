"""Say what a change of code would have made again: the assets whose code digest is not that of another commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from platform_assets.automation.factory import product_definitions
from platform_assets.automation.resources import defaults
from platform_assets.product.spec import Product

Digests = Mapping[str, str]
TRAINED = {"checkpoint"}
"""Stages whose work is a training."""


def digests(specs: Iterable[Product]) -> dict[str, str]:
    """Return the code digest of each asset, by its key."""
    return {
        asset.key.to_user_string(): asset.code_version or ""
        for spec in specs
        for asset in product_definitions(spec, defaults()).resolve_all_asset_specs()
        if asset.code_version
    }


def as_markdown(before: Digests, after: Digests) -> str:
    """Return a comment: what is made again at a commit with the digests `after` of what one with `before` made."""
    products = sorted({key.partition("/")[0] for key in (*before, *after)})
    lines = list[str]()
    for product in products:
        old, new = (
            {key.partition("/")[2]: text for key, text in digests.items() if key.startswith(f"{product}/")}
            for digests in (before, after)
        )
        if not old or not new:
            lines.append(f"- **{product}** is {'new' if new else 'gone; what it stored stays'}.")
            continue
        moved = [stage for stage in sorted(new) if stage in old and new[stage] != old[stage]]
        cost = " The next retraining trains, whatever the data." if TRAINED & {*moved} else ""
        if moved:
            lines.append(f"- **{product}**: {', '.join(f'`{stage}`' for stage in moved)}.{cost}")
        lines += [f"- **{product}**: `{stage}` is new." for stage in sorted(new) if stage not in old]
        lines += [f"- **{product}**: `{stage}` is gone." for stage in sorted(old) if stage not in new]
    return "\n".join(
        ["### Driftline: what this change makes again", "", *(lines or ["Nothing: no asset's code moved."])]
    )
