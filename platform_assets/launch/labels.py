"""Make label values of pods and containers, and the labels by which cost is attributed to a product and its team."""

from __future__ import annotations

import hashlib
import re

PRODUCT, TEAM = "driftline/product", "driftline/team"


def label(value: str) -> str:
    """Return the nearest valid label value: at most 63 characters, invalid ones replaced by dashes."""
    allowed = re.sub(r"[^A-Za-z0-9_.-]", "-", value)
    return re.sub(r"[^A-Za-z0-9]+$", "", re.sub(r"^[^A-Za-z0-9]+", "", allowed)[:63])


def distinct_label(value: str) -> str:
    """Return the nearest valid label value, with a digest where it is not the value itself: two values stay two."""
    short = label(value)
    return short if short == value else label(f"{short[:54]}-{hashlib.sha256(value.encode()).hexdigest()[:8]}")


def attribution(product: str, owner: str | None) -> dict[str, str]:
    """Return a product and its team as they are, by label; without the team where the owner is not known."""
    return {PRODUCT: product} | ({} if owner is None else {TEAM: owner.removeprefix("team:")})


def attribution_labels(product: str, owner: str | None) -> dict[str, str]:
    """Return the labels of pods that work for a product."""
    return {key: distinct_label(value) for key, value in attribution(product, owner).items()}
