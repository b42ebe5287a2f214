"""Offer what a host hangs onto a product's assets: conditions that Dagster evaluates by key."""

from __future__ import annotations

import dagster as dg


def for_each_key() -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition of an asset that follows a product's: each of its keys, once per materialisation of ours.

    `AutomationCondition.eager()` looks at the newest period alone, and a key's files or labels may come later.
    """
    newest = dg.AutomationCondition.in_latest_time_window()
    return dg.AutomationCondition.eager().without(newest).with_label("for_each_key")
